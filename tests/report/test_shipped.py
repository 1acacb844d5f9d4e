"""The shipped run, written by schema version 2, still says what it said then."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from evometa.limits import stored_limits
from evometa.metrics import scored_metric
from evometa.report import operator_counts, print_candidate, print_rungs, rank
from evometa.report.confirmed import compare
from evometa.report.page import render
from evometa.store import RunDirectory, read_confirmed, read_table

RUN = Path(__file__).resolve().parents[2] / "search_spaces" / "omniglot_20way"

# as `evometa top`, `confirm` and `show` printed them before version 3
BEST = {
    "c000062": (1, "", "0.9294 22928 +0.5147", True),
    "c000064": (2, "", "0.9231 22880 +0.5083", True),
    "c000037": (3, "", "0.9072 22880 +0.4925", False),
    "c000070": (4, "", "0.8981 10272 +0.4833", True),
    "c000003": (10, "ProtoNet", "0.8625 28320 +0.4478", False),
    "c000001": (22, "MAML, outer 5e-3", "0.5931 28980 +0.1783", False),
    "c000002": (23, "MAML++", "0.5864 28980 +0.1717", False),
    "c000000": (27, "MAML", "0.4147 28980 +0", False),
}
CONFIRMED = [
    ("c000062", "", "0.9345 ± 0.0038", "0.9376 ± 0.014", "0.04744 ± 0.013"),
    ("c000064", "", "0.922 ± 0.0047", "0.9215 ± 0.01", "0.03499 ± 0.013"),
    ("c000046", "", "0.8947 ± 0.0048", "0.8915 ± 0.012", "0.007681 ± 0.013"),
    ("c000050", "", "0.8329 ± 0.015", "0.8194 ± 0.026", "-0.05414 ± 0.016"),
    ("c000003", "ProtoNet", "0.8871 ± 0.012", "0.882 ± 0.015", ""),
    ("c000001", "MAML, outer 5e-3", "0.6222 ± 0.01", "0.6042 ± 0.018", "-0.2648 ± 0.013"),
    ("c000002", "MAML++", "0.6027 ± 0.11", "0.5924 ± 0.12", "-0.2843 ± 0.11"),
    ("c000000", "MAML", "0.4323 ± 0.011", "0.4197 ± 0.017", "-0.4548 ± 0.014"),
]
OPERATORS = {
    "crossover": (9, 0),
    "mutate activation": (11, 5),
    "mutate blocks": (13, 5),
    "mutate head": (27, 17),
    "mutate norm": (5, 0),
    "mutate rule": (13, 5),
}


@pytest.fixture(scope="module")
def shipped():
    return RunDirectory.read(RUN), read_table(RUN)


def said(call, *arguments):
    console = Console(file=io.StringIO(), width=120)
    call(console, *arguments)
    return " ".join(console.file.getvalue().split())


def test_the_ranking_is_what_it_was(shipped):
    study, table = shipped
    rows = rank(
        table, study["objectives"], scored=scored_metric(study), limits=stored_limits(study)
    )
    found = {
        row.id: (
            row.rank,
            row.name,
            f"{row.values['accuracy']:.4g} {row.params} {row.gain:+.4g}",
            row.on_front,
        )
        for row in rows
    }
    assert len(rows) == 10 + 3
    assert {name: found[name] for name in BEST} == BEST
    assert all(row.feasible and row.seeds == 1 for row in rows)
    assert operator_counts(table, study["objectives"]) == OPERATORS
    assert (
        set(table["violation"].to_pylist()) == {0.0} == set(map(float, table["repeat"].to_pylist()))
    )


def test_the_confirmation_is_what_it_was(shipped):
    study, _ = shipped
    found = compare(read_confirmed(RUN), study)
    assert [
        (
            each.id,
            each.name,
            str(each.test),
            str(each.validation),
            str(each.gains.get("ProtoNet", "")),
        )
        for each in found
    ] == CONFIRMED
    assert {each.seeds for each in found} == {3}


def test_rungs_candidates_and_the_report_are_what_they_were(shipped):
    study, table = shipped
    rungs = said(print_rungs, table, study["objectives"], study["levels"])
    assert "0 50 80 4364.9 0.87 of 29 1 150 29 3994.8" in rungs
    shown = said(print_candidate, table, "c000000", study["objectives"])
    assert shown.startswith("c000000 OK baseline MAML ")
    for part in ("rung 1 ", "told 16 ", "seed 4843488744718049059", "accuracy 0.414722 (max)"):
        assert part in shown
    page = " ".join(render("run", study, table, confirmed=read_confirmed(RUN)).split())
    for part in (
        "c000062 reaches accuracy 0.9345 ± 0.0038 on meta-test",
        "Kendall's tau is 0.87".replace("'", "&#x27;"),
        "operator baseline MAML++",
    ):
        assert part in page, part
