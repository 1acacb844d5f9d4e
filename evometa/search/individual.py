"""The bridge to DEAP: its operators see these, and nothing of DEAP leaves the strategies."""

from __future__ import annotations

from collections.abc import Iterable

from deap import base, tools

from evometa.records import Evaluation, Genome, Objectives, Status, losses


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


def joins(evaluation: Evaluation) -> bool:
    """Return whether a candidate may become a parent: not if it failed, or repeats another."""
    return evaluation.status is Status.OK and not evaluation.copied_from


def update(living: Iterable[Individual], newcomer: Individual) -> bool:
    """Give a living individual its result at a higher rung; return whether it was there."""
    for individual in living:
        if individual.id == newcomer.id:
            crowding = getattr(
                individual.fitness, "crowding_dist", None
            )  # until the next selection
            individual.fitness = newcomer.fitness
            if crowding is not None:
                individual.fitness.crowding_dist = crowding
            return True
    return False


def select_nsga2(individuals: list[Individual], count: int) -> list[Individual]:
    """Return the best by rank of dominance, then by crowding; with one objective, by value."""
    several = len(individuals[0].fitness.values) > 1
    # "log" sorts in O(n log^(m-1) n) where "standard" takes O(m n^2), but needs two objectives
    chosen: list[Individual] = tools.selNSGA2(
        individuals, count, nd="log" if several else "standard"
    )
    return chosen
