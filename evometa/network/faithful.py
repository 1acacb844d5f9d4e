"""Is a module a function of its parameters, buffers and inputs, as learners take it to be?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evometa.network.copying import Kept
from evometa.network.padding import unpadded
from evometa.network.stateless import Network, is_norm, set_training

SPREAD = 0.1  # how far the parameters are moved
TOLERANCE = 1e-2  # of the largest output; rounding is far below, a wrong weight far above


def check_faithful(module: nn.Module, inputs: Any) -> None:
    """Hold a network against its module: other parameters, the same inputs, twice.

    The module is as before when this returns.

    Args:
        module: any module; one that does not run itself is not checked.
        inputs: what its `forward` takes, on the module's device.

    Raises:
        ValueError: if `Network` cannot take it, if what it returns depends on earlier calls or on
            other generators than PyTorch's, if it moves buffers, or if the network does not compute
            what the module does.
    """
    network, inputs = Network(module), unpadded(inputs)
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: value + SPREAD * torch.randn(value.shape, generator=generator).to(value)
        for name, value in network.params.items()
    }
    with torch.no_grad(), _borrowed(module, moved) as kept:
        try:
            expected, again = _run(module, inputs), _run(module, inputs)
        except Exception:  # whoever runs it next says why
            return
        _check_repeatable(module, moved.keys(), kept, expected, again)
        if buffers := _moved_buffers(module, network):
            raise ValueError(
                f"the network changes its buffer {buffers[0]} while it trains, and only batch "
                "norm's statistics are carried from one call to the next; leave out spectral norm, "
                "track_running_stats and counters, or use group norm"
            )
    with torch.no_grad():
        found = _run(
            lambda given: network.unmapped(
                moved, network.buffers, given, norm="batch", training=True
            )[0],
            inputs,
        )
    if not _close(found, expected):
        raise ValueError(
            "the network does not compute the same with the parameters that it is given as with "
            "its own, so it would not be trained: some layer is used by another reference than "
            "the module that holds it, such as `self` in a function or a hook, or it draws from a "
            "generator of its own; reach layers through `self` in methods, and draw with torch"
        )


def _check_repeatable(
    module: nn.Module, names: Any, kept: Kept, expected: list[Tensor], again: list[Tensor]
) -> None:
    new = dict(module.named_parameters()).keys() - names
    new = {name for name in new if module.get_parameter(name).requires_grad}
    if new:
        raise ValueError(
            f"the network makes the parameter {min(new)} while it runs, so it is not trained; "
            "make all layers in `__init__`, lazy ones such as nn.LazyLinear where a size is unknown"
        )
    if _close(expected, again):
        return
    changed = ", ".join(sorted(kept.changed())) or "what is global"
    raise ValueError(
        "the network returns something else when it is called again: it depends on what it saw "
        f"before (it changes {changed}), or draws from another generator than PyTorch's. Begin "
        "each call anew, such as a recurrent layer from zeros, and draw with torch"
    )


@contextmanager
def _borrowed(module: nn.Module, params: dict[str, Tensor]) -> Iterator[Kept]:
    """Give a module other parameters, and put back all that is changed within the block."""
    modes = [(part, part.training) for part in module.modules()]
    tables = [(part, part._buffers, dict(part._buffers)) for part in module.modules()]
    kept = Kept(module)
    named = dict(module.named_parameters())
    before = {name: named[name].detach().clone() for name in params}
    buffers = {name: value.detach().clone() for name, value in module.named_buffers()}
    try:
        set_training(module)
        for name, value in params.items():
            named[name].copy_(value)
        yield kept
    finally:
        for name, value in before.items():
            named[name].copy_(value)
        for _, table, own in tables:
            table.clear()
            table.update(own)
        for name, value in module.named_buffers():
            value.copy_(buffers[name])
        kept.restore()
        for part, training in modes:
            part.training = training


def _moved_buffers(module: nn.Module, network: Network) -> list[str]:
    """Return the buffers, batch norm's apart, that are not as they were."""
    norms = {name for name, part in module.named_modules() if is_norm(part)}
    return [
        name
        for name, value in module.named_buffers()
        if name.rpartition(".")[0] not in norms
        and not (name in network.buffers and torch.equal(value, network.buffers[name]))
    ]


def _run(function: Callable[[Any], Any], inputs: Any) -> list[Tensor]:
    """Return the outputs, the random numbers being the same each time."""
    given = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)
    with _seeded():
        leaves = pytree.tree_leaves(function(given))
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, Tensor)]


@contextmanager
def _seeded() -> Iterator[None]:
    own, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numbers)  # noqa: NPY002


def _close(found: list[Tensor], expected: list[Tensor]) -> bool:
    if [leaf.shape for leaf in found] != [leaf.shape for leaf in expected]:
        return False
    for one, other in zip(found, expected, strict=True):
        if not other.is_floating_point() or not other.numel():
            continue
        one, other = one.to(other).nan_to_num(), other.nan_to_num()
        if float((one - other).abs().max()) > TOLERANCE * float(other.abs().max()) + 1e-6:
            return False
    return True
