"""Random numbers that come from a seed, and leave the global generators as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evometa.learner import Learner, Meta
from evometa.records import derive_seed
from evometa.user_code import user_code

GENERATORS = ("torch", "numpy", "random")
"""What draws from a seed."""


@contextmanager
def forked_random(seed: int) -> Iterator[None]:
    """Seed the global generators within the block, and restore them after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), user_code(seed):
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def random_from(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Go on with generators of a kept state within the block, and restore them after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), user_code():
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        if "numpy" in state:
            *words, place, second = state["numpy"].tolist()
            key, value = np.array(words, np.uint32), float(state["numpy/second"])
            np.random.set_state(("MT19937", key, place, second, value))  # noqa: NPY002
        if "random" in state:
            halves = state["random/second"].tolist()
            random.setstate((3, tuple(state["random"].tolist()), halves[0] if halves else None))
        yield


def random_state() -> dict[str, Tensor]:
    """Return the state of the global generators: of a normal pair, its second half as well."""
    found: Any = np.random.get_state()  # noqa: NPY002
    _, key, place, second, value = found
    _, own, half = random.getstate()
    state = {
        "cpu": torch.get_rng_state(),
        "numpy": torch.tensor([*key.tolist(), place, second]),
        "numpy/second": torch.tensor([value], dtype=torch.float64),
        "random": torch.tensor(own),
        "random/second": torch.tensor([] if half is None else [half], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def drawn_from(call: Callable[[], object]) -> list[str]:
    """Return which of the global generators a call draws from."""
    with forked_random(0):
        before = random_state()
        call()
        after = random_state()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    places = {"cpu": "torch", "cuda": "torch"}
    names = {places.get(part, part.partition("/")[0]) for part in moved}
    return [name for name in GENERATORS if name in names]


def begin(learner: Learner, seed: int) -> Meta:
    """Return a learner's meta-parameters before any training: the same for the same seed."""
    own = derive_seed(seed, "init")
    with user_code(own):
        return learner.init(torch.Generator().manual_seed(own))
