"""Random numbers that come from a seed, and leave the global generators as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from evometa.learner import Learner, Meta
from evometa.records import derive_seed
from evometa.user_code import user_code


@contextmanager
def forked_random(seed: int) -> Iterator[None]:
    """Seed torch's global generators within the block, and restore them after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        # what `torch.manual_seed` does, but for the stack that it notes each time for a GPU to come
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def random_from(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Go on with generators of a kept state within the block, and restore them after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])
        yield


def random_state() -> dict[str, Tensor]:
    """Return the state of the global generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def begin(learner: Learner, seed: int) -> Meta:
    """Return a learner's meta-parameters before any training: the same for the same seed."""
    own = derive_seed(seed, "init")
    with user_code(own):
        return learner.init(torch.Generator().manual_seed(own))
