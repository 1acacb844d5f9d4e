"""Where each candidate stands: one row a candidate, at the highest rung, over all its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evometa.agreement import Agreement, agree
from evometa.records import Objectives, Status

UNKNOWN = 2**31  # the highest rung there is


def full_rung(study: Mapping[str, Any]) -> int:
    """Return the rung of the full evaluation, from study.json; rungs above it are more seeds."""
    if "levels" not in study:
        return UNKNOWN
    return sum(not level["seed"] for level in study["levels"]) - 1


def standing(table: pa.Table, full: int) -> pa.Table:
    """Return the successful candidates at the full rung, or at the highest that any has reached.

    Metrics and scores are means over seeds; the column `seeds` says over how many. A candidate that
    failed with one of its seeds is left out.

    Args:
        table: a run's table.
        full: rung of the full evaluation.
    """
    ok = pc.equal(pc.cast(table["status"], pa.string()), Status.OK.value)
    failed = table.filter(pc.and_(pc.invert(ok), pc.greater(table["rung"], full)))
    table = table.filter(pc.and_(ok, pc.equal(table["copied_from"], "")))
    if len(failed):  # what cannot be trained with another seed is not the best
        table = table.filter(
            pc.invert(pc.is_in(table["number"], failed["number"].combine_chunks()))
        )
    if not len(table):
        return table.append_column("seeds", pa.array([], pa.int64()))
    highest = min(full, pc.max(table["rung"]).as_py())
    table = table.filter(pc.greater_equal(table["rung"], highest))
    ids = table["candidate_id"].combine_chunks().dictionary_encode()
    group = ids.indices.to_numpy()
    counts = np.bincount(group)
    _, first = np.unique(group, return_index=True)
    together = table.take(first).append_column("seeds", pa.array(counts))
    if (counts == 1).all():
        return together
    for place, column in enumerate(table.schema):
        if pa.types.is_floating(column.type) and not column.name.startswith("gene."):
            sums = np.bincount(group, weights=table[column.name].to_numpy())
            means = pa.array(sums / counts)
            together = together.set_column(place, column.name, means)
    return _with_mean_scores(table, together, group, counts)


def _with_mean_scores(
    table: pa.Table, together: pa.Table, group: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> pa.Table:
    scores = together["scores"].to_pylist()
    for place in np.flatnonzero(counts > 1).tolist():
        rows = np.flatnonzero(group == place)
        scores[place] = np.mean(table["scores"].take(rows).to_pylist(), axis=0).tolist()
    column = together.schema.get_field_index("scores")
    return together.set_column(column, "scores", pa.array(scores, table["scores"].type))


def agreements(table: pa.Table, objectives: Objectives) -> list[Agreement]:
    """Return how well each rung predicts the next, by the first objective."""
    status = pc.cast(table["status"], pa.string())
    table = table.filter(pc.equal(status, Status.OK.value))
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
