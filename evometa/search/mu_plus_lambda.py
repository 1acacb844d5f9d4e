"""The (mu + lambda) evolution strategy, steady state: the better ones of parents and children."""

from __future__ import annotations

import numpy as np

from evometa.records import Evaluation, Objectives
from evometa.search.individual import select_nsga2
from evometa.search.population import Population, any_two
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space

POPULATION = 16


class MuPlusLambda:
    """Makes children of any of the best so far; a child that is better than the worst replaces it.

    With several objectives, better is as in NSGA-II.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
        population: mu, how many survive.
    """

    name = "mu+lambda"

    def __init__(
        self, space: Space, objectives: Objectives, seed: int, population: int = POPULATION
    ) -> None:
        del seed
        self._population = Population(
            space,
            objectives,
            size=population,
            newcomers=1,
            select=select_nsga2,
            parents=any_two,
        )

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Make a child of any two survivors."""
        del asked
        return self._population.child(rng)

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate join the population."""
        self._population.join(evaluation)
