"""Local search: try the neighbours of the best so far, and begin elsewhere when none is better.

A strong and simple baseline for architectures (White et al., UAI 2021).
"""

from __future__ import annotations

import numpy as np

from evometa.records import Evaluation, Objectives, dominates
from evometa.search.individual import Individual, joins, update
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space

PATIENCE = 40  # neighbours without progress before a climb ends
WIDEST = 64  # members of a front
BEGINNERS = 4  # random genomes, the best of which begins a climb


class LocalSearch:
    """Climbs from random genomes; with several objectives, along the front of its climb.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
    """

    name = "local"

    def __init__(self, space: Space, objectives: Objectives, seed: int) -> None:
        del seed
        self._space, self._objectives = space, objectives
        self._front: list[Individual] = []  # of this climb
        self._beginners = 0
        self._in_vain = 0

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw at first, then change one place of one of the climb's best."""
        del asked
        if self._beginners < BEGINNERS or not self._front:
            return Proposal(self._space.sample(rng), operator="random")
        parent = self._front[int(rng.integers(len(self._front)))]
        return Proposal(self._space.mutate(parent.genome, rng), (parent.id,), "mutate")

    def observe(self, evaluation: Evaluation) -> None:
        """Climb on where a candidate is better; give up after many that were not."""
        candidate = evaluation.candidate
        here = {individual.id for individual in self._front}
        if candidate.parents and not here & set(candidate.parents):
            return  # of an earlier climb
        self._beginners += not candidate.parents and candidate.is_new
        self._in_vain += 1
        if joins(evaluation):
            newcomer = Individual(evaluation, self._objectives)
            if not candidate.is_new and update(self._front, newcomer):
                return
            self._consider(newcomer)
        if self._in_vain > PATIENCE:
            self._front, self._beginners, self._in_vain = [], 0, 0

    def _consider(self, newcomer: Individual) -> None:
        mine = newcomer.fitness.key
        front = [(other, other.fitness.key) for other in self._front]
        if any(key == mine or dominates(key, mine) for _, key in front):
            return
        self._front = [other for other, key in front if not dominates(mine, key)]
        self._front = [*self._front[1 - WIDEST :], newcomer]
        self._in_vain = 0
