"""Random search: the bar that every other searcher must clear."""

from __future__ import annotations

import numpy as np

from evometa.records import Evaluation, Objectives
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space


class RandomSearch:
    """Draws every genome independently."""

    name = "random"

    def __init__(self, space: Space, objectives: Objectives, seed: int) -> None:
        del objectives, seed  # nothing is learned, and randomness comes with each proposal
        self._space = space

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw a genome."""
        del asked
        return Proposal(self._space.sample(rng), operator="random")

    def observe(self, evaluation: Evaluation) -> None:
        """Learn nothing."""
