"""A metric that is negated, with its direction turned, changes nothing but its sign."""

import re
from dataclasses import replace

import numpy as np
import pytest

from evometa.metrics import scored_metric
from evometa.report.confirmed import compare
from evometa.report.page import render
from evometa.report.page.facts import Facts
from evometa.report.page.influence import child_gains
from evometa.report.ranking import operator_counts, rank
from tests.report.tables import changed, confirmed, ordinary, rungs
from tests.report.test_page import decoded, figures, findings

TURNED = {"min": "max", "max": "min"}
NEGATED = ("query_loss", "params", "macs")


def negated(values):
    return [None if value is None else -value for value in values]


def mirrored(run, *names):
    """Return a run whose metrics are negated and whose directions are turned."""
    turned = {
        name: TURNED[direction] if name in names else direction
        for name, direction in run.study["objectives"].items()
    }
    columns = {name: negated(run.table[name].to_pylist()) for name in names}
    if "query_loss" in names:
        columns["scores"] = [negated(scores) for scores in run.table["scores"].to_pylist()]
    return replace(
        run, study={**run.study, "objectives": turned}, table=changed(run.table, **columns)
    )


def ranked(run, by=None):
    scored = scored_metric(run.study)
    return rank(run.table, run.study["objectives"], scored=scored, by=by, n=30)


KINDS = {
    "one objective": (lambda: ordinary(objectives=1), ["query_loss"]),
    "the first of two": (ordinary, ["query_loss"]),
    "the second of two": (ordinary, ["params"]),
    "all of three": (lambda: ordinary(objectives=3), ["query_loss", "params", "macs"]),
    "rungs": (rungs, ["query_loss"]),
}


@pytest.fixture(params=KINDS)
def pair(request):
    make, names = KINDS[request.param]
    run = make()
    return run, mirrored(run, *names)


def test_ranks_fronts_and_gains_stay(pair):
    run, mirror = pair
    for by in run.study["objectives"]:
        down, up = ranked(run, by), ranked(mirror, by)
        assert [(row.id, row.rank, row.on_front) for row in up] == [
            (row.id, row.rank, row.on_front) for row in down
        ]
        for one, other in zip(down, up, strict=True):
            assert one.gain == other.gain
            assert (one.interval, one.gain_interval) == (other.interval, other.gain_interval)
    assert any(row.gain for row in ranked(run))
    assert any(row.on_front for row in ranked(run))


def test_operators_stay_as_good(pair):
    run, mirror = pair
    counts = operator_counts(run.table, run.study["objectives"])
    assert operator_counts(mirror.table, mirror.study["objectives"]) == counts
    assert any(wins for _, wins in counts.values())
    down, up = (Facts.of("run", each.study, each.table) for each in pair)
    gains = {name: values.tolist() for name, values in child_gains(down).items()}
    assert {name: values.tolist() for name, values in child_gains(up).items()} == gains


def test_what_the_report_says_stays(pair):
    """Word by word, but for signs and for which way is better; gains keep their signs."""

    def said(run):
        first, *found = findings(render(run.name, run.study, run.table))
        found = [re.sub(r"(?<![\w+])-(?=[\d.])", "", text) for text in found]
        return [re.sub(r"\b(low|high) ", "", first), *found]

    down, up = (said(run) for run in pair)
    assert up == down
    assert len(down) > 8


def test_the_best_so_far_is_the_mirror_image():
    def line(run):
        drawn = figures(render(run.name, run.study, run.table))["plot-progress-0"]["data"]
        (trace,) = [t for t in drawn if t.get("name") == "best so far" and t.get("showlegend")]
        return decoded(trace["y"])

    run = ordinary()
    down, up = line(run), line(mirrored(run, "query_loss"))
    assert (np.diff(up) >= 0).all() and up[-1] > up[0]
    np.testing.assert_array_equal(up, -down)


def test_a_confirmation_stays():
    run, table = ordinary(), confirmed("", "", "MAML", seeds=3)
    columns = ("scores", "validation_scores", "search_scores")
    changes = {name: [negated(scores) for scores in table[name].to_pylist()] for name in columns}
    mirror = changed(table, query_loss=negated(table["query_loss"].to_pylist()), **changes)
    down = compare(table, run.study)
    up = compare(mirror, mirrored(run, "query_loss").study)
    assert [each.id for each in up] == [each.id for each in down]
    assert [(each.gains, each.bias) for each in up] == [(each.gains, each.bias) for each in down]
    for one, other in zip(up, down, strict=True):
        assert (one.test.mean, one.test.half) == (-other.test.mean, other.test.half)
    assert down[0].bias and down[0].gains["MAML"].mean > 0
