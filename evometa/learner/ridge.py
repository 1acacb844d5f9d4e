"""Ridge regression on features, solved in closed form (R2-D2; Bertinetto et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Float, Primitive, Space, Struct
from evometa.task.classes import class_count


@dataclass(frozen=True)
class Ridge(Head):
    """Predicts by a linear map of features that fits the support set best, with a penalty.

    The penalty, and for classes the scale and shift of the logits, are learned by the outer loop;
    nothing else adapts but the map. The smaller of the two systems is solved: one of examples or
    one of features.

    Attributes:
        classes: whether it predicts classes; else values.
        penalty: initial one, for features of mean square 1.
        scale: initial one of the logits.

    Raises:
        ValueError: if a number is not positive.
    """

    classes: bool
    penalty: float = 1.0
    scale: float = 10.0

    def __post_init__(self) -> None:
        for name in ("penalty", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"ridge {'classes' if self.classes else 'values'}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the penalty, and how logits follow from the map."""
        del generator
        penalty = {"log_penalty": like.new_tensor(self.penalty).log()}
        if self.classes:
            logits = {"scale": like.new_tensor(self.scale), "shift": like.new_tensor(0.0)}
            return Own({}, {**penalty, **logits}, {})
        return Own({}, penalty, {"scale": like.new_tensor(1.0), "shift": like.new_tensor(0.0)})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the map, `(features + 1, outputs)`; the last row belongs to a constant feature."""
        inputs, targets = with_constant(shown.features), shown.targets
        if self.classes:
            inputs, targets = inputs * shown.real.to(inputs.dtype).unsqueeze(1), shown.one_hot
        return solved(inputs, targets.to(inputs.dtype), own["log_penalty"].exp())

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`, or values of shape `(queries, outputs)`."""
        return own["scale"] * (with_constant(features) @ state) + own["shift"]


def solved(inputs: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """Return the ridge solution: `(XᵀX + penalty·I)⁻¹XᵀY = Xᵀ(XXᵀ + penalty·I)⁻¹Y`.

    Args:
        inputs: shape `(examples, features)`.
        targets: shape `(examples, outputs)`.
        penalty: a scalar above 0.

    Returns:
        Shape `(features, outputs)`.
    """
    examples, features = inputs.shape
    one = torch.eye(min(examples, features), dtype=inputs.dtype, device=inputs.device)
    if examples <= features:
        small: Tensor = torch.linalg.solve(inputs @ inputs.T + penalty * one, targets)
        return inputs.T @ small
    whole: Tensor = torch.linalg.solve(inputs.T @ inputs + penalty * one, inputs.T @ targets)
    return whole


def with_constant(features: Tensor) -> Tensor:
    """Return features of any size as such of about mean square 1 by their number, and a 1."""
    small = features / features.shape[1] ** 0.5
    return torch.cat([small, torch.ones_like(small[:, :1])], 1)


def ridge_space(
    *, penalty: Space | None = None, scale: Space | None = None, outer: Space | None = None
) -> Struct:
    """Return the space of ridge heads (Bertinetto et al., 2019).

    Args:
        penalty: initial penalty; default `Float(0.01, 10, log=True)`.
        scale: initial scale of the logits of classes; default `Choice(10.0)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        penalty=Float(0.01, 10.0, log=True) if penalty is None else penalty,
        scale=Choice(10.0) if scale is None else scale,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `ridge_space` into a learner; raises as `make_embedded` does."""
    classes = class_count(setting.task) is not None
    return make_embedded(
        genes, setting, "ridge heads", lambda **own: Ridge(classes, **own), values=True
    )


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del genes, primitives
    return "y ← f(x)·W, W = argmin ‖f(X)·W - Y‖² + λ‖W‖², λ learned"


FAMILY = Family(
    name="ridge",
    make=_make,
    space=ridge_space,
    presets={
        "ridge": {
            "penalty": 0.1,
            "scale": 10.0,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
