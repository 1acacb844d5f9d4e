"""Begin with what earlier runs have found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evometa.errors import GenomeError
from evometa.records import (
    Candidate,
    Evaluation,
    Genome,
    Objectives,
    Status,
    canonical_json,
    dominates,
    losses,
)
from evometa.store import RunDirectory, evaluations, read_table
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

    def evaluations(self) -> list[Evaluation]:
        """Return the results as evaluations, numbered below 0."""
        return [
            Evaluation(Candidate(-1 - place, kept["genome"], 0), Status.OK, kept["metrics"])
            for place, kept in enumerate(self.results)
        ]


def read_earlier(runs: Sequence[Path], study: Study, described: Mapping[str, Any]) -> Earlier:
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
        kept = RunDirectory.read(run)
        fitting: list[Evaluation] = []
        for evaluation in _highest(evaluations(read_table(run))):
            try:
                study.space.validate(evaluation.candidate.genome)
            except GenomeError:
                skipped += 1
            else:
                fitting.append(evaluation)
        best = _best_first(fitting, kept["objectives"])
        for evaluation in best[:SEEDS]:
            seeds[f"{run.name}/{evaluation.candidate.id}"] = evaluation.candidate.genome
        if all(kept.get(part) == now[part] for part in SAME):
            results += [
                {"genome": each.candidate.genome, "metrics": dict(each.metrics)}
                for each in best[:LEARNED]
            ]
    return Earlier(seeds, results, skipped)


def _highest(found: Any) -> list[Evaluation]:
    """Return the successful evaluations, each candidate at its highest rung."""
    highest: dict[str, Evaluation] = {}
    for evaluation in found:
        if evaluation.status is Status.OK and not evaluation.copied_from:
            highest[evaluation.candidate.id] = evaluation
    top = max((each.candidate.rung for each in highest.values()), default=0)
    return [each for each in highest.values() if each.candidate.rung == top]


def _best_first(found: Sequence[Evaluation], objectives: Objectives) -> list[Evaluation]:
    """Return evaluations, those that nothing dominates first, then by the first objective."""
    values = {canonical_json(each.candidate.genome): losses(each, objectives) for each in found}
    front = {
        name
        for name, mine in values.items()
        if not any(dominates(other, mine) for other in values.values())
    }

    def place(each: Evaluation) -> tuple[bool, tuple[float, ...]]:
        name = canonical_json(each.candidate.genome)
        return name not in front, values[name]

    return sorted(found, key=place)
