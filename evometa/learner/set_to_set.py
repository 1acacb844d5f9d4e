"""A step from a set of vectors to another by self-attention (FEAT; Ye et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import ABSENT
from evometa.learner.protocol import Tensors
from evometa.network import drawn


@dataclass(frozen=True)
class SetToSet:
    """Lets each vector of a set see the others: `norm(x + attention(x, x, x))`, one head.

    Their order does not matter.

    Attributes:
        features: of a vector.
    """

    features: int

    def init(self, like: Tensor, generator: torch.Generator) -> Tensors:
        """Return initial weights: Glorot-normal maps, and a norm that changes nothing."""
        size = self.features
        maps = {
            f"set.{name}": drawn((size, size), size**-0.5, like, generator)
            for name in ("query", "key", "value", "out")
        }
        return {**maps, "set.weight": like.new_ones(size), "set.bias": like.new_zeros(size)}

    def __call__(self, own: Tensors, rows: Tensor, real: Tensor) -> Tensor:
        """Return the set after the step.

        Args:
            own: weights.
            rows: shape `(rows, features)`.
            real: which rows the others may see, bool of shape `(rows,)`; one at least.
        """
        query, key, value = (rows @ own[f"set.{name}"] for name in ("query", "key", "value"))
        likeness = query @ key.T / self.features**0.5
        weights = torch.where(real, likeness, ABSENT).softmax(-1)
        moved = rows + weights @ value @ own["set.out"]
        return F.layer_norm(moved, moved.shape[-1:]) * own["set.weight"] + own["set.bias"]
