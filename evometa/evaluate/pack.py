"""The meta-parameters of a pack: many candidates of equal structure in common tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evometa.learner import Meta, Tensors

TRAINED = ("params", "learned")
CARRIED = ("constants", "buffers")


@dataclass(frozen=True)
class Layout:
    """Where each trained tensor lies in a flat vector.

    Attributes:
        entries: `(part, name, shape)`, in order.
    """

    entries: tuple[tuple[str, str, torch.Size], ...]

    @staticmethod
    def of(meta: Meta) -> Layout:
        """Return the layout of one candidate's meta-parameters."""
        return Layout(
            tuple(
                (part, name, value.shape) for part in TRAINED for name, value in meta[part].items()
            )
        )

    def flatten(self, meta: Meta) -> Tensor:
        """Return one candidate's trained tensors as a vector."""
        return torch.cat([meta[part][name].reshape(-1) for part, name, _ in self.entries])

    def unflatten(self, flat: Tensor) -> dict[str, Tensors]:
        """Return the trained parts of a vector, or of `(candidates, numbers)`; views."""
        parts: dict[str, Tensors] = {part: {} for part in TRAINED}
        sizes = [math.prod(shape) for _, _, shape in self.entries]
        pieces = torch.split(flat, sizes, -1)
        for (part, name, shape), piece in zip(self.entries, pieces, strict=True):
            parts[part][name] = piece.view((*flat.shape[:-1], *shape))
        return parts


@dataclass
class Pack:
    """The state of a pack in meta-training. All tensors begin with the axis `candidates`.

    Attributes:
        layout: of the trained numbers.
        flat: the trained numbers, shape `(candidates, numbers)`.
        first, second: running moments of their gradients, likewise.
        carried: constants and buffers.
        rates: outer rates, shape `(candidates, 1)`.
        iteration: meta-iterations done.
    """

    layout: Layout
    flat: Tensor
    first: Tensor
    second: Tensor
    carried: dict[str, Tensors]
    rates: Tensor
    iteration: int = 0

    @staticmethod
    def of(metas: Sequence[Meta], rates: Sequence[float], device: torch.device) -> Pack:
        """Begin a pack from initial meta-parameters of equal structure."""
        layout = Layout.of(metas[0])
        flat = torch.stack([layout.flatten(meta) for meta in metas]).to(device)
        carried = {
            part: {
                name: torch.stack([meta[part][name] for meta in metas]).to(device)
                for name in metas[0][part]
            }
            for part in CARRIED
        }
        return Pack(
            layout,
            flat,
            torch.zeros_like(flat),
            torch.zeros_like(flat),
            carried,
            flat.new_tensor(rates).unsqueeze(1),
        )

    def __len__(self) -> int:
        return len(self.flat)

    def meta(self, index: int) -> Meta:
        """Return one candidate's meta-parameters, detached copies."""
        parts = self.layout.unflatten(self.flat[index].detach().clone())
        carried = {
            part: {name: value[index].clone() for name, value in values.items()}
            for part, values in self.carried.items()
        }
        return {**parts, **carried, "stage": {}}

    def keep(self, indices: Sequence[int]) -> Pack:
        """Return the pack with some of its members."""
        chosen = torch.tensor(indices, device=self.flat.device)
        carried = {
            part: {name: value[chosen] for name, value in values.items()}
            for part, values in self.carried.items()
        }
        return Pack(
            self.layout,
            self.flat[chosen],
            self.first[chosen],
            self.second[chosen],
            carried,
            self.rates[chosen],
            self.iteration,
        )
