"""Global generators, seeded for a while: DEAP's operators draw from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_random(rng: np.random.Generator, *, numpy: bool = False) -> Iterator[None]:
    """Seed the global generators from `rng` within the block, and restore them after.

    Args:
        rng: gives the seed.
        numpy: whether numpy's is seeded as well.
    """
    state = random.getstate()
    also = np.random.get_state() if numpy else None  # noqa: NPY002 - DEAP draws from it
    seed = int(rng.integers(2**63))
    random.seed(seed)
    if numpy:
        np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        if also is not None:
            np.random.set_state(also)  # noqa: NPY002
