"""What every part of the report looks at, computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import EvometaError
from evometa.limits import parse_limit
from evometa.metrics import scored_metric
from evometa.records import Genome, Objectives
from evometa.report.ranking import Ranked, front, gain, losses_of, rank
from evometa.report.standing import outcomes, standing

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MOST_DRAWN = 1500  # candidates in a figure
TOP = 10


@dataclass(frozen=True)
class Facts:
    """A run, ready to be reported.

    Attributes:
        name: of the run.
        study: study.json.
        rows: all evaluations, one a candidate, rung and repeat, in the order of telling.
        objectives: name to direction; the first is the primary one.
        scored: the metric that the column `scores` holds for each episode.
    """

    name: str
    study: Mapping[str, Any]
    rows: pa.Table
    objectives: Objectives
    scored: str

    @classmethod
    def of(cls, name: str, study: Mapping[str, Any], rows: pa.Table) -> Facts:
        """Return the facts of a run.

        Raises:
            EvometaError: if study.json lacks what a report needs, or the table its columns.
        """
        objectives, metrics = study.get("objectives"), study.get("metrics")
        if not isinstance(objectives, dict) or not objectives or not metrics:
            raise EvometaError(
                f"study.json of {name} must name `objectives` and `metrics`, got "
                f"(objectives={objectives!r}, metrics={metrics!r})"
            )
        missing = [name for name in objectives if name not in rows.column_names]
        if missing and len(rows):
            raise EvometaError(f"the table of {name} has no column {missing[0]!r}, an objective")
        for objective in missing:
            rows = rows.append_column(objective, pa.array([], pa.float64()))
        if "params" not in rows.column_names:
            rows = rows.append_column("params", pa.repeat(pa.scalar(0.0), len(rows)))
        return cls(name, study, rows, objectives, str(metrics[0]))

    @property
    def primary(self) -> str:
        """The first objective."""
        return next(iter(self.objectives))

    @property
    def of_scores(self) -> str:
        """What the mean of an evaluation's scores is."""
        return scored_metric(self.study).of_scores

    @property
    def scored_direction(self) -> str:
        """Which way the episode scores improve."""
        return scored_metric(self.study).direction

    @cached_property
    def final(self) -> pa.Table:
        """One row a candidate of any status, in the order of telling, with means over seeds."""
        return outcomes(self.rows)

    @cached_property
    def ok(self) -> pa.Table:
        """Those that may be ranked, at the full rung, as means over their seeds."""
        return standing(self.rows)

    @cached_property
    def losses(self) -> Floats:
        """Objectives of `ok`, all to be minimised: shape `(candidates, objectives)`."""
        return losses_of(self.ok, self.objectives)

    @cached_property
    def on_front(self) -> npt.NDArray[np.bool_]:
        """Which rows of `ok` no other dominates."""
        return front(self.losses) if len(self.ok) else np.zeros(0, bool)

    @cached_property
    def ranked(self) -> list[Ranked]:
        """The best, and the baselines."""
        return rank(
            self.rows,
            self.objectives,
            scored=scored_metric(self.study),
            n=TOP,
            limits=[
                parse_limit(text, self.study["metrics"])
                for text in self.study.get("constraints", ())
            ],
        )

    @property
    def winner(self) -> Ranked | None:
        """The best candidate by the primary objective."""
        return self.ranked[0] if self.ranked else None

    @property
    def baselines(self) -> list[Ranked]:
        """The designs that were known before, in the order of the study."""
        return sorted((row for row in self.ranked if row.name), key=lambda row: row.id)

    @cached_property
    def names(self) -> dict[str, str]:
        """Id to what a candidate is called: a baseline by its name."""
        return {row.id: f"{row.name} ({row.id})" for row in self.baselines}

    def called(self, candidate_id: str) -> str:
        """Return what a candidate is called."""
        return self.names.get(candidate_id, candidate_id)

    def scores(self, candidate_id: str) -> list[float]:
        """Return the episode scores of a candidate of `ok`; empty where there are none."""
        found: list[list[float]] = self.ok.filter(pc.equal(self.ok["candidate_id"], candidate_id))[
            "scores"
        ].to_pylist()
        return found[0] if found else []

    def better_by(self, one: str, other: str) -> tuple[float, float] | None:
        """Return by how much one is better than another on the same episodes, and the half-width.

        None where they were not scored on the same number of episodes.
        """
        mine, theirs = self.scores(one), self.scores(other)
        if not mine or len(mine) != len(theirs):
            return None
        return gain(mine, theirs, self.scored_direction)

    def shown(self, most: int = MOST_DRAWN, keep: Sequence[int] | Indices = ()) -> Indices:
        """Return rows of `ok` to draw: those to keep, and others evenly spread."""
        return np.unique(np.concatenate([spread(len(self.ok), most), np.asarray(keep, np.int64)]))

    def drawn_of(self, shown: int) -> str:
        """Say how many candidates a figure draws, where it is not all of them."""
        total = len(self.ok)
        return "" if shown >= total else f" Drawn: {shown:,} of {total:,} candidates."


def spread(n: int, most: int) -> Indices:
    """Return at most `most` of `n` places, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.arange(0)


def genome_of(row: Mapping[str, Any]) -> Genome:
    """Return a row's genome."""
    return json.loads(row["genome"])


def number(value: float) -> str:
    """Return a number as people read it: `1,761`, `0.267`, `3.1e-05`."""
    if abs(value) < 1e12 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Return a time as people read it: `42 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:,.3g} h"
