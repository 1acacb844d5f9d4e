"""Where each candidate stands: one row a candidate, at its highest rung, over all its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evometa.agreement import Agreement, agree
from evometa.records import Objectives, Status

TIED = 1e-7  # relative difference of values that are equal but for rounding


def full_rung(study: Mapping[str, Any]) -> int:
    """Return the rung of the full evaluation, from study.json; older runs have that one alone."""
    return max(0, len(study.get("levels", ())) - 1)


def outcomes(table: pa.Table) -> pa.Table:
    """Return one row a candidate of any status, that of its highest rung, in the table's order.

    Metrics and scores are means over seeds; the column `seeds` says over how many. A candidate that
    failed with one of its seeds has failed.
    """
    rungs = table["rung"].to_numpy()
    _, group = np.unique(table["number"].to_numpy(), return_inverse=True)
    highest = np.zeros(group.max(initial=-1) + 1, np.int64)
    np.maximum.at(highest, group, rungs)
    table = table.filter(pa.array(rungs == highest[group]))
    failed = pc.not_equal(pc.cast(table["status"], pa.string()), Status.OK.value).to_numpy()
    _, group = np.unique(table["number"].to_numpy(), return_inverse=True)
    # the first row of each candidate, or the first that failed
    order = np.lexsort((np.arange(len(table)), ~failed, group))
    chosen = np.sort(order[np.diff(group[order], prepend=-1) != 0])
    counts = np.where(failed[chosen], 1, np.bincount(group)[group[chosen]])
    together = table.take(chosen).append_column("seeds", pa.array(counts, pa.int64()))
    return together if (counts == 1).all() else _with_means(table, together, group, group[chosen])


def standing(table: pa.Table) -> pa.Table:
    """Return the successful candidates at the full rung, or at the highest that any has reached."""
    table = outcomes(table)
    ok = pc.equal(pc.cast(table["status"], pa.string()), Status.OK.value)
    table = table.filter(pc.and_(ok, pc.equal(table["copied_from"], "")))
    return table.filter(pc.equal(table["rung"], pc.max(table["rung"])))


def tied(table: pa.Table, name: str) -> int:
    """Return how many candidates share one value of a metric, if all do to rounding; else 0."""
    values = standing(table)[name].to_numpy()
    alike = len(values) > 1 and np.ptp(values) <= TIED * np.abs(values).max()
    return len(values) if alike else 0


def _with_means(
    table: pa.Table, together: pa.Table, group: npt.NDArray[np.int64], mine: npt.NDArray[np.int64]
) -> pa.Table:
    """Return rows with the means of their group where they count with several seeds."""
    several = together["seeds"].to_numpy() > 1
    counts = np.bincount(group)
    for place, column in enumerate(table.schema):
        if pa.types.is_floating(column.type) and not column.name.startswith("gene."):
            means = np.bincount(group, weights=table[column.name].to_numpy()) / counts
            values = pc.if_else(several, means[mine], together[column.name])
            together = together.set_column(place, column.name, values)
    scores = together["scores"].to_pylist()
    for place in np.flatnonzero(several).tolist():
        rows = np.flatnonzero(group == mine[place])
        scores[place] = np.mean(table["scores"].take(rows).to_pylist(), axis=0).tolist()
    column = together.schema.get_field_index("scores")
    return together.set_column(column, "scores", pa.array(scores, table["scores"].type))


def agreements(table: pa.Table, objectives: Objectives) -> list[Agreement]:
    """Return how well each rung predicts the next, by the first objective, with one seed."""
    ok = pc.equal(pc.cast(table["status"], pa.string()), Status.OK.value)
    table = table.filter(pc.and_(ok, pc.equal(table["repeat"], 0)))
    if not len(table):
        return []
    name, direction = next(iter(objectives.items()))
    sign = 1.0 if direction == "min" else -1.0
    rungs = table["rung"].to_numpy()
    numbers, values = table["number"].to_numpy(), sign * table[name].to_numpy()
    found = []
    for rung in range(int(rungs.max())):
        low = dict(zip(numbers[rungs == rung].tolist(), values[rungs == rung], strict=True))
        above = rungs == rung + 1
        high = dict(zip(numbers[above].tolist(), values[above], strict=True))
        pairs: Sequence[tuple[float, float]] = [(low[n], high[n]) for n in low if n in high]
        found.append(agree(rung, pairs))
    return found


def summary_of(table: pa.Table, objectives: Objectives, ended: str) -> dict[str, Any]:
    """Return what summary.json keeps of a search."""
    return {
        "ended": ended,
        "evaluations": len(table),
        "device_seconds": float(pc.sum(table["seconds"]).as_py() or 0.0),
        "rungs": [
            {"rung": a.rung, "pairs": a.pairs, "kendall_tau": a.tau, "standard_error": a.error}
            for a in agreements(table, objectives)
        ],
    }
