"""NSGA-II (Deb et al., 2002), steady state: no generation waits for its slowest member."""

from __future__ import annotations

import numpy as np
from deap import tools

from evometa.records import Evaluation, Objectives, Status
from evometa.search.individual import Individual
from evometa.search.operators import AdaptiveOperators
from evometa.search.protocol import Proposal
from evometa.space import Space
from evometa.space.global_random import global_random

POPULATION = 40
NEWCOMERS = 10  # survivors are chosen each time so many have joined
EARLY = 0.5  # share of mutants of what has worked, while the population fills


class NSGA2:
    """Crosses over and mutates winners of tournaments by rank of dominance, then by crowding.

    Failed candidates never become parents, nor do those that only repeat another's rule. Until half
    the population is filled, half of the genomes are drawn at random.

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
        self._space, self._objectives, self._population = space, objectives, population
        self._survivors: list[Individual] = []
        self._newcomers: list[Individual] = []
        self._operators = AdaptiveOperators(space, objectives)

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Draw and mutate at first, then mutate winners, some crossed over before."""
        everybody = self._survivors + self._newcomers
        if len(everybody) < self._population // 2:
            if everybody and rng.random() < EARLY:
                parent = everybody[int(rng.integers(len(everybody)))]
                return self._operators.child(parent, parent, rng)
            return Proposal(self._space.sample(rng), operator="random")
        return self._operators.child(*self._parents(rng), rng)

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate join; select survivors when enough have joined."""
        self._operators.observe(evaluation)
        if evaluation.status is Status.OK and not evaluation.copied_from:
            self._newcomers.append(Individual(evaluation, self._objectives))
            grown = len(self._survivors) + len(self._newcomers) >= self._population // 2
            if grown and (not self._survivors or len(self._newcomers) >= NEWCOMERS):
                self._select()

    def _select(self) -> None:
        everybody = self._survivors + self._newcomers
        # "log" sorts in O(n log^(m-1) n) where "standard" takes O(m n^2), but needs two objectives
        nd = "log" if len(self._objectives) > 1 else "standard"
        self._survivors = tools.selNSGA2(everybody, min(self._population, len(everybody)), nd=nd)
        self._newcomers = []

    def _parents(self, rng: np.random.Generator) -> tuple[Individual, Individual]:
        if len(self._survivors) < 4:
            picks = rng.integers(len(self._survivors), size=2)
            return self._survivors[picks[0]], self._survivors[picks[1]]
        with global_random(rng):
            first, second = tools.selTournamentDCD(self._survivors, 4)[:2]
        return first, second
