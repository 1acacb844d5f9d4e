"""Logistic regression on features, by a few Newton steps (LR-D2; Bertinetto et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Tensors
from evometa.learner.ridge import with_constant
from evometa.rule import outer_space
from evometa.space import Choice, Float, Int, Primitive, Space, Struct

FLAT = 1e-6  # least slope of the logistic function that a Newton step divides by


@dataclass(frozen=True)
class Logistic(Head):
    """Predicts by one logistic regression a class, this class against all others, with a penalty.

    The penalty, and scale and shift of the logits, are learned by the outer loop.

    Attributes:
        penalty: initial one of the squared weights.
        scale: initial one of the logits.
        steps: Newton steps from weights of 0, which are steps of iteratively reweighted least
            squares.

    Raises:
        ValueError: if a number is not positive.
    """

    penalty: float = 1.0
    scale: float = 1.0
    steps: int = 5

    def __post_init__(self) -> None:
        for name in ("penalty", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)!r}")
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"`steps >= 1` must hold, got {self.steps!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"logistic {self.steps}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the penalty, and how logits follow from the maps."""
        del generator
        numbers = {"log_penalty": like.new_tensor(self.penalty).log()}
        numbers |= {"scale": like.new_tensor(self.scale), "shift": like.new_tensor(0.0)}
        return Own({}, numbers, {})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the maps, shape `(features + 1, ways)`; the last row is of a constant feature."""
        inputs = with_constant(shown.features)
        real, labels = shown.real.to(inputs.dtype), shown.members.to(inputs.dtype)
        step = _dual if len(inputs) <= inputs.shape[1] else _primal
        weights = torch.zeros_like(labels[:, :1] * inputs[:1])
        for _ in range(self.steps):
            likely = (weights @ inputs.T).sigmoid()
            slope = (likely * (1 - likely)).clamp(min=FLAT) * real
            error = (labels - likely) * real
            weights = step(inputs, weights, slope, error, own["log_penalty"].exp())
        return weights.T

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        return own["scale"] * (with_constant(features) @ state) + own["shift"]


def _primal(
    inputs: Tensor, weights: Tensor, slope: Tensor, error: Tensor, penalty: Tensor
) -> Tensor:
    """Solve `(XᵀSX + penalty·I) w = Xᵀ(S·Xw + error)` for each class; shape `(ways, features)`."""
    one = torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    curve = inputs.T @ (slope.unsqueeze(2) * inputs) + penalty * one
    wanted = (slope * (weights @ inputs.T) + error) @ inputs
    return _solved(curve, wanted)


def _dual(inputs: Tensor, weights: Tensor, slope: Tensor, error: Tensor, penalty: Tensor) -> Tensor:
    """Do the same by systems of examples: `w = Xᵀ√S (√S XXᵀ √S + penalty·I)⁻¹ √S⁻¹(S·Xw + error)`.

    Padding has slope and error 0, and so no part.
    """
    one = torch.eye(len(inputs), dtype=inputs.dtype, device=inputs.device)
    root = slope.clamp(min=FLAT * FLAT).sqrt() * (slope > 0)
    curve = root.unsqueeze(2) * (inputs @ inputs.T) * root.unsqueeze(1) + penalty * one
    wanted = root * (weights @ inputs.T) + error / root.clamp(min=FLAT)
    return (root * _solved(curve, wanted)) @ inputs


def _solved(systems: Tensor, wanted: Tensor) -> Tensor:
    """Solve positive definite systems `(ways, size, size)`; what is not finite stays so."""
    factor, _ = torch.linalg.cholesky_ex(systems)
    return torch.cholesky_solve(wanted.unsqueeze(2), factor).squeeze(2)


def logistic_space(
    *,
    penalty: Space | None = None,
    scale: Space | None = None,
    steps: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of logistic heads (Bertinetto et al., 2019).

    Args:
        penalty: initial penalty; default `Float(0.01, 10, log=True)`.
        scale: initial scale of the logits; default `Choice(1.0, 10.0)`.
        steps: Newton steps; default `Int(1, 8)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        penalty=Float(0.01, 10.0, log=True) if penalty is None else penalty,
        scale=Choice(1.0, 10.0) if scale is None else scale,
        steps=Int(1, 8) if steps is None else steps,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `logistic_space` into a learner; raises as `make_embedded` does."""
    return make_embedded(genes, setting, "logistic heads", Logistic)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    steps = genes.get("steps", 5)
    return f"y ← f(x)·W, W fits sigmoid(f(X)·W) to Y with λ‖W‖² by {steps} Newton steps, λ learned"


FAMILY = Family(
    name="logistic",
    make=_make,
    space=logistic_space,
    presets={
        "logistic": {
            "penalty": 0.1,
            "scale": 1.0,
            "steps": 5,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
