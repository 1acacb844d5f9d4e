"""NSGA-II (Deb et al., 2002), steady state."""

from __future__ import annotations

import numpy as np
from deap import tools

from evometa.records import Evaluation, Objectives
from evometa.search.individual import Individual, select_nsga2
from evometa.search.population import Population
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space
from evometa.space.global_random import global_random

POPULATION = 40
NEWCOMERS = 10


class NSGA2:
    """Crosses over or mutates winners of tournaments by rank of dominance, then by crowding.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
        population: how many survive a selection.
    """

    name = "nsga2"

    def __init__(
        self, space: Space, objectives: Objectives, seed: int, population: int = POPULATION
    ) -> None:
        del seed
        self._population = Population(
            space,
            objectives,
            size=population,
            newcomers=NEWCOMERS,
            select=select_nsga2,
            parents=_tournaments,
        )

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Make a child of two winners."""
        del asked
        return self._population.child(rng)

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate join the population."""
        self._population.join(evaluation)


def _tournaments(
    survivors: list[Individual], rng: np.random.Generator
) -> tuple[Individual, Individual]:
    if len(survivors) < 4:
        picks = rng.integers(len(survivors), size=2)
        return survivors[picks[0]], survivors[picks[1]]
    with global_random(rng):
        first, second = tools.selTournamentDCD(survivors, 4)[:2]
    return first, second
