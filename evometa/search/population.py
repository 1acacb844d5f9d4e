"""A population in steady state: no generation waits for its slowest member."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from evometa.records import Evaluation, Objectives
from evometa.search.individual import Individual, Select, joins, update
from evometa.search.operators import AdaptiveOperators
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space

EARLY = 0.5  # share of mutants of what has worked, while the population fills

Parents: TypeAlias = Callable[
    [list[Individual], np.random.Generator], tuple[Individual, Individual]
]
"""Chooses two parents from the survivors."""


def any_two(survivors: list[Individual], rng: np.random.Generator) -> tuple[Individual, Individual]:
    """Return two survivors, all equally likely; they may be one."""
    first, second = rng.integers(len(survivors), size=2)
    return survivors[first], survivors[second]


class Population:
    """Survivors, and newcomers among whom survivors are chosen now and then.

    Until half of it is filled, half of the genomes are drawn at random.

    Args:
        name: of the strategy.
        space: what may be proposed.
        objectives: name to direction.
        size: how many survive a selection.
        newcomers: how many join between two selections.
        select: chooses the survivors.
        parents: chooses two of them; default any two.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        objectives: Objectives,
        size: int,
        newcomers: int,
        select: Select,
        parents: Parents = any_two,
    ) -> None:
        self.name = name
        self._space, self._objectives = space, objectives
        self._size, self._wait = size, newcomers
        self._select, self._parents = select, parents
        self._survivors: list[Individual] = []
        self._newcomers: list[Individual] = []
        self._operators = AdaptiveOperators(space, objectives)

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw and mutate at first, then make children of chosen parents."""
        del asked
        if self._survivors:
            return self._operators.child(*self._parents(self._survivors, rng), rng)
        if self._newcomers and rng.random() < EARLY:
            parent = self._newcomers[int(rng.integers(len(self._newcomers)))]
            return self._operators.child(parent, parent, rng)
        return Proposal(self._space.sample(rng), operator="random")

    def observe(self, evaluation: Evaluation) -> None:
        """Let a successful candidate join; select survivors when enough have joined."""
        self._operators.observe(evaluation)
        if not joins(evaluation):
            return
        newcomer = Individual(evaluation, self._objectives)
        again = not evaluation.candidate.is_new
        if again and update(self._survivors + self._newcomers, newcomer):
            return
        self._newcomers.append(newcomer)
        everybody = self._survivors + self._newcomers
        if len(self._newcomers) >= self._wait and len(everybody) >= self._size // 2:
            self._survivors = self._select(everybody, min(self._size, len(everybody)))
            self._newcomers = []
