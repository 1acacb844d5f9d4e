"""The README's Python blocks run as printed."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from evometa.store import read_table
from evometa.study_file import load_study
from tests.commands import evometa

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small run of the sinusoid study."""
    folder = tmp_path_factory.mktemp("readme")
    study = str(ROOT / "search_spaces" / "sinusoid.py")
    result = run([sys.executable, "-m", "evometa.cli", "search", study, *SHORT], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


SHORT = ("-n", "4", "--iterations", "3", "--executor", "serial")


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, place):
    result = run([sys.executable, "-W", "error", "-c", BLOCKS[number]], place)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_study_with_a_task_and_a_way_of_learning_of_its_own_searches(place):
    study = ROOT / "search_spaces" / "topics.py"
    arguments = ("--iterations", "9", "--executor", "serial", "--run", "topics")
    evometa("search", study, "-n", "20", *arguments, folder=place)
    table = read_table(place / "topics").to_pydict()
    families = [next(iter(json.loads(genome)["rule"])) for genome in table["genome"]]
    assert len(set(families)) > 5
    failed = [
        each for each, status in zip(families, table["status"], strict=True) if status != "OK"
    ]
    assert set(failed) <= {"transfer"}, "this task does not say how many classes there are in all"


@pytest.mark.slow
@pytest.mark.parametrize("number", [n for n, b in enumerate(BLOCKS) if "study = Study(" in b])
def test_the_studies_of_the_readme_search(number, place):
    (place / f"mine{number}.py").write_text(BLOCKS[number])
    evometa("search", f"mine{number}.py", *SHORT, "--iterations", "9", folder=place)


def test_both_commands_are_there():
    text = (ROOT / "README.md").read_text()
    assert "pip install . && evometa search search_spaces/sinusoid.py" in text
    assert "pip install '.[test]' && python -m pytest" in text


def test_the_result_is_that_of_the_table_beside_it():
    from evometa.report.confirmed import compare
    from evometa.store import RunDirectory, read_confirmed

    shipped = ROOT / "search_spaces" / "omniglot_20way"
    study, now = RunDirectory.read(shipped), load_study(shipped.with_suffix(".py")).study
    assert study["training"] == asdict(now.training)
    assert study["constraints"] == [str(limit) for limit in now.limits]
    assert study["objectives"] == now.objectives
    assert study["baselines"].keys() == now.baselines.keys()
    for name, genome in study["baselines"].items():
        assert_says(now.baselines[name], genome)
    text = (ROOT / "README.md").read_text()
    found = compare(read_confirmed(shipped), study)
    assert len(found) == 8
    for each in found:
        score = f"{100 * each.test.mean:.1f} ± {100 * each.test.half:.1f}"
        names = (f"| {each.name or each.id} |", f"| **{each.id}** |")
        row = next(line for line in text.split("\n") if line.startswith(names))
        assert score in row and f"{each.metrics['params']:,.0f}" in row


def assert_says(now, then):
    """Assert that a genome has all genes of another: the library has got further ones since."""
    if isinstance(then, dict):
        assert then.keys() <= now.keys()
        for gene in then:
            assert_says(now[gene], then[gene])
    else:
        assert now == then


def test_the_report_of_the_table_is_drawn(tmp_path):
    shipped = ROOT / "search_spaces" / "omniglot_20way"
    evometa("report", shipped, "--out", tmp_path / "report.html", folder=tmp_path)
    assert "better than ProtoNet" in (tmp_path / "report.html").read_text()
