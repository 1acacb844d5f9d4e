"""How others compute the meta-gradient of MAML: one function a library, all the same signature.

Each takes `(module, episodes, rate, steps, loss)` and returns the mean query loss, with gradients
in the module's `.grad`; each follows the examples that the library itself ships.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evometa.task.protocol import EpisodeBatch

Loss = Callable[[Tensor, Tensor], Tensor]
Peer = Callable[[nn.Module, EpisodeBatch, float, int, Loss], float]


def plain(module: nn.Module, episodes: EpisodeBatch, rate: float, steps: int, loss: Loss) -> float:
    """A functional loop over the tasks, as most papers' code has it."""
    params = dict(module.named_parameters())
    total = 0.0
    for x, y, x_query, y_query in rows(episodes):
        fast = params
        for _ in range(steps):
            value = loss(functional_call(module, fast, (x,)), y)
            grads = torch.autograd.grad(value, list(fast.values()), create_graph=True)
            fast = {n: p - rate * g for (n, p), g in zip(fast.items(), grads, strict=True)}
        value = loss(functional_call(module, fast, (x_query,)), y_query) / len(
            episodes.support.inputs
        )
        value.backward()
        total += value.item()
    return total


def with_higher(
    module: nn.Module, episodes: EpisodeBatch, rate: float, steps: int, loss: Loss
) -> float:
    """Grefenstette et al. (2019)."""
    import higher

    optimiser = torch.optim.SGD(module.parameters(), lr=rate)
    total = 0.0
    for x, y, x_query, y_query in rows(episodes):
        with higher.innerloop_ctx(module, optimiser, copy_initial_weights=False) as (fast, inner):
            for _ in range(steps):
                inner.step(loss(fast(x), y))
            value = loss(fast(x_query), y_query) / len(episodes.support.inputs)
            value.backward()
        total += value.item()
    return total


def with_torchopt(
    module: nn.Module, episodes: EpisodeBatch, rate: float, steps: int, loss: Loss
) -> float:
    """Ren et al. (2023)."""
    import torchopt

    inner = torchopt.MetaSGD(module, lr=rate)
    start = torchopt.extract_state_dict(module, by="reference", detach_buffers=True)
    state = torchopt.extract_state_dict(inner, by="reference")
    total = 0.0
    for x, y, x_query, y_query in rows(episodes):
        for _ in range(steps):
            inner.step(loss(module(x), y))
        value = loss(module(x_query), y_query) / len(episodes.support.inputs)
        value.backward()
        total += value.item()
        torchopt.recover_state_dict(module, start)
        torchopt.recover_state_dict(inner, state)
    return total


def with_learn2learn(
    module: nn.Module, episodes: EpisodeBatch, rate: float, steps: int, loss: Loss
) -> float:
    """Arnold et al. (2020)."""
    import learn2learn

    maml = learn2learn.algorithms.MAML(module, lr=rate, first_order=False)
    total = 0.0
    for x, y, x_query, y_query in rows(episodes):
        learner = maml.clone()
        for _ in range(steps):
            learner.adapt(loss(learner(x), y))
        value = loss(learner(x_query), y_query) / len(episodes.support.inputs)
        value.backward()
        total += value.item()
    return total


def rows(episodes: EpisodeBatch) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return the episodes one by one."""
    support, query = episodes
    sides = (support.inputs, support.targets, query.inputs, query.targets)
    return list(zip(*sides, strict=True))


_LIBRARIES = {
    "higher": with_higher,
    "torchopt": with_torchopt,
    "learn2learn": with_learn2learn,
}


def peers() -> dict[str, Peer]:
    """Return the plain loop and the libraries that are installed."""
    found: dict[str, Peer] = {"plain loop": plain}
    for name, peer in _LIBRARIES.items():
        if importlib.util.find_spec(name) is not None:
            found[name] = peer
    return found
