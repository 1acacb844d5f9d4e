"""Who won, by how much, and where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from evometa.errors import EvometaError
from evometa.limits import Limit, violation
from evometa.metrics import Scored
from evometa.records import BASELINE, Genome, Objectives, Status, dominates, mean_interval
from evometa.report.standing import standing

EPISODES = "episodes"  # a column that tables of several runs have


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's place in a run.

    Attributes:
        rank: 1 is best; 0 for a baseline that is shown out of order.
        id: the candidate.
        name: name of the baseline, or empty.
        values: objective name to value.
        interval: half-width of the 95% interval of the primary score over episodes.
        gain: mean improvement of the primary score over the first baseline, on the same
            episodes; positive is better. None without a baseline.
        gain_interval: half-width of its 95% interval.
        params: trainable parameters.
        seconds: wall time of the evaluation.
        on_front: no other candidate is at least as good in all objectives and better in one.
        seeds: with how many seeds it was trained; all else is the mean over them.
        feasible: no constraint is broken.
        genome: plain data.
    """

    rank: int
    id: str
    name: str
    values: dict[str, float]
    interval: float
    gain: float | None
    gain_interval: float
    params: int
    seconds: float
    on_front: bool
    seeds: int
    feasible: bool
    genome: Genome

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as `top --json` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


def rank(
    table: pa.Table,
    objectives: Objectives,
    *,
    scored: Scored,
    by: str | None = None,
    n: int = 10,
    limits: Sequence[Limit] = (),
) -> list[Ranked]:
    """Rank the candidates of a run; baselines follow where they are not among the best.

    Candidates count with their means over seeds at the full rung; those that break constraints
    come last.

    Args:
        table: the run's table, or that of several, as `joined` makes it.
        objectives: name to direction; the first is the primary one.
        scored: the metric that the column `scores` holds for each episode.
        by: the objective to rank by; default the primary one. Ties go to the earlier candidate.
        n: how many to return, baselines not counted.
        limits: the study's constraints.

    Raises:
        EvometaError: if `by` is not an objective.
    """
    by = by or next(iter(objectives))
    if by not in objectives:
        raise EvometaError(f"`by` must be one of {', '.join(objectives)}, got {by!r}")
    table = standing(table)
    if not len(table):
        return []
    losses = losses_of(table, objectives)
    beyond = _beyond(table, limits)
    first_by = losses[:, list(objectives).index(by)]
    order = np.lexsort((table["number"].to_numpy(), first_by, beyond))
    known = is_baseline(table)
    baselines = [row for row in order if known[row]]
    best = order[:n].tolist()
    shown = best + [row for row in baselines if row not in best]
    first = min(baselines, key=lambda row: table["number"][row].as_py(), default=None)
    on_front = np.zeros(len(table), dtype=bool)
    on_front[beyond == 0] = front(losses[beyond == 0])
    places = {row: place for place, row in enumerate(order.tolist(), start=1)}
    reference = None if first is None else _scores(table, first)
    where = table[EPISODES].to_pylist() if EPISODES in table.column_names else [""] * len(table)
    return [
        _ranked(
            table,
            row,
            places[row],
            objectives,
            scored,
            reference if first is not None and where[row] == where[first] else None,
            on_front=bool(on_front[row]),
            feasible=not beyond[row],
        )
        for row in shown
    ]


def losses_of(table: pa.Table, objectives: Objectives) -> npt.NDArray[np.float64]:
    """Return objectives, all to be minimised: shape `(candidates, objectives)`."""
    columns = [
        table[name].to_numpy() * (1.0 if direction == "min" else -1.0)
        for name, direction in objectives.items()
    ]
    return np.column_stack(columns)


def _beyond(table: pa.Table, limits: Sequence[Limit]) -> npt.NDArray[np.float64]:
    """Return by how much each row breaks the limits."""
    names = {limit.metric for limit in limits}
    columns = {name: table[name].to_numpy() for name in names}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(table))]
    return np.array([violation(row, limits) for row in rows], dtype=float)


def is_baseline(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark the rows of baselines."""
    return np.array([word == BASELINE for word in table["operator"].to_pylist()], dtype=bool)


def baseline_name(row: Mapping[str, Any]) -> str:
    """Return the name of a baseline's row; empty for others."""
    return str(row["name"]) if row["operator"] == BASELINE else ""


def front(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mark the rows that no other row dominates; `losses` has shape `(candidates, objectives)`."""
    marks: npt.NDArray[np.bool_] = moocore.is_nondominated(losses, keep_weakly=True)
    return marks


def lineage(table: pa.Table, candidate_id: str) -> list[dict[str, Any]]:
    """Return a candidate's row and those of its ancestors, nearest first.

    Where a candidate has two parents, the line follows the first.
    """
    columns = ["candidate_id", "parents", "operator", "name", "status", "genome", "told"]
    rows = table.select(columns)
    where = {name: index for index, name in enumerate(rows["candidate_id"].to_pylist())}
    line: list[dict[str, Any]] = []
    current: str | None = candidate_id
    while current in where and len(line) < len(where):
        row = rows.slice(where[current], 1).to_pylist()[0]
        row["genome"] = json.loads(row["genome"])
        line.append(row)
        current = row["parents"][0] if row["parents"] else None
    return line


def operator_counts(table: pa.Table, objectives: Objectives) -> dict[str, tuple[int, int]]:
    """Return for each operator how many children it made, and how many dominate their parent."""
    columns = ["candidate_id", "rung", "repeat", "operator", "parents", "status", "searcher"]
    rows = table.select([*columns, "violation", *objectives]).to_pylist()
    if rows and rows[0]["searcher"] == "evolution":  # which ranks by the first one alone
        objectives = dict([next(iter(objectives.items()))])
    signs = [1.0 if direction == "min" else -1.0 for direction in objectives.values()]
    keys = {
        (row["candidate_id"], row["rung"], row["repeat"]): (
            row["violation"],
            *(s * row[name] for s, name in zip(signs, objectives, strict=True)),
        )
        for row in rows
        if row["status"] == Status.OK
    }
    counts: dict[str, tuple[int, int]] = {}
    for row in rows:
        if not row["parents"]:
            continue
        mine = keys.get((row["candidate_id"], row["rung"], row["repeat"]))
        theirs = keys.get((row["parents"][0], row["rung"], row["repeat"]))
        if (row["rung"] or row["repeat"]) and theirs is None:
            continue  # there is nothing to compare with at this rung
        better = mine is not None and theirs is not None and dominates(mine, theirs)
        uses, wins = counts.get(row["operator"], (0, 0))
        counts[row["operator"]] = uses + 1, wins + better
    return counts


def gain(
    scores: Sequence[float], reference: Sequence[float], direction: str
) -> tuple[float, float]:
    """Return the paired mean improvement on common episodes, and its 95% half-width."""
    sign = 1.0 if direction == "max" else -1.0
    return mean_interval([sign * (a - b) for a, b in zip(scores, reference, strict=True)])


def _ranked(
    table: pa.Table,
    row: int,
    place: int,
    objectives: Objectives,
    scored: Scored,
    reference: list[float] | None,
    *,
    on_front: bool,
    feasible: bool,
) -> Ranked:
    scores = _scores(table, row)
    value: Mapping[str, Any] = table.slice(row, 1).drop_columns(["scores", "curve"]).to_pylist()[0]
    improvement, half = None, 0.0
    # a gain is a mean of differences; scores of another rung are on other episodes
    if scored.is_mean and reference is not None and len(reference) == len(scores):
        improvement, half = gain(scores, reference, scored.direction)
    return Ranked(
        rank=place,
        id=value["candidate_id"],
        name=baseline_name(value),
        values={name: value[name] for name in objectives},
        interval=mean_interval(scores)[1] if scored.is_mean else value["interval"],
        gain=improvement,
        gain_interval=half,
        params=int(value["params"]),
        seconds=value["seconds"],
        on_front=on_front,
        seeds=value["seeds"],
        feasible=feasible,
        genome=json.loads(value["genome"]),
    )


def _scores(table: pa.Table, row: int) -> list[float]:
    scores: list[float] = table["scores"][row].as_py()
    return scores
