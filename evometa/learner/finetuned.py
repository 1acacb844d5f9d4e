"""A linear or cosine classifier that is fine-tuned on features (Chen et al., 2019; Tian et al.)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evometa.learner.embedded import ABSENT, Head, Own, Shown
from evometa.learner.pairs import one_of
from evometa.learner.protocol import Tensors
from evometa.learner.ridge import with_constant

KINDS = ("linear", "cosine")
TINY = 1e-12  # keeps the length of a vector of zeros above 0


@dataclass(frozen=True)
class Finetuned(Head):
    """Fits a classifier to the support set by gradient descent on its mean cross-entropy.

    The logits are `X·W`, from weights of 0, with a constant feature; or, where it is cosine,
    `scale` times the cosine of features and weights, from the mean direction of each class
    (published with random ones), which is cosine prototypes before the first step. All examples
    take part in each step, and nothing is random. Classes without an example have no part.

    Attributes:
        kind: `"linear"` or `"cosine"`.
        steps: of gradient descent.
        rate: of a step.
        decay: of the weights, half the penalty on their squares.
        scale: of cosines.

    Raises:
        ValueError: if an argument has no such value.
    """

    kind: str = "linear"
    steps: int = 100
    rate: float = 1.0
    decay: float = 1e-3
    scale: float = 10.0

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        if not (isinstance(self.steps, int) and self.steps >= 0):
            raise ValueError(f"`steps >= 0` must hold, got {self.steps!r}")
        if not (self.rate > 0 and self.decay >= 0):
            raise ValueError(
                f"`rate > 0` and `decay >= 0` must hold, got {self.rate!r} and {self.decay!r}"
            )

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"finetuned {self.kind} {self.steps}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return rate, decay and scale, which stay as they are."""
        del generator
        numbers = {"rate": self.rate, "decay": self.decay, "scale": self.scale}
        return Own({}, {}, {name: like.new_tensor(value) for name, value in numbers.items()})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the weights, shape `(features, ways)`; with a last row where it is linear."""
        inputs, labels = self._seen(shown.features), shown.one_hot
        real, present = labels.sum(1, keepdim=True), labels.sum(0) > 0
        weights = inputs.T @ labels
        if self.kind == "linear":
            weights = torch.zeros_like(weights)
        for _ in range(self.steps):
            logits = torch.where(present, self._logits(own, weights, inputs), ABSENT)
            errors = (logits.softmax(1) - labels) * real / real.sum()
            slope = inputs.T @ errors
            if self.kind == "cosine":
                length = _length(weights, 0)
                unit = weights / length
                slope = own["scale"] * (slope - unit * (unit * slope).sum(0)) / length
            weights = weights - own["rate"] * (slope * present + own["decay"] * weights)
        return weights

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        return self._logits(own, state, self._seen(features))

    def _seen(self, features: Tensor) -> Tensor:
        return with_constant(features) if self.kind == "linear" else directions(features)

    def _logits(self, own: Tensors, weights: Tensor, inputs: Tensor) -> Tensor:
        if self.kind == "linear":
            return inputs @ weights
        return own["scale"] * (inputs @ (weights / _length(weights, 0)))


def directions(rows: Tensor) -> Tensor:
    """Return vectors of length 1, shape `(rows, features)`; zeros stay zeros."""
    return rows / _length(rows, 1)


def _length(vectors: Tensor, dim: int) -> Tensor:
    return (vectors.square().sum(dim, keepdim=True) + TINY).sqrt()
