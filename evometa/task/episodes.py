"""Parts of episodes, whatever pytree they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.network import Padded
from evometa.task.protocol import Batch, ClassBatch

_EXAMPLES = (Batch, ClassBatch)


def over(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return a pytree with a function of every tensor in the place of the tensor."""
    return pytree.tree_map(function, tree)


def leading(tree: Any, count: int) -> tuple[int, ...]:
    """Return the lengths of the first axes, which all tensors of a pytree share."""
    return tuple(next(iter(pytree.tree_iter(tree))).shape[:count])


def part_of(tree: Any, index: Any) -> Any:
    """Return a part of every tensor of a pytree."""
    return over(lambda tensor: tensor[index], tree)


def to_device(tree: Any, device: torch.device) -> Any:
    """Move every tensor of a pytree to a device."""
    return over(lambda tensor: tensor.to(device), tree)


def examples_of(side: Any) -> int:
    """Return how many examples one side of one episode has."""
    return leading(side.inputs if isinstance(side, _EXAMPLES) else side, 1)[0]


def some_of(side: Any, index: Any) -> Any:
    """Return some of the examples of one side of one episode.

    Args:
        side: its tensors begin with the axis of examples; the classes of a `ClassBatch`, which do
            not, stay whole.
        index: which examples.
    """
    if isinstance(side, _EXAMPLES):
        return side._replace(
            inputs=part_of(side.inputs, index), targets=part_of(side.targets, index)
        )
    return part_of(side, index)


def slice_of(side: Any, index: slice) -> tuple[Any, Tensor | None]:
    """Return a slice of the examples, and whether any is real; None where no slice is padding.

    In the place of one that is all padding there is the beginning, so that its loss is finite.
    """
    found = some_of(side, index)
    if not (isinstance(side, _EXAMPLES) and isinstance(side.inputs, Padded)):
        return found, None
    real = found.inputs.mask.any()
    begin = some_of(side, slice(examples_of(found)))
    return pytree.tree_map(lambda own, other: torch.where(real, own, other), found, begin), real


def joined(one: Any, other: Any) -> Any:
    """Return the examples of two sides of one episode as one."""

    def both(a: Any, b: Any) -> Any:
        return pytree.tree_map(lambda x, y: torch.cat([x, y]), a, b)

    if isinstance(one, _EXAMPLES):
        return one._replace(
            inputs=both(one.inputs, other.inputs), targets=both(one.targets, other.targets)
        )
    return both(one, other)
