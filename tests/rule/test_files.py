"""Rule files: read as printed, and refused with the reason where they cannot learn."""

import json

import pytest

from evometa.errors import GenomeError
from evometa.learner import preset
from evometa.rule import read_rule


def write(folder, text):
    path = folder / "rule.json"
    path.write_text(text)
    return path


def test_a_rule_is_read_alone_or_within_a_genome(tmp_path):
    rule = preset("adam")
    assert read_rule(write(tmp_path, json.dumps(rule))) == rule
    assert read_rule(write(tmp_path, json.dumps({"hidden": [8], "rule": rule}))) == rule


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "must be JSON"),
        ("[1]", "must be an object"),
        (json.dumps({**preset("maml"), "update": ["mul", "rat", "gradient"]}), "update\\[1\\]"),
        (json.dumps({**preset("maml"), "update": ["parameter"]}), "does not depend"),
        (json.dumps({**preset("maml"), "update": ["neg"] * 200 + ["gradient"]}), "levels deep"),
        (json.dumps({**preset("maml"), "update": "gradient"}), "update"),
        (json.dumps({**preset("maml"), "steps": "two"}), "rule.json"),
        (json.dumps({**preset("maml"), "update": ["mul", 1e999, "gradient"]}), "finite"),
        (json.dumps({"rate": 0.1}), "steps"),
        (json.dumps({**preset("maml"), "colour": 1}), "colour"),
    ],
)
def test_broken_rules_are_refused_with_the_file_and_the_reason(tmp_path, text, reason):
    with pytest.raises(GenomeError, match=reason) as caught:
        read_rule(write(tmp_path, text))
    assert "rule.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(GenomeError, match="none.json"):
        read_rule(tmp_path / "none.json")
