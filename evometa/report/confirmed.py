"""What the best are worth on meta-test: means over new seeds, compared on common episodes.

Two things vary by chance: the seed of a training, and the episodes that it is tested on. Intervals
count both, as two crossed random effects, with the degrees of freedom of Welch and Satterthwaite.
Simulated with three seeds, they hold the truth in 92 to 99 of 100 cases. With one seed alone they
can only count the episodes, and say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from scipy.special import stdtrit

from evometa.errors import EvometaError
from evometa.metrics import scored_metric
from evometa.records import Genome, Status
from evometa.report.grid import print_rows
from evometa.report.ranking import baseline_name

Scores: TypeAlias = npt.NDArray[np.float64]
"""One metric, shape `(seeds, episodes)`."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the half-width of its 95% interval.

    Attributes:
        mean: the mean.
        half: the half-width.
        seeds: whether the interval counts the chance of seeds, and not that of episodes alone.
    """

    mean: float
    half: float
    seeds: bool = True

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.half:.2g}" + ("" if self.seeds else " (one seed)")

    @property
    def is_sure(self) -> bool:
        """Whether a difference is one: zero is outside of an interval that counts seeds."""
        return self.seeds and abs(self.mean) > self.half

    @property
    def signed(self) -> str:
        """The same, with the sign of the mean."""
        return f"{'+' if self.mean >= 0 else ''}{self}"


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
            the search, it knows none, or there is one training alone.
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

    Raises:
        EvometaError: if the table is not that of a confirmation.
    """
    try:
        return _compared(table, study)
    except (KeyError, TypeError, ValueError) as error:
        raise EvometaError(
            f"confirm.parquet does not hold a confirmation of this study: {error!r}; confirm "
            "again, with --again"
        ) from error


def _compared(table: pa.Table, study: Mapping[str, Any]) -> list[Confirmed]:
    sign = 1.0 if scored_metric(study).direction == "max" else -1.0
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["candidate_id"], []).append(row)
    ok = {id_: [r for r in each if r["status"] == Status.OK] for id_, each in rows.items()}
    ok = {id_: each for id_, each in ok.items() if each}
    known = {_name(each[0]): _matrix(each, "scores") for each in ok.values() if _name(each[0])}
    order = [*study.get("baselines", ()), *known]
    baselines = {name: known[name] for name in sorted(known, key=order.index)}
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
    return Estimate(float(scores.mean()), _half(parts), len(scores) > 1)


def difference(one: Scores, other: Scores) -> Estimate:
    """Return the mean of `one - other`, on common episodes with seeds of their own.

    Args:
        one, other: shapes `(seeds, episodes)`; the numbers of seeds may differ.
    """
    paired = one.mean(0) - other.mean(0)
    parts = [_over_seeds(one), _over_seeds(other), _over(paired)]
    return Estimate(float(paired.mean()), _half(parts), min(len(one), len(other)) > 1)


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
    freedom = variance * variance / sum(part * part / free for part, free in parts if free)
    return float(stdtrit(freedom, 0.975) * variance**0.5)


def _bias(rows: Sequence[dict[str, Any]], sign: float, iterations: int) -> Estimate | None:
    searched = rows[0]["search_scores"]
    now = _matrix(rows, "validation_scores")
    known = searched and len(searched) == now.shape[1] and rows[0]["iterations"] == iterations
    if not known or len(now) < 2:  # one training says nothing of the chance of seeds
        return None
    then = np.asarray(searched, dtype=float)
    paired = sign * (then - now.mean(0))
    spread, free = _over_seeds(now)
    # the search had a seed too, as uncertain as one of the new ones
    parts = [(spread * (1 + len(now)), free), _over(paired)]
    return Estimate(float(paired.mean()), _half(parts))


def _matrix(rows: Sequence[dict[str, Any]], column: str) -> Scores:
    values = np.asarray([row[column] for row in rows], dtype=float)
    if not values.size:
        raise ValueError(f"{column} of {rows[0]['candidate_id']} are empty")
    return values


def _name(row: Mapping[str, Any]) -> str:
    return baseline_name(row)


def told_apart(found: Sequence[Confirmed], table: pa.Table) -> str:
    """Say in a sentence which baselines can be told apart, and which cannot.

    Args:
        found: as `compare` returns it.
        table: `confirm.parquet`.
    """
    designs = [each for each in found if each.name]
    said = []
    for place, one in enumerate(designs):
        below: dict[str, list[str]] = {}
        for two in designs[place + 1 :]:
            below.setdefault(_relation(one, two), []).append(two.name)
        texts = [f"{relation} {_listed(names)}" for relation, names in below.items()]
        said += [f"{one.name} {' and '.join(texts)}"] if texts else []
    pairs = len(designs) * (len(designs) - 1) // 2
    if not pairs:
        said += [f"{one.name} stands alone" for one in designs]
    elif min(each.seeds for each in designs) < 2:
        said.append("a single seed says nothing of the chance of seeds: --seeds 2 or more")
    elif pairs > 1:
        said.append(
            f"of {pairs} pairs of equals, {0.05 * pairs:.2g} would seem different by chance"
        )
    lost = {_name(row) for row in table.to_pylist()} - {each.name for each in found} - {""}
    said += [f"no training of {_listed(sorted(lost))} has succeeded"] if lost else []
    return f"Pair by pair, at 95 %: {'; '.join(said)}."


def _relation(one: Confirmed, two: Confirmed) -> str:
    gain = one.gains.get(two.name)
    if gain is None or not gain.is_sure:
        return "cannot be told from"
    return "is better than" if gain.mean > 0 else "is worse than"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


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
    known = scored_metric(study)
    scored, own = known.of_scores, not known.is_mean
    flattered = any(each.bias for each in found)
    rows = []
    for each in found:
        id_ = escape(each.id)
        label = f"[bold]{escape(each.name)}[/] {id_}" if each.name else id_
        seeds = f"{each.seeds}" + (f", {each.failed} failed" if each.failed else "")
        values = [str(each.test), str(each.validation), *[str(each.bias or "")] * flattered]
        values += [f"{each.metrics[known.name]:.4g}"] * own
        cells = [label, *values, f"{each.metrics['params']:,.0f}", seeds]
        rows.append((cells, "cyan" if each.name else ""))
    titles = ["candidate", scored, "validation", *["flattered by"] * flattered]
    titles += [*[known.name] * own, "params", "seeds"]
    print_rows(console, titles, rows)
    designs = all(each.name for each in found)
    for place, each in enumerate(found):
        below = {other.name for other in found[place + 1 :]}  # of designs, each pair once
        gains = {n: gain for n, gain in each.gains.items() if not each.name or n in below}
        if gains and (designs or not each.name):
            text = ", ".join(f"{gain.signed} over {name}" for name, gain in gains.items())
            console.print(escape(f"{each.name or each.id}: {text}"), highlight=False)
    if designs:
        console.print(escape(told_apart(found, table)), highlight=False)
    console.print(
        f"{escape(scored)} is that of meta-test; ± is the 95% interval over seeds and episodes; "
        "gains are on the same episodes. The order is that of meta-validation with the new seeds, "
        "so that meta-test has chosen nothing"
        + "; by how much the search's own score was better than that is what selection has "
        "flattered" * flattered + ".",
        style="dim",
    )
    _print_reasons(console, table)


def as_data(
    found: Sequence[Confirmed], study: Mapping[str, Any], table: pa.Table
) -> dict[str, Any]:
    """Return what a confirmation found as plain data, as `--json` prints it.

    Args:
        found: as `compare` returns it.
        study: study.json.
        table: `confirm.parquet`.
    """
    failures = [row for row in table.to_pylist() if row["status"] != Status.OK]
    shown = ("candidate_id", "name", "repeat", "status", "error")
    scored = scored_metric(study)
    return {
        "metric": scored.of_scores,
        "direction": scored.direction,
        "found": [asdict(each) for each in found],
        "failed": [{name: row[name] for name in shown} for row in failures],
        "said": told_apart(found, table) if found and all(each.name for each in found) else "",
    }


def _print_reasons(console: Console, table: pa.Table) -> None:
    for row in table.to_pylist():
        if row["status"] != Status.OK:
            last = (row["error"].strip().splitlines() or [""])[-1]
            who = f"{row['candidate_id']}, seed {row['repeat']}: {row['status']}"
            console.print(escape(f"{who} {last}"), style="red", highlight=False)
