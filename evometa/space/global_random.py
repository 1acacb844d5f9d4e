"""Python's global generator, seeded for a while: DEAP's operators draw from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_random(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's global generator from `rng` within the block, and restore it after."""
    state = random.getstate()
    random.seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)
