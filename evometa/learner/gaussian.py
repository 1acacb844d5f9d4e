"""Bayesian statistics of each class: a Gaussian with a learned prior (GeMCL; Banayeeanzade et al.,
2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import one_of
from evometa.learner.protocol import Tensors
from evometa.learner.set_to_set import SetToSet
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

DENSITIES = ("student", "map")
SETS = ("none", "attention")
TINY = 1e-6  # least shape of a likeliest precision; a class without an example may have less


class Posterior(NamedTuple):
    """What is known of the mean and the precision of each class: a normal-gamma distribution.

    Attributes:
        mean: shape `(ways, features)`.
        weight: examples that the mean is worth, shape `(ways, 1)`.
        shape: of the gamma distribution of the precisions, shape `(ways, 1)`.
        rate: of the same, shape `(ways, features)`.
    """

    mean: Tensor
    weight: Tensor
    shape: Tensor
    rate: Tensor


@dataclass(frozen=True)
class Gaussian(Head):
    """Classifies by the density of a query under each class, its features independent.

    Mean and precision of a class's features have a normal-gamma prior around mean 0, of which
    the outer loop learns weight, shape and rate. What is kept of a class is a sum of statistics.

    Attributes:
        density: `"student"`, the predictive density, which knows how little is known; `"map"`, the
            Gaussian of the likeliest mean and precision.
        set_step: `"attention"`: support examples first see each other; see `SetToSet`.
        features: of an example; needed with a set step alone.

    Raises:
        ValueError: if an argument is none of these.
    """

    density: str = "student"
    set_step: str = "none"
    features: int = 0

    def __post_init__(self) -> None:
        one_of("density", self.density, DENSITIES)
        one_of("set_step", self.set_step, SETS)

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"gaussian {self.density} {self.set_step}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the prior, as logarithms, and the weights of a set step."""
        step = SetToSet(self.features).init(like, generator) if self.set_step != "none" else {}
        prior = {"weight": 0.01, "shape": 1.0, "rate": 1.0}
        logs = {f"log_{name}": like.new_tensor(math.log(value)) for name, value in prior.items()}
        return Own(step, logs, {})

    def fit(self, own: Tensors, shown: Shown) -> Posterior:
        """Return the posterior of each class; the prior where there is no example."""
        features = shown.features
        if self.set_step != "none":
            features = SetToSet(self.features)(own, features, shown.real)
        weight, shape, rate = (own[f"log_{name}"].exp() for name in ("weight", "shape", "rate"))
        members = shown.members
        counts = members.sum(1, keepdim=True)
        means = members @ features / counts.clamp(min=1)
        apart = (members.unsqueeze(2) * (features - means.unsqueeze(1)).square()).sum(1)
        drawn = counts * weight / (counts + weight) * means.square()
        return Posterior(
            counts * means / (counts + weight),
            counts + weight,
            shape + counts / 2,
            rate + (apart + drawn) / 2,
        )

    def score(self, own: Tensors, state: Posterior, features: Tensor) -> Tensor:
        """Return log densities of shape `(queries, ways)`."""
        apart = (features.unsqueeze(1) - state.mean).square()
        if self.density == "map":
            precision = (state.shape - 0.5).clamp(min=TINY) / state.rate
            logs = precision.log() - math.log(2 * math.pi) - precision * apart
            return logs.sum(-1) / 2
        precision = state.weight / ((state.weight + 1) * 2 * state.rate)
        each = (
            torch.lgamma(state.shape + 0.5)
            - torch.lgamma(state.shape)
            + (precision / math.pi).log() / 2
            - (state.shape + 0.5) * torch.log1p(precision * apart)
        )
        return each.sum(-1)


def gaussian_space(
    *,
    density: Space | None = None,
    set_step: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of Gaussian heads (Banayeeanzade et al., 2021).

    Args:
        density: default `Choice("student", "map")`.
        set_step: default `Choice("none", "attention")`.
        ways: classes in an episode of meta-training; default `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        density=Choice(*DENSITIES) if density is None else density,
        set_step=Choice(*SETS) if set_step is None else set_step,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `gaussian_space` into a learner; raises as `make_embedded` does."""
    what = "Gaussian heads"
    steps = genes.get("set_step", "none") != "none"
    features = shape_of(setting, what).numel() if steps else 0
    return make_embedded(genes, setting, what, lambda **own: Gaussian(features=features, **own))


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    density = "Student" if genes["density"] == "student" else "N"
    return f"class ← argmaxₖ {density}(f(x); mean and variance of f over class k, prior learned)"


FAMILY = Family(
    name="gaussian",
    make=_make,
    space=gaussian_space,
    presets={
        "gaussian": {
            "density": "student",
            "set_step": "none",
            "ways": 20,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
