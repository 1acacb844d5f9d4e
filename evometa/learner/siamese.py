"""Siamese networks: are these two examples of one class? (Koch et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import POOLINGS, one_of, pooled, squared_distances
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

DISTANCES = ("weighted", "euclidean")
LOSSES = ("binary", "contrastive", "triplet")
TINY = 1e-12  # keeps the root's derivative finite where two examples are equal


class Twins(NamedTuple):
    """A support set to be compared with.

    Attributes:
        features: shape `(examples, features)`.
        members: which examples belong to which class, shape `(ways, examples)`.
    """

    features: Tensor
    members: Tensor


@dataclass(frozen=True)
class Siamese(Head):
    """Scores each pair of a query and a support example; the likeliest pair names the class.

    All pairs of an episode are trained at once. A pair's logit is a bias less its distance. At
    first weights are `1 / √features` and the bias `√features / 2`, about the distance of two
    examples whose features are normed, so that both kinds of pairs teach from the beginning.

    Attributes:
        features: of an example.
        distance: `"weighted"`, as published: the sum of absolute differences, each with a weight
            that is learned, and kept positive; `"euclidean"`, squared, with one learned weight.
        pairs: `"binary"`, as published: cross-entropy of `same or not`, where both count the
            same; `"contrastive"` (Hadsell et al., 2006) or `"triplet"` (Schroff et al., 2015), both
            on distances, with the margin `√features / 2`.
        pooling: from pairs to classes: `"max"`, `"mean"` or `"logsumexp"`.

    Raises:
        ValueError: if an argument is none of these.
    """

    features: int
    distance: str = "weighted"
    pairs: str = "binary"
    pooling: str = "max"

    def __post_init__(self) -> None:
        one_of("distance", self.distance, DISTANCES)
        one_of("pairs", self.pairs, LOSSES)
        one_of("pooling", self.pooling, POOLINGS)

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"siamese {self.distance} {self.pairs} {self.pooling}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights of the differences, logarithms, and the bias of the logits."""
        del generator
        size = (self.features,) if self.distance == "weighted" else ()
        weights = like.new_full(size, self.features**-0.5).log()
        usual = like.new_tensor(self.features**0.5 / 2)
        return Own({"log_weights": weights, "bias": usual.clone()}, {}, {"margin": usual})

    def fit(self, own: Tensors, shown: Shown) -> Twins:
        """Keep the support set."""
        return Twins(shown.features, shown.members)

    def score(self, own: Tensors, state: Twins, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        logits = own["bias"] - self._distances(own, state, features)
        return pooled(logits, state.members, self.pooling)

    def objective(self, own: Tensors, state: Twins, asked: Asked, loss: Tensor) -> Tensor:
        """Return the loss of all pairs of a query and a support example."""
        distances = self._distances(own, state, asked.features)
        same = asked.one_hot @ state.members  # (queries, examples)
        other = asked.one_hot.sum(1, keepdim=True) * state.members.sum(0) - same
        if self.pairs == "triplet":
            far = F.relu(own["margin"] + distances.unsqueeze(2) - distances.unsqueeze(1))
            return _mean(far, same.unsqueeze(2) * other.unsqueeze(1))
        if self.pairs == "binary":
            logits = own["bias"] - distances
            return (_mean(F.softplus(-logits), same) + _mean(F.softplus(logits), other)) / 2
        if self.distance == "weighted":
            near, distances = F.relu(own["margin"] - distances).square(), distances.square()
        else:
            near = F.relu(own["margin"].sqrt() - (distances + TINY).sqrt()).square()
        return (_mean(distances, same) + _mean(near, other)) / 2

    def _distances(self, own: Tensors, state: Twins, features: Tensor) -> Tensor:
        """Return the distance of each pair, shape `(queries, examples)`."""
        weights = own["log_weights"].exp()
        if self.distance == "weighted":
            return (features.unsqueeze(1) - state.features).abs() @ weights
        return weights * squared_distances(features, state.features)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def siamese_space(
    *,
    distance: Space | None = None,
    pairs: Space | None = None,
    pooling: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of Siamese networks (Koch et al., 2015).

    Args:
        distance: default `Choice("weighted", "euclidean")`.
        pairs: the loss of all pairs; default `Choice("binary", "contrastive", "triplet")`.
        pooling: from pairs to classes; default `Choice("max", "mean", "logsumexp")`.
        ways: classes in an episode of meta-training; default `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        distance=Choice(*DISTANCES) if distance is None else distance,
        pairs=Choice(*LOSSES) if pairs is None else pairs,
        pooling=Choice(*POOLINGS) if pooling is None else pooling,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `siamese_space` into a learner; raises as `make_embedded` does."""
    what = "Siamese networks"

    def head(pairs: str = "binary", **own: str) -> Siamese:
        return Siamese(shape_of(setting, what).numel(), pairs=pairs, **own)

    return make_embedded(genes, setting, what, head)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    distance = "‖f(x) - f(xᵢ)‖²" if genes["distance"] == "euclidean" else "Σⱼ wⱼ·|f(x) - f(xᵢ)|ⱼ"
    return (
        f"p(same) = sigmoid(b - {distance}), class ← argmaxₖ {genes['pooling']} over i of class k"
    )


FAMILY = Family(
    name="siamese",
    make=_make,
    space=siamese_space,
    presets={
        "siamese": {
            "distance": "weighted",
            "pairs": "binary",
            "pooling": "max",
            "ways": 20,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
