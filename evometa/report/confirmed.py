"""What the best are worth on meta-test: means over new seeds, compared on common episodes.

Two things vary by chance: the seed of a training, and the episodes that it is tested on. Intervals
count both, as two crossed random effects, with the degrees of freedom of Welch and Satterthwaite.
Simulated with three seeds, they hold the truth in 92 to 97 of 100 cases. With one seed alone they
can only count the episodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy.special import stdtrit

from evometa.records import Genome, Status
from evometa.report.ranking import SEED

Scores: TypeAlias = npt.NDArray[np.float64]
"""One metric, shape `(seeds, episodes)`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the half-width of its 95% interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half:.2g}"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A candidate, or a baseline, that has been trained anew with other seeds.

    Attributes:
        id: the candidate.
        name: name of the baseline, or empty.
        genome: plain data.
        seeds: how many trainings have succeeded.
        failed: how many have not.
        test: the scored metric on meta-test.
        validation: the same on the search's own meta-validation episodes.
        bias: by how much the search's score is better than that of the new trainings, on the same
            episodes: what selection has flattered. None if they were not trained as long as in
            the search, or it knows none.
        gains: by how much it is better than each baseline, on the same meta-test episodes.
        metrics: means of all metrics.
        by_seed: the scored metric on meta-test, of each training.
    """

    id: str
    name: str
    genome: Genome
    seeds: int
    failed: int
    test: Estimate
    validation: Estimate
    bias: Estimate | None
    gains: dict[str, Estimate]
    metrics: dict[str, float]
    by_seed: tuple[float, ...]


def compare(table: pa.Table, study: Mapping[str, Any]) -> list[Confirmed]:
    """Return what a confirmation found: candidates first, then baselines, the best of each first.

    The order is that of meta-validation with the new seeds, so that meta-test chooses nothing: the
    first one's score there is not the best of several.

    Args:
        table: `confirm.parquet`.
        study: study.json.
    """
    scored = study["metrics"][0]
    sign = 1.0 if scored == "accuracy" else -1.0
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["candidate_id"], []).append(row)
    ok = {id_: [r for r in each if r["status"] == Status.OK] for id_, each in rows.items()}
    ok = {id_: each for id_, each in ok.items() if each}
    baselines = {_name(each[0]): _matrix(each, "scores") for each in ok.values() if _name(each[0])}
    found = []
    for id_, each in ok.items():
        test, name = _matrix(each, "scores"), _name(each[0])
        gains = {
            other: difference(sign * test, sign * scores)
            for other, scores in baselines.items()
            if other != name and scores.shape[1] == test.shape[1]
        }
        found.append(
            Confirmed(
                id_,
                name,
                json.loads(each[0]["genome"]),
                len(each),
                len(rows[id_]) - len(each),
                estimate(test),
                estimate(_matrix(each, "validation_scores")),
                _bias(each, sign, study["training"]["iterations"]),
                gains,
                {m: float(np.mean([r[m] for r in each])) for m in study["metrics"]},
                tuple(test.mean(1).tolist()),
            )
        )
    return sorted(found, key=lambda one: (bool(one.name), -sign * one.validation.mean))


def estimate(scores: Scores) -> Estimate:
    """Return the mean over seeds and episodes."""
    parts = [_over_seeds(scores), _over(scores.mean(0))]
    return Estimate(float(scores.mean()), _half(parts))


def difference(one: Scores, other: Scores) -> Estimate:
    """Return the mean of `one - other`, on common episodes with seeds of their own.

    Args:
        one, other: shapes `(seeds, episodes)`; the numbers of seeds may differ.
    """
    paired = one.mean(0) - other.mean(0)
    parts = [_over_seeds(one), _over_seeds(other), _over(paired)]
    return Estimate(float(paired.mean()), _half(parts))


_Part: TypeAlias = tuple[float, int]
"""The variance of a mean, and its degrees of freedom."""


def _over_seeds(scores: Scores) -> _Part:
    return _over(scores.mean(1))


def _over(values: npt.NDArray[np.float64]) -> _Part:
    n = len(values)
    return (float(values.var(ddof=1)) / n, n - 1) if n > 1 else (0.0, 0)


def _half(parts: Sequence[_Part]) -> float:
    variance = sum(part for part, _ in parts)
    if variance == 0.0:
        return 0.0
    freedom = variance**2 / sum(part**2 / free for part, free in parts if free)
    return float(stdtrit(freedom, 0.975) * variance**0.5)


def _bias(rows: Sequence[dict[str, Any]], sign: float, iterations: int) -> Estimate | None:
    searched = rows[0]["search_scores"]
    now = _matrix(rows, "validation_scores")
    if not searched or len(searched) != now.shape[1] or rows[0]["iterations"] != iterations:
        return None
    then = np.asarray(searched, dtype=float)
    paired = sign * (then - now.mean(0))
    spread, free = _over_seeds(now)
    # the search had a seed too, as uncertain as one of the new ones
    parts = [(spread * (1 + len(now)), free), _over(paired)]
    return Estimate(float(paired.mean()), _half(parts))


def _matrix(rows: Sequence[dict[str, Any]], column: str) -> Scores:
    return np.asarray([row[column] for row in rows], dtype=float)


def _name(row: Mapping[str, Any]) -> str:
    operator: str = row["operator"]
    return operator.removeprefix(SEED) if operator.startswith(SEED) else ""


def print_confirmed(
    console: Console, found: Sequence[Confirmed], study: Mapping[str, Any], table: pa.Table
) -> None:
    """Print what a confirmation found.

    Args:
        console: where to print.
        found: as `compare` returns it.
        study: study.json.
        table: `confirm.parquet`.
    """
    if not found:
        console.print("No training has succeeded.", style="red")
        _print_reasons(console, table)
        return
    scored = study["metrics"][0]
    names = list(dict.fromkeys(name for each in found for name in each.gains))
    lines = Table(box=None, pad_edge=False, header_style="bold")
    lines.add_column("candidate", no_wrap=True)
    titles = [f"{scored}", "on validation", "flattered by"]
    for title in (*titles, *(f"gain over {name}" for name in names), "params", "seeds"):
        lines.add_column(escape(title), justify="right")
    for each in found:
        label = f"[bold]{escape(each.name)}[/] {each.id}" if each.name else each.id
        cells = [label, str(each.test), str(each.validation), str(each.bias or "")]
        cells += [_signed(each.gains.get(name)) for name in names]
        seeds = str(each.seeds) + (f", {each.failed} failed" if each.failed else "")
        cells += [f"{each.metrics['params']:,.0f}", seeds]
        lines.add_row(*cells, style="cyan" if each.name else "")
    console.print(lines)
    console.print(
        f"{scored} is that of meta-test; ± is the 95% interval over seeds and episodes; gains are "
        "on the same episodes. The order is that of meta-validation with the new seeds, so that "
        "meta-test has chosen nothing; by how much the search's own score was better than that is "
        "what selection has flattered.",
        style="dim",
    )
    _print_reasons(console, table)


def _print_reasons(console: Console, table: pa.Table) -> None:
    for row in table.to_pylist():
        if row["status"] != Status.OK:
            last = (row["error"].strip().splitlines() or [""])[-1]
            console.print(
                f"{row['candidate_id']}, seed {row['repeat']}: {row['status']} {escape(last)}",
                style="red",
                highlight=False,
            )


def _signed(gain: Estimate | None) -> str:
    return "" if gain is None else f"{gain.mean:+.4g} ± {gain.half:.2g}"
