"""A perceptron of a few layers as a pure function of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.protocol import Tensors
from evometa.network import drawn


@dataclass(frozen=True)
class Perceptron:
    """Linear layers with ReLU between them.

    Attributes:
        name: begins the names of its weights.
        widths: features of inputs, of each layer between, and of outputs.
    """

    name: str
    widths: tuple[int, ...]

    def init(self, like: Tensor, generator: torch.Generator) -> Tensors:
        """Return initial weights: Glorot-normal maps, and biases of 0."""
        params = {}
        for layer, (start, end) in enumerate(pairwise(self.widths)):
            std = (2 / (start + end)) ** 0.5
            params[f"{self.name}.{layer}"] = drawn((start, end), std, like, generator)
            params[f"{self.name}.{layer}.bias"] = like.new_zeros(end)
        return params

    def __call__(self, own: Tensors, inputs: Tensor) -> Tensor:
        """Map `(..., inputs)` to `(..., outputs)`."""
        for layer in range(len(self.widths) - 1):
            inputs = F.relu(inputs) if layer else inputs
            inputs = inputs @ own[f"{self.name}.{layer}"] + own[f"{self.name}.{layer}.bias"]
        return inputs
