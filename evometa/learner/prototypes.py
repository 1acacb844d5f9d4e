"""Prototypical networks: predict by the distance to the mean of each class (Snell et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

COSINE_SCALE = 10.0  # initial value of the learned scale (Gidaris and Komodakis, 2018)
DISTANCES = {
    "euclidean": "class ← argminₖ ‖f(x) - cₖ‖², cₖ the mean of f over the examples of class k",
    "cosine": "class ← argmaxₖ cos(f(x), cₖ), cₖ the mean of f over the examples of class k",
}


@dataclass(frozen=True)
class Prototypes(Head):
    """Classifies by the nearest mean of the support embeddings.

    Attributes:
        distance: `"euclidean"`, squared, as published; or `"cosine"` with a learned scale.

    Raises:
        ValueError: if the distance is none of these.
    """

    distance: str = "euclidean"

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"`distance` must be one of {[*DISTANCES]}, got {self.distance!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"prototypes {self.distance}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the scale of the similarities."""
        del generator
        if self.distance == "cosine":
            return Own({}, {"scale": like.new_tensor(COSINE_SCALE)}, {})
        return Own({}, {}, {"scale": like.new_tensor(1.0)})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the means of the classes, shape `(ways, features)`."""
        members = shown.members
        return members @ shown.features / members.sum(1).clamp(min=1).unsqueeze(1)

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        if self.distance == "cosine":
            similar = F.normalize(features, dim=-1) @ F.normalize(state, dim=-1).T
        else:
            similar = -(features.unsqueeze(1) - state).square().sum(-1)
        return own["scale"] * similar


def prototype_space(
    *, distance: Space | None = None, ways: Space | None = None, outer: Space | None = None
) -> Struct:
    """Return the space of prototypical networks (Snell et al., 2017).

    Join it with gradient rules as `Choice(prototypes=prototype_space(), gradient=rule_space())`.

    Args:
        distance: default `Choice("euclidean", "cosine")`.
        ways: classes in an episode of meta-training, at most as many as meta-train has; default
            `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        distance=Choice(*DISTANCES) if distance is None else distance,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `prototype_space` into a learner; raises as `make_embedded` does."""
    return make_embedded(genes, setting, "prototypes", Prototypes)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    return DISTANCES[genes["distance"]]


PROTOTYPES = Family(
    name="prototypes",
    make=_make,
    space=prototype_space,
    presets={
        "protonet": {
            "distance": "euclidean",
            "ways": 60,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
