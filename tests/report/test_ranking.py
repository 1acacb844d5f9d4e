"""Rankings, fronts, gains and lineages, against plain loops."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from evometa.errors import EvometaError
from evometa.metrics import Scored
from evometa.records import Candidate, Counts, Evaluation, Status, mean_interval
from evometa.report import Progress, front, lineage, print_candidate, print_top, rank
from evometa.report.show import differences, print_failures
from evometa.report.standing import outcomes, standing, tied
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, make_schema, read_table

SCORED = Scored("query_loss", "min")
OBJECTIVES = {"query_loss": "min", "params": "min"}


def evaluation(number, scores, params, parents=(), operator="mutate", name="", **changes):
    candidate = Candidate(
        number, {"a": number, "b": [1, 2.5]}, 0, parents=parents, operator=operator, name=name
    )
    metrics = {"query_loss": float(np.mean(scores)), "params": float(params)}
    return replace(
        Evaluation(candidate, Status.OK, metrics, tuple(scores), network="Linear()"), **changes
    )


EVALUATIONS = [
    evaluation(0, [3.0, 5.0], 10, operator="baseline", name="MAML"),
    evaluation(1, [1.0, 2.0], 30, ("c000000",)),
    evaluation(2, [1.0, 4.0], 20, ("c000001",)),
    evaluation(3, [0.0, 9.0], 40, ("c000002",)),
    evaluation(
        4,
        [0.0],
        0,
        status=Status.DIVERGED,
        metrics={},
        error="Trace\n[bold]boom[/bold] 9",
    ),
    evaluation(5, [1.0, 2.0], 30, copied_from="c000001"),
]


@pytest.fixture
def table(tmp_path):
    schema = make_schema({"a": int}, ["query_loss", "params"])
    with (
        RunDirectory.create(tmp_path / "run", {}, "") as run,
        Writer(run, schema, gene_value) as writer,
    ):
        for row in EVALUATIONS:
            writer.append(row, row.candidate.number)
    return read_table(tmp_path / "run")


def text(call, *arguments, **options):
    console = Console(file=io.StringIO(), width=120)
    call(console, *arguments, **options)
    return console.file.getvalue()


def test_the_best_come_first_and_the_baseline_is_shown(table):
    rows = rank(table, OBJECTIVES, scored=SCORED, n=2)
    assert [(row.id, row.rank, row.name) for row in rows] == [
        ("c000001", 1, ""),
        ("c000002", 2, ""),
        ("c000000", 3, "MAML"),
    ]
    assert rows[0].gain == pytest.approx(2.5)
    assert rows[0].gain_interval == pytest.approx(mean_interval([2.0, 3.0])[1])
    assert rows[2].gain == 0
    assert [row.on_front for row in rows] == [True, True, True]
    (worst,) = [row for row in rank(table, OBJECTIVES, scored=SCORED) if row.id == "c000003"]
    assert not worst.on_front


def test_another_objective_may_rank(table):
    rows = rank(table, OBJECTIVES, scored=SCORED, by="params")
    assert [row.params for row in rows] == [10, 20, 30, 40]
    with pytest.raises(EvometaError, match="must be one of query_loss, params, got 'speed'"):
        rank(table, OBJECTIVES, scored=SCORED, by="speed")


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_is_what_nobody_dominates(objectives):
    losses = np.random.default_rng(0).integers(0, 6, (60, objectives)).astype(float)
    plain = [
        not any((other <= row).all() and (other < row).any() for other in losses) for row in losses
    ]
    assert front(losses).tolist() == plain


def test_lineage_follows_the_parents(table):
    assert [row["candidate_id"] for row in lineage(table, "c000003")] == [
        "c000003",
        "c000002",
        "c000001",
        "c000000",
    ]


def test_tables_are_printed(table):
    ranked = rank(table, OBJECTIVES, scored=SCORED)
    said = text(print_top, ranked, OBJECTIVES, scored="query_loss")
    assert "MAML c000000" in said and "1.5 ± 0.98" in said
    assert "No candidate" in text(print_top, [], OBJECTIVES, scored="query_loss")
    shown = text(print_candidate, table, "c000002", OBJECTIVES)
    assert "Linear()" in shown and "from c000001: a: 1 -> 2" in shown
    with pytest.raises(EvometaError, match="no candidate 'c9'; it has c000000 to c000005"):
        print_candidate(Console(file=io.StringIO()), table, "c9", OBJECTIVES)


def test_failures_are_counted_and_their_text_is_shown_as_it_is(table, tmp_path):
    said = text(print_failures, table, tmp_path)
    assert "1 DIVERGED; the first, c000004: [bold]boom[/bold] 9" in said


def test_differences_name_the_genes():
    old = {"a": 1, "b": [1, {"c": "x"}], "d": 0.5}
    assert differences(old, {"a": 1, "b": [1, {"c": "y"}], "d": 0.25}) == [
        "b[1].c: x -> y",
        "d: 0.5 -> 0.25",
    ]
    assert differences(old, {**old, "b": [1]}) == ["b: [1 | c=x] -> [1]"]


def test_progress_says_best_rate_time_left_and_failures():
    console = Console(file=io.StringIO(), width=120)
    workers = Counts(3, 2, starting=1, lost=3, failures={"node": 1, "crash": 2}, utilisation=0.955)
    with Progress(console, OBJECTIVES, 10, lambda: workers, "query_loss") as progress:
        for row in EVALUATIONS:
            progress.recorded(replace(row, seconds=600.0))
        progress.tick()
    for part in (
        "best query_loss 1.5 ± 0.98 (c000001)",
        "failed: 1 DIVERGED",
        "/min",
        "left",
        f"workers: 2 busy of 3, 1 starting  96% used  {600 * len(EVALUATIONS):,} device-seconds",
        "workers lost: 2 crash, 1 node",
    ):
        assert part in progress.text


def seeded(tmp_path, *rows):
    """Return a table from number, rung, repeat, losses an episode, or None for a failure."""
    schema = make_schema({"a": int}, ["query_loss", "params"])
    with (
        RunDirectory.create(tmp_path / "seeded", {}, "") as run,
        Writer(run, schema, gene_value) as writer,
    ):
        for told, (number, rung, repeat, scores) in enumerate(rows):
            row = evaluation(number, scores or [0.0], 10)
            if scores is None:
                row = replace(row, status=Status.ERROR, metrics={}, scores=(), error="no")
            writer.append(
                replace(row, candidate=replace(row.candidate, rung=rung, repeat=repeat)), told
            )
    return read_table(tmp_path / "seeded")


def test_candidates_count_with_means_over_seeds_at_the_full_rung(tmp_path):
    table = seeded(
        tmp_path,
        (0, 0, 0, [9.0, 9.0]),
        (1, 0, 0, [1.0, 1.0]),  # never promoted
        (0, 1, 0, [4.0, 2.0]),
        (2, 1, 0, [5.0, 5.0]),
        (0, 1, 1, [2.0, 6.0]),
    )
    rows = {row["number"]: row for row in outcomes(table).to_pylist()}
    assert [*rows] == [1, 0, 2]
    assert (rows[0]["query_loss"], rows[0]["scores"], rows[0]["seeds"]) == (3.5, [3.0, 4.0], 2)
    assert (rows[2]["query_loss"], rows[2]["scores"], rows[2]["seeds"]) == (5.0, [5.0, 5.0], 1)
    assert [row["number"] for row in standing(table).to_pylist()] == [0, 2]


def test_who_failed_with_one_seed_is_not_ranked(tmp_path):
    table = seeded(tmp_path, (0, 0, 0, [1.0]), (1, 0, 0, [2.0]), (0, 0, 1, None), (1, 0, 1, [4.0]))
    rows = {row["number"]: row for row in outcomes(table).to_pylist()}
    assert (rows[0]["status"], rows[0]["query_loss"], rows[0]["seeds"]) == ("ERROR", None, 1)
    assert rows[1]["query_loss"] == 3.0
    assert [row["number"] for row in standing(table).to_pylist()] == [1]


@pytest.mark.parametrize(
    ("values", "same"),
    [([1 / 3, 1 / 3 + 1e-12, 1 / 3], 3), ([0.5, 0.5, 0.4], 0), ([0.5], 0), ([], 0)],
)
def test_candidates_of_one_score_are_counted(tmp_path, values, same):
    rows = [(number, 0, 0, [value, value]) for number, value in enumerate(values)]
    table = seeded(tmp_path, *rows, (9, 0, 0, None))
    assert tied(table, "query_loss") == same


def test_progress_never_shows_who_breaks_a_constraint_as_the_best():
    _, best, second, *_ = EVALUATIONS
    best = replace(best, violation=0.2)
    with Progress(Console(file=io.StringIO()), OBJECTIVES, 9, lambda: Counts(1, 1)) as line:
        line.recorded(best)
        assert "none keeps the constraints yet" in line.text
        line.found(second)
        line.recorded(best)
        assert f"({second.candidate.id})" in line.text


def test_progress_does_not_take_one_seed_more_for_a_best():
    _, best, second, *_ = EVALUATIONS
    with Progress(Console(file=io.StringIO()), OBJECTIVES, 9, lambda: Counts(1, 1)) as line:
        line.recorded(best)
        line.recorded(replace(second, candidate=replace(second.candidate, repeat=1)))
        assert f"({best.candidate.id})" in line.text and "1 promoted" in line.text


@pytest.mark.parametrize("width", [80, 120])
def test_progress_fits_a_terminal(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    workers = Counts(1000, 998, starting=64, lost=123, failures={"preempted": 120, "crash": 3})
    failed = [replace(EVALUATIONS[0], status=status) for status in Status if status != "OK"]
    progress = Progress(console, OBJECTIVES, 100_000, lambda: workers)
    for row in [*EVALUATIONS, *failed]:
        progress.recorded(replace(row, seconds=1e5))
    progress.tick()
    with console.capture() as capture:
        console.print(progress._view())
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capture.get()).splitlines()
    assert all(len(line) <= width for line in lines)
    words = ("left", "best query_loss", "device-seconds", "failed", "workers lost: 3 crash, 120")
    for word, line in zip(words, lines, strict=True):
        assert word in line and "…" not in line
