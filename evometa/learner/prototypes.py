"""Prototypical networks: predict by the distance to the mean of each class (Snell et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import SCALES, one_of, scale_of, similarity
from evometa.learner.protocol import Tensors
from evometa.learner.set_to_set import SetToSet
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

CENTRES = {
    "mean": "the mean of f over the examples of class k",
    "median": "the median of f over the examples of class k",
    "attention": "a mean of f over the examples of class k, more of those near their middle",
}
DISTANCES = {
    "euclidean": "class ← argminₖ ‖f(x) - cₖ‖²",
    "cosine": "class ← argmaxₖ cos(f(x), cₖ)",
    "mahalanobis": "class ← argminₖ (f(x) - cₖ)ᵀQₖ⁻¹(f(x) - cₖ), Qₖ the covariance of class k",
}
SETS = ("none", "attention")


class Classes(NamedTuple):
    """What stands for the classes of an episode.

    Attributes:
        centres: shape `(ways, features)`.
        factors: Cholesky factors of their covariances, shape `(ways, features, features)`; of no
            class where the distance needs none.
    """

    centres: Tensor
    factors: Tensor


@dataclass(frozen=True)
class Prototypes(Head):
    """Classifies by the nearest mean of the support embeddings.

    Attributes:
        distance: `"euclidean"`, squared, as published; `"cosine"`; or `"mahalanobis"`, half its
            square by the covariance of each class (Simple CNAPS; Bateni et al., 2020).
        pooling: what the examples of a class become: their `"mean"`, as published; their
            `"median"`, feature by feature, which one odd example does not move; or `"attention"`,
            a mean weighed by the cosine to the plain mean, by how much is learned.
        scale: whether what similarities are multiplied with is learned; see `scale_of`.
        set_step: `"attention"`: the classes' centres first see each other (FEAT; Ye et al., 2020).
        features: of an example; needed with a set step alone.

    Raises:
        ValueError: if an argument is none of these.
    """

    distance: str = "euclidean"
    pooling: str = "mean"
    scale: str | None = None
    set_step: str = "none"
    features: int = 0

    def __post_init__(self) -> None:
        one_of("distance", self.distance, tuple(DISTANCES))
        one_of("pooling", self.pooling, tuple(CENTRES))
        one_of("scale", self.scale, (None, *SCALES))
        one_of("set_step", self.set_step, SETS)

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        rest = (self.pooling, self.scale, self.set_step)
        usual = rest == ("mean", None, "none")
        return f"prototypes {self.distance}{'' if usual else f' {rest}'}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the scale of the similarities, and what attention needs."""
        own = scale_of(self.scale, self.distance, like)
        if self.pooling == "attention":
            own = own._replace(learned={**own.learned, "sharpness": like.new_tensor(1.0)})
        if self.set_step == "none":
            return own
        return own._replace(params=SetToSet(self.features).init(like, generator))

    def fit(self, own: Tensors, shown: Shown) -> Classes:
        """Return the centres of the classes, and their covariances."""
        members, features = shown.members, shown.features
        counts = members.sum(1)
        means = members @ features / counts.clamp(min=1).unsqueeze(1)
        centres = means
        if self.pooling == "median":
            centres = _medians(features, members, counts.long())
        if self.pooling == "attention":
            typical = own["sharpness"] * F.cosine_similarity(features, shown.one_hot @ means, dim=1)
            weights = members * (typical - typical.max()).exp()
            # a class without an example has no weights to divide by
            centres = weights @ features / (weights.sum(1) + (counts == 0)).unsqueeze(1)
        if self.set_step != "none":
            centres = SetToSet(self.features)(own, centres, counts > 0)
        factors = features.new_zeros(0)
        if self.distance == "mahalanobis":
            factors = _covariances(features, members, means)
        return Classes(centres, factors)

    def score(self, own: Tensors, state: Classes, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        if self.distance != "mahalanobis":
            return own["scale"] * similarity(self.distance, features, state.centres)
        apart = (features - state.centres.unsqueeze(1)).mT
        whitened: Tensor = torch.linalg.solve_triangular(state.factors, apart, upper=False)
        return -own["scale"] / 2 * whitened.square().sum(1).T


def _medians(features: Tensor, members: Tensor, counts: Tensor) -> Tensor:
    """Return the median of each class and feature; 0 for a class without an example."""
    mine = members.unsqueeze(2) > 0
    ranked = torch.where(mine, features, torch.inf).sort(1).values  # (ways, examples, features)
    last = (counts - 1).clamp(min=0)
    at = torch.stack([last // 2, (last + 1) // 2], 1).unsqueeze(2)
    both = ranked.gather(1, at.expand(-1, -1, features.shape[1]))
    there = (counts > 0).view(-1, 1, 1)
    return torch.where(there, both, 0.0).mean(1)


def _covariances(features: Tensor, members: Tensor, means: Tensor) -> Tensor:
    """Return Cholesky factors of `λₖSₖ + (1 - λₖ)S + I`, `λₖ = nₖ/(nₖ + 1)`.

    `Sₖ` is the covariance of the `nₖ` examples of a class, `S` that of all; of one example it is 0.
    """
    counts, real = members.sum(1), members.sum(0)
    whole = real @ features / real.sum()
    apart = members.unsqueeze(2) * (features - means.unsqueeze(1))  # (ways, examples, features)
    own = apart.mT @ apart / (counts - 1).clamp(min=1).view(-1, 1, 1)
    away = real.unsqueeze(1) * (features - whole)
    common = away.T @ away / (real.sum() - 1).clamp(min=1)
    share = (counts / (counts + 1)).view(-1, 1, 1)
    one = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    factors: Tensor = torch.linalg.cholesky_ex(share * own + (1 - share) * common + one)[0]
    return factors


def prototype_space(
    *,
    distance: Space | None = None,
    pooling: Space | None = None,
    scale: Space | None = None,
    set_step: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of prototypical networks (Snell et al., 2017).

    Join it with gradient rules as `Choice(prototypes=prototype_space(), gradient=rule_space())`.

    Args:
        distance: default `Choice("euclidean", "cosine", "mahalanobis")`.
        pooling: of the examples of a class, such as `Choice("mean", "median", "attention")`; by
            default no gene, as in the preset. So are
        scale: of the similarities, such as `Choice("learned", "fixed")`, and
        set_step: such as `Choice("none", "attention")`.
        ways: classes in an episode of meta-training, at most as many as meta-train has; default
            `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    wider = {"pooling": pooling, "scale": scale, "set_step": set_step}
    return Struct(
        {name: space for name, space in wider.items() if space is not None},
        distance=Choice(*DISTANCES) if distance is None else distance,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `prototype_space` into a learner; raises as `make_embedded` does."""
    steps = genes.get("set_step", "none") != "none"
    features = shape_of(setting, "prototypes").numel() if steps else 0
    return make_embedded(
        genes, setting, "prototypes", lambda **own: Prototypes(features=features, **own)
    )


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    centre = CENTRES[genes.get("pooling", "mean")]
    seen = ", after attention among all c" if genes.get("set_step", "none") != "none" else ""
    return f"{DISTANCES[genes['distance']]}, cₖ {centre}{seen}"


FAMILY = Family(
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
    optional=("pooling", "scale", "set_step"),
    formula=_formula,
)
