"""The bridge to DEAP: its operators see these, and nothing of DEAP leaves the strategies."""

from __future__ import annotations

from deap import base

from evometa.records import Evaluation, Genome, Objectives, losses


class Losses(base.Fitness):  # type: ignore[misc]
    """Objective values, all to be minimised."""

    weights: tuple[float, ...] = (-1.0,)

    def __init__(self, values: tuple[float, ...]) -> None:
        self.weights = (-1.0,) * len(values)
        super().__init__(values)


class Individual:
    """A parent: what DEAP's selections need of it, and what offspring are made from."""

    __slots__ = ("fitness", "genome", "id")

    def __init__(self, evaluation: Evaluation, objectives: Objectives) -> None:
        self.fitness = Losses(losses(evaluation, objectives))
        self.genome: Genome = evaluation.candidate.genome
        self.id = evaluation.candidate.id
