"""A stored evaluation can be made again."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from evometa.errors import EvometaError, StoreError
from evometa.reuse.rerun import rerun


def changed(run, name, function):
    place = run.table.schema.get_field_index(name)
    values = pa.array([function(v) for v in run.table[name].to_pylist()], run.table[name].type)
    return replace(run, table=run.table.set_column(place, name, values))


def test_every_candidate_comes_out_equal(waves):
    for id_ in sorted(set(waves.table["candidate_id"].to_pylist())):
        found = rerun(waves, id_)
        assert found.verdict == "equal", (id_, found)
        assert found.largest == 0 and not found.changed


def test_a_candidate_that_was_promoted_is_made_again_from_the_start(waves):
    promoted = waves.table.filter(pc.equal(waves.table["rung"], 1))["candidate_id"][0].as_py()
    found = rerun(waves, promoted)
    assert found.before.candidate.rung == 1
    assert found.verdict == "equal"


def test_a_small_difference_is_within_the_interval_and_a_large_one_is_not(waves):
    near = changed(waves, "scores", lambda scores: [s * 1.001 for s in scores])
    assert rerun(near, "c000000").verdict == "within the interval"
    far = changed(waves, "scores", lambda scores: [s * 3 for s in scores])
    assert rerun(far, "c000000").verdict == "different"


def test_what_may_explain_a_difference_is_named(waves):
    kept = {**waves.kept, "versions": {**waves.kept["versions"], "torch": "1.0"}}
    old = replace(waves, kept=kept, table=waves.table.replace_schema_metadata({}))
    elsewhere = changed(old, "device", lambda name: "a card")
    found = rerun(elsewhere, "c000000").changed
    assert found["torch"][0] == "1.0"
    assert found["device"] == ("a card", "cpu")


def test_unknown_and_copied_candidates_are_refused(waves):
    with pytest.raises(StoreError, match="no candidate 'x'"):
        rerun(waves, "x")
    copied = changed(waves, "copied_from", lambda _: "c000001")
    with pytest.raises(EvometaError, match="the result of c000001"):
        rerun(copied, "c000002")
