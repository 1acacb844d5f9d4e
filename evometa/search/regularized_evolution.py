"""Regularised (ageing) evolution (Real et al., AAAI 2019)."""

from __future__ import annotations

from collections import deque

import numpy as np
from deap import tools

from evometa.records import Evaluation, Objectives
from evometa.search.individual import Individual, joins, update
from evometa.search.operators import AdaptiveOperators
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space
from evometa.space.global_random import global_random

POPULATION = 16
TOURNAMENT = 4


class RegularizedEvolution:
    """Mutates the best of a tournament; the oldest die, however good they are.

    Ranks by the first objective. Failed candidates never become parents, nor do those that only
    repeat another's rule. Until half the population is filled, genomes are drawn at random.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
        population: how many live.
        tournament: how many compete to be a parent.
    """

    name = "evolution"

    def __init__(
        self,
        space: Space,
        objectives: Objectives,
        seed: int,
        population: int = POPULATION,
        tournament: int = TOURNAMENT,
    ) -> None:
        del seed
        self._space = space
        first = next(iter(objectives))
        self._objective = {first: objectives[first]}
        self._tournament = tournament
        self._living: deque[Individual] = deque(maxlen=population)
        self._operators = AdaptiveOperators(space, self._objective)

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw at first, then cross over or mutate winners of tournaments."""
        del asked
        maximum = self._living.maxlen or 0
        if len(self._living) < maximum // 2:
            return Proposal(self._space.sample(rng), operator="random")
        with global_random(rng):
            first, second = tools.selTournament(
                list(self._living), 2, min(self._tournament, len(self._living))
            )
        return self._operators.child(first, second, rng)

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate live, and the oldest die."""
        self._operators.observe(evaluation)
        if not joins(evaluation):
            return
        newcomer = Individual(evaluation, self._objective)
        if evaluation.candidate.is_new or evaluation.candidate.number < 0:
            self._living.append(newcomer)
        else:  # it is as old as it was, or dead already
            update(self._living, newcomer)
