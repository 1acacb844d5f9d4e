"""The bridge to DEAP: its operators see these, and nothing of DEAP leaves the strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from deap import base, tools

from evometa.records import Evaluation, Genome, Objectives, Status, dominates, rank_key


class Losses(base.Fitness):  # type: ignore[misc]
    """Objective values, all to be minimised, of those that break no constraint or as little.

    Args:
        key: as `rank_key` makes it.
    """

    weights: tuple[float, ...] = (-1.0,)

    def __init__(self, key: tuple[float, ...]) -> None:
        self.key = key
        self.weights = (-1.0,) * (len(key) - 1)
        super().__init__(key[1:])

    def dominates(self, other: Losses, obj: slice = slice(None)) -> bool:
        """Return whether constraints and losses are better, as tournaments ask."""
        return dominates((self.key[0], *self.key[1:][obj]), (other.key[0], *other.key[1:][obj]))

    def __lt__(self, other: Losses) -> bool:
        """Return whether it is worse."""
        return self.key > other.key

    def __le__(self, other: Losses) -> bool:
        """Return whether it is not better."""
        return self.key >= other.key


class Individual:
    """A parent: what DEAP's selections need of it, and what offspring are made from."""

    __slots__ = ("fitness", "genome", "id")

    def __init__(self, evaluation: Evaluation, objectives: Objectives) -> None:
        self.fitness = Losses(rank_key(evaluation, objectives))
        self.genome: Genome = evaluation.candidate.genome
        self.id = evaluation.candidate.id


def joins(evaluation: Evaluation) -> bool:
    """Return whether a candidate may become a parent: not if it failed, or repeats another."""
    return evaluation.status is Status.OK and not evaluation.copied_from


def update(living: Iterable[Individual], newcomer: Individual) -> bool:
    """Give a living individual its latest result; return whether it was there."""
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


Select: TypeAlias = Callable[[list[Individual], int], list[Individual]]
"""Chooses survivors from individuals and their number."""


def feasible_first(select: Select) -> Select:
    """Return a selection among those that break no constraint; others follow, the least first."""

    def chosen(individuals: list[Individual], count: int) -> list[Individual]:
        feasible = [each for each in individuals if not each.fitness.key[0]]
        others = sorted(
            (each for each in individuals if each.fitness.key[0]), key=lambda each: each.fitness.key
        )
        for each in others:
            each.fitness.crowding_dist = 0.0  # which tournaments ask for
        best = select(feasible, min(count, len(feasible))) if feasible else []
        return best + others[: max(0, count - len(feasible))]

    return chosen


@feasible_first
def select_nsga2(individuals: list[Individual], count: int) -> list[Individual]:
    """Return the best by rank of dominance, then by crowding; with one objective, by value."""
    several = len(individuals[0].fitness.values) > 1
    # "log" sorts in O(n log^(m-1) n) where "standard" takes O(m n^2), but needs two objectives
    chosen: list[Individual] = tools.selNSGA2(
        individuals, count, nd="log" if several else "standard"
    )
    return chosen
