"""NSGA-III (Deb and Jain, 2014), steady state: for three objectives and more."""

from __future__ import annotations

import math

import numpy as np
from deap import tools

from evometa.records import Evaluation, Objectives, derive_seed
from evometa.search.individual import Individual, select_nsga2
from evometa.search.population import Population, any_two
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space
from evometa.space.global_random import global_random

POPULATION = 40
NEWCOMERS = 10


class NSGA3:
    """Keeps those near reference directions that spread evenly over the front.

    There are as many directions as survivors, or somewhat fewer. With one objective it selects as
    NSGA-II does.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
        population: how many survive a selection.
    """

    name = "nsga3"

    def __init__(
        self, space: Space, objectives: Objectives, seed: int, population: int = POPULATION
    ) -> None:
        del seed
        self._directions = _directions(len(objectives), population)
        self._population = Population(
            space,
            objectives,
            size=population,
            newcomers=NEWCOMERS,
            select=self._select,
            parents=any_two,
        )

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Make a child of any two survivors."""
        del asked
        return self._population.child(rng)

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate join the population."""
        self._population.join(evaluation)

    def _select(self, individuals: list[Individual], count: int) -> list[Individual]:
        if self._directions is None:
            return select_nsga2(individuals, count)
        # ties between niches are broken by chance: seeded by what is there, so that it replays
        seed = derive_seed(*(individual.id for individual in individuals))
        with global_random(np.random.default_rng(seed), numpy=True):
            chosen: list[Individual] = tools.selNSGA3(
                individuals, count, self._directions, nd="log"
            )
        return chosen


def _directions(objectives: int, most: int) -> np.ndarray | None:
    if objectives == 1:
        return None
    divisions = 1
    while math.comb(objectives + divisions, divisions + 1) <= most:
        divisions += 1
    directions: np.ndarray = tools.uniform_reference_points(objectives, divisions)
    return directions
