"""Begin with what earlier runs have found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evometa.errors import GenomeError, StoreError
from evometa.limits import broken
from evometa.records import (
    Candidate,
    Evaluation,
    Genome,
    Objectives,
    Status,
    canonical_json,
    dominates,
    rank_key,
)
from evometa.report import full_rung, standing
from evometa.store import Place, evaluations, read_search
from evometa.study import Study

SAME = ("task", "training", "objectives")
SEEDS = 5  # the best of each run, which are evaluated again
LEARNED = 500  # at most so many results of each run are learned from, the best


@dataclass(frozen=True)
class Earlier:
    """What earlier runs give to a search; plain data.

    Attributes:
        seeds: the best genomes by name, evaluated again by this search.
        results: genome and metrics of those that count here as well.
        skipped: how many genomes no longer lie in the space.
    """

    seeds: Mapping[str, Genome] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    skipped: int = 0

    def evaluations(self, full: int = 0) -> list[Evaluation]:
        """Return the results as evaluations at the rung `full`, numbered below 0."""
        return [
            Evaluation(Candidate(-1 - place, kept["genome"], 0, full), Status.OK, kept["metrics"])
            for place, kept in enumerate(self.results)
        ]


def stored_earlier(study: Mapping[str, Any]) -> Earlier:
    """Return what the study.json of a run keeps of earlier runs.

    Raises:
        StoreError: if it is something else.
    """
    kept = study.get("earlier", {})
    try:
        found = Earlier(**kept)
        named = isinstance(found.seeds, dict) and isinstance(found.results, list | tuple)
        if not named or not all({*each} == {"genome", "metrics"} for each in found.results):
            raise TypeError("it must hold seeds by name, and results of genome and metrics")
    except TypeError as error:
        raise StoreError(
            f"`earlier` of a study.json is not what evometa writes: {error}"
        ) from error
    return found


def read_earlier(runs: Sequence[Place], study: Study, described: Mapping[str, Any]) -> Earlier:
    """Read runs of the same or of an overlapping space.

    Their best genomes become seed points. Where task, training and objectives are the same, their
    results are also learned from; of others only the genomes are.

    Args:
        runs: run directories.
        study: the study to begin.
        described: the study as plain data, as study.json has it.

    Raises:
        StoreError: if one is no run.
    """
    seeds: dict[str, Genome] = {}
    results: list[dict[str, Any]] = []
    skipped = 0
    now = json.loads(json.dumps({part: described[part] for part in SAME}))
    for run in runs:
        kept, table = read_search(run)
        fitting: list[Evaluation] = []
        full = full_rung(kept)
        for evaluation in evaluations(standing(table).drop_columns(["seeds"])):
            try:
                study.space.validate(evaluation.candidate.genome)
            except GenomeError:
                skipped += 1
            else:
                fitting.append(replace(evaluation, violation=0.0))  # of its own run's constraints
        fitting = [each for each in fitting if not broken(each.metrics, study.limits)]
        best = _best_first(fitting, kept["objectives"])
        for evaluation in best[:SEEDS]:
            seeds[f"{run}/{evaluation.candidate.id}"] = evaluation.candidate.genome
        trained = bool(fitting) and min(each.candidate.rung for each in fitting) >= full
        if trained and all(kept.get(part) == now[part] for part in SAME):
            results += [
                {"genome": each.candidate.genome, "metrics": dict(each.metrics)}
                for each in best[:LEARNED]
            ]
    return Earlier(seeds, results, skipped)


def _best_first(found: Sequence[Evaluation], objectives: Objectives) -> list[Evaluation]:
    """Return evaluations, those that nothing dominates first, then by the first objective."""
    values = {canonical_json(each.candidate.genome): rank_key(each, objectives) for each in found}
    front = {
        name
        for name, mine in values.items()
        if not any(dominates(other, mine) for other in values.values())
    }

    def place(each: Evaluation) -> tuple[bool, tuple[float, ...]]:
        name = canonical_json(each.candidate.genome)
        return name not in front, values[name]

    return sorted(found, key=place)
