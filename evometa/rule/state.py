"""What a gradient rule carries from step to step, and tensors by name as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evometa.rule.protocol import Tensors
from evometa.rule.update import Layers


class State(NamedTuple):
    """What a gradient rule carries from step to step.

    Attributes:
        rates: the rate of each parameter.
        numbers: constants of the update.
        start: the initial parameters; None for plain gradient descent.
        memory: running averages, each of shape `(weights,)`, and what each sense keeps.
    """

    rates: Tensors
    numbers: Tensors
    start: Flat | None
    memory: Memory


class Memory(NamedTuple):
    """What changes from step to step besides the parameters.

    Attributes:
        averages: running averages: one vector each, or all as rows.
        kept: what each sense keeps, by name.
    """

    averages: Any = ()
    kept: tuple[Tensors, ...] = ()


class Flat(NamedTuple):
    """Tensors by name as one vector, layer after layer.

    Attributes:
        vector: shape `(weights,)`.
        shapes: of the tensors, in the vector's order.
        layers: which weights belong together.
        known: what an update may see of each layer.
    """

    vector: Tensor
    shapes: dict[str, torch.Size]
    layers: Layers
    known: Tensors

    @staticmethod
    def of(tensors: Tensors) -> Flat:
        """Return tensors as a vector."""
        layers = list(dict.fromkeys(layer_of(name) for name in tensors))
        shapes = {
            name: value.shape
            for layer in layers
            for name, value in tensors.items()
            if layer_of(name) == layer
        }
        sizes = [sum(shapes[n].numel() for n in shapes if layer_of(n) == at) for at in layers]
        vector = torch.cat([tensors[name].reshape(-1) for name in shapes])
        index = torch.cat(
            [torch.full((size,), at, device=vector.device) for at, size in enumerate(sizes)]
        )
        last = max(len(sizes) - 1, 1)
        known = {
            "dimension": numbers(sizes, vector),
            "depth": numbers([at / last for at in range(len(sizes))], vector),
        }
        return Flat(vector, shapes, Layers(tuple(sizes), index), known)

    def flatten(self, tensors: Tensors) -> Tensor:
        """Return other tensors of the same names as a vector; axes of length 1 are spread."""
        return torch.cat([tensors[n].expand(shape).reshape(-1) for n, shape in self.shapes.items()])

    def unflatten(self, vector: Tensor) -> Tensors:
        """Return the parts of a vector by name."""
        parts = torch.split(vector, [shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers of a tensor's type, where it is."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def layer_of(name: str) -> str:
    """Return the name of the layer that a parameter belongs to."""
    return name.rpartition(".")[0]
