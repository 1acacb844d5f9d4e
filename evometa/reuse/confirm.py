"""Train the best anew, with other seeds, and test them on meta-test beside the baselines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from evometa.errors import EvometaError, StudyError
from evometa.launch import Workers
from evometa.metrics import scored_metric
from evometa.records import BASELINE
from evometa.report import rank
from evometa.report.standing import standing
from evometa.reuse.stored import StoredRun
from evometa.reuse.trainings import Design, MakeWatch, Trainings, baseline, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Confirmation:
    """What is trained anew.

    Attributes:
        top: how many of the best, by the first objective.
        seeds: new trainings of each.
        episodes: of meta-test.
        iterations: meta-iterations; None for as many as in the search.
        only: ids of candidates to take instead of the best.
        again: forget an earlier confirmation.
    """

    top: int = 5
    seeds: int = 3
    episodes: int = 600
    iterations: int | None = None
    only: Sequence[str] = ()
    again: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise StudyError(f"`top >= 1` must hold, but got (top={self.top!r})")
        _ = self.trainings  # raises where they cannot be

    @property
    def trainings(self) -> Trainings:
        """How each is trained and tested."""
        return Trainings(self.seeds, self.episodes, self.iterations, self.again)


def confirm(run: StoredRun, wanted: Confirmation, workers: Workers, watch: MakeWatch) -> pa.Table:
    """Confirm the best of a run on meta-test.

    Each is trained in full with seeds that the search has not seen, as are the baselines; all are
    tested on the same episodes of meta-test, and on the meta-validation episodes of the search, so
    that what selection has flattered can be told. Where no candidate has succeeded, the baselines
    are compared alone.

    Args:
        run: the run.
        wanted: what is trained anew.
        workers: where.
        watch: makes the observer.

    Returns:
        The confirmation, one row a candidate and new seed.

    Raises:
        StoreError: if another confirmation runs, or an earlier one had other numbers.
        EvometaError: if there is nothing to confirm.
    """
    return train(run, _chosen(run, wanted), wanted.trainings, workers, watch)


def _chosen(run: StoredRun, wanted: Confirmation) -> list[Design]:
    """Return the best, or those that are asked for, and the baselines, with their scores."""
    study = run.file.study
    ranked = rank(
        run.table,
        study.objectives,
        scored=scored_metric(run.kept),
        n=len(run.table),
        limits=study.limits,
    )
    best = [row.id for row in ranked if row.feasible and not row.name][: wanted.top]
    ids = list(dict.fromkeys(wanted.only or best))
    named = [row.id for row in ranked if row.name and row.id not in ids]
    if not ids:
        _without_candidates(run, named)
    table = standing(run.table)
    scores = dict(zip(table["candidate_id"].to_pylist(), table["scores"].to_pylist(), strict=True))
    chosen = [Design(run.evaluation(id_).candidate, scores.get(id_, ())) for id_ in (*ids, *named)]
    candidates = [design.candidate for design in chosen]
    known = {candidate.name for candidate in candidates if candidate.operator == BASELINE}
    return chosen + [
        baseline(run, place, name, genome)
        for place, (name, genome) in enumerate(study.baselines.items())
        if name not in known
    ]


def _without_candidates(run: StoredRun, named: Sequence[str]) -> None:
    """Say that no candidate is confirmed; raise `EvometaError` if no baseline is either."""
    within = " within the constraints" if run.file.study.limits else ""
    why = f"of {run.place} no candidate has succeeded in full{within}"
    if not named and not run.is_comparison:
        raise EvometaError(
            f"there is nothing to confirm: {why}, and no baseline. Designs that a study names are "
            f"trained and tested without a search by: evometa compare {run.kept['file']}"
        )
    if not run.is_comparison:
        log.warning("The baselines are compared alone: %s", why)
