"""Several runs ranked as one."""

import pyarrow as pa
import pytest

from evometa.errors import EvometaError
from evometa.metrics import Scored
from evometa.report import rank
from evometa.report.several import joined
from tests.report.tables import changed, ordinary


def runs(second=None):
    one, two = ordinary(20), second or ordinary(30)
    tables = [
        run.table.add_column(0, "run", pa.repeat(pa.scalar(name), len(run.table)))
        for name, run in (("a", one), ("b", two))
    ]
    return one, two, joined(["a", "b"], [one.study, two.study], pa.concat_tables(tables))


def ranked(study, table, n=100):
    return rank(table, study["objectives"], scored=Scored("query_loss", "min"), n=n)


def test_the_ranking_of_both_is_the_merged_ranking_of_each():
    one, two, (study, table) = runs()
    apart = [(f"a/{row.id}", row.values) for row in ranked(one.study, one.table)]
    apart += [(f"b/{row.id}", row.values) for row in ranked(two.study, two.table)]
    together = [(row.id, row.values) for row in ranked(study, table)]
    assert sorted(together) == sorted(apart)
    losses = [values["query_loss"] for _, values in together]
    assert losses == sorted(losses)


def test_gains_are_over_the_first_runs_baseline_on_the_same_episodes_only():
    _, _, (study, table) = runs()
    assert all(row.gain is not None for row in ranked(study, table))
    other = ordinary(30)
    other.study = {**other.study, "settings": {**other.study["settings"], "seed": 9}}
    _, _, (study, table) = runs(other)
    for row in ranked(study, table):
        assert (row.gain is None) == row.id.startswith("b/")
        assert row.interval > 0


def test_an_empty_run_adds_nothing():
    one, _, _ = runs()
    empty = ordinary(4)
    empty.table = empty.table.slice(0, 0)
    _, _, (study, table) = runs(empty)
    assert {row.id for row in ranked(study, table)} == {
        f"a/{row.id}" for row in ranked(one.study, one.table)
    }


def test_runs_of_an_older_version_have_one_rung():
    one = ordinary(20)
    old = ordinary(10)
    old.study = {k: v for k, v in old.study.items() if k != "levels"}
    one.study = {**one.study, "levels": [{}, {}]}
    tables = [
        run.table.add_column(0, "run", pa.repeat(pa.scalar(name), len(run.table)))
        for name, run in (("a", one), ("b", old))
    ]
    _, table = joined(["a", "b"], [one.study, old.study], pa.concat_tables(tables))
    assert set(zip(table["run"].to_pylist(), table["rung"].to_pylist(), strict=True)) == {
        ("a", 0),
        ("b", 1),
    }


def test_other_objectives_are_refused():
    with pytest.raises(EvometaError, match="the same objectives, but a has"):
        runs(ordinary(30, objectives=1))


def test_candidates_of_the_same_number_stay_apart():
    same = ordinary(20)
    same.table = changed(same.table, candidate_id=same.table["candidate_id"].to_pylist())
    _, _, (_, table) = runs(same)
    assert len(set(table["candidate_id"].to_pylist())) == len(table)
    assert len(set(table["number"].to_pylist())) == len(table)
