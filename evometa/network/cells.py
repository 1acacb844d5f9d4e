"""Recurrent cells as pure functions of their weights, with all derivatives under `vmap`.

PyTorch's own have no batching rule, or no second derivative on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = Mapping[str, Tensor]


def drawn(shape: tuple[int, ...], std: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal random numbers of a type and on a device like another tensor's.

    They are drawn as float32 on the CPU, so that they are the same everywhere.
    """
    return (torch.randn(shape, generator=generator, dtype=torch.float32) * std).to(like)


def cell_weights(
    gates: int, inputs: int, memory: int, width: int, like: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return initial weights of a cell: `inputs`, `memory` (Glorot-normal) and `bias` (zeros).

    Args:
        gates: 4 for `lstm`, 3 for `gru`.
        inputs: features of an input.
        memory: features of what it remembers; more than `width` where something is read besides.
        width: features of its output.
        like: gives type and device.
        generator: draws.
    """
    return {
        name: drawn((size, gates * width), (2 / (size + width)) ** 0.5, like, generator)
        for name, size in (("inputs", inputs), ("memory", memory))
    } | {"bias": like.new_zeros(gates * width)}


def lstm(weights: Weights, inputs: Tensor, memory: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Do a step of long short-term memory (Hochreiter and Schmidhuber, 1997).

    Args:
        weights: of `cell_weights`; the gates are those to write, keep, propose and read.
        inputs: shape `(..., inputs)`.
        memory: the last output, shape `(..., memory)`.
        cell: the last state, shape `(..., width)`.

    Returns:
        Output and state, shape `(..., width)`.
    """
    gates = inputs @ weights["inputs"] + memory @ weights["memory"] + weights["bias"]
    write, keep, new, read = gates.chunk(4, -1)
    cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
    return read.sigmoid() * cell.tanh(), cell


def gru(weights: Weights, inputs: Tensor, memory: Tensor) -> Tensor:
    """Do a step of a gated recurrent unit (Cho et al., 2014), the reset after the product.

    Args:
        weights: of `cell_weights`; the gates are those to reset, keep and propose.
        inputs: shape `(..., inputs)`.
        memory: the last output, shape `(..., width)`.

    Returns:
        The output, shape `(..., width)`.
    """
    given = inputs @ weights["inputs"] + weights["bias"]
    reset, keep, new = given.chunk(3, -1)
    reset_before, keep_before, before = (memory @ weights["memory"]).chunk(3, -1)
    new = (new + (reset + reset_before).sigmoid() * before).tanh()
    return torch.lerp(new, memory, (keep + keep_before).sigmoid())
