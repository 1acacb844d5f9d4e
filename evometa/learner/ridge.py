"""Ridge regression on features, solved in closed form (R2-D2; Bertinetto et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evometa.learner.embedding import Embedding, is_embedding
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Loss, Meta, MetaLoss, Tensors, Traits
from evometa.network import Network
from evometa.rule import DEFAULT_OUTER, Outer, make_outer, outer_space
from evometa.space import Choice, Float, Primitive, Space, Struct
from evometa.task.classes import class_count, ways_of
from evometa.task.protocol import IGNORED, Predict, Side


class Solved(NamedTuple):
    """An embedding with the solution of one episode.

    Attributes:
        params: the embedding's parameters.
        buffers: its buffers.
        weights: shape `(features + 1, outputs)`; the last row belongs to a constant feature.
        scale: what predictions are multiplied with, and
        shift: what is added then: logits of classes; 1 and 0 for values.
    """

    params: Tensors
    buffers: Tensors
    weights: Tensor
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Ridge:
    """Predicts by a linear map of features that fits the support set best, with a penalty.

    The penalty, and for classes the scale and shift of the logits, are learned by the outer loop;
    nothing else adapts but the map. The smaller of the two systems is solved: one of examples or
    one of features.

    Attributes:
        network: the embedding; outputs of any shape are flattened.
        loss: mean loss of a learner on one side of one episode.
        most: classes in an episode whose side does not say how many it has; None for values.
        penalty: initial one, for features of mean square 1.
        scale: initial one of the logits.
        outer: how the outer loop trains it.
        norm: batch-norm protocol; see `Embedding`.
        training: whether dropout and the like are active.

    Raises:
        ValueError: if an argument is not positive.
    """

    network: Network
    loss: Loss
    most: int | None
    penalty: float = 1.0
    scale: float = 10.0
    outer: Outer = DEFAULT_OUTER
    norm: str = "inductive"
    training: bool = False

    def __post_init__(self) -> None:
        for name in ("penalty", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)!r}")

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        kind = "values" if self.most is None else "classes"
        return Traits(
            structure=f"ridge {kind} {self.outer.structure}\n{self.network.structure}\n{self.norm}",
            outer=self.outer,
            any_ways=True,
        )

    def init(self, generator: torch.Generator) -> dict[str, Tensors]:
        """Return the embedding's parameters and buffers, the penalty, and how logits follow."""
        del generator
        some = next(iter(self.network.params.values()))
        logits = {"scale": some.new_tensor(self.scale), "shift": some.new_tensor(0.0)}
        values = {"scale": some.new_tensor(1.0), "shift": some.new_tensor(0.0)}
        classes = self.most is not None
        return {
            "params": dict(self.network.params),
            "learned": {
                "log_penalty": some.new_tensor(self.penalty).log(),
                **(logits if classes else {}),
            },
            "constants": {} if classes else values,
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Solve the support set, and see how well the queries are predicted."""
        trained = replace(self, training=True)
        predict, seen = trained._watched(trained.adapt(meta, support))
        return trained._embedding.told(self.loss(predict, query), seen[-1])

    def adapt(self, meta: Meta, support: Side) -> Solved:
        """Return the linear map that fits the support set."""
        params, targets = meta["params"], support.targets
        features, buffers = self._embedding.support(params, meta["buffers"], support.inputs)
        inputs = _with_constant(features)
        if self.most is not None:
            real = (targets != IGNORED).to(inputs.dtype).unsqueeze(1)
            labels = torch.arange(ways_of(support, self.most), device=targets.device)
            inputs = inputs * real
            targets = (targets.unsqueeze(1) == labels).to(inputs.dtype)
        known = {**meta["learned"], **meta["constants"]}
        weights = solved(inputs, targets.to(inputs.dtype), known["log_penalty"].exp())
        return Solved(params, buffers, weights, known["scale"], known["shift"])

    def trajectory(self, meta: Meta, support: Side, steps: int | None = None) -> list[Solved]:
        """Return the one thing there is: a solution knows no steps."""
        del steps
        return [self.adapt(meta, support)]

    def predict(self, adapted: Solved, inputs: Any) -> Tensor:
        """Return logits of shape `(queries, ways)`, or values of shape `(queries, outputs)`."""
        return self._watched(adapted)[0](inputs)  # type: ignore[no-any-return]

    @property
    def _embedding(self) -> Embedding:
        return Embedding(self.network, self.norm, self.training)

    def _watched(self, adapted: Solved) -> tuple[Predict, list[Tensors]]:
        """Return the solution as a function of inputs, and the buffers before and after."""
        params, buffers, weights, scale, shift = adapted
        seen = [buffers]

        def predict(inputs: Any) -> Tensor:
            features, after = self._embedding.queries(params, seen[-1], inputs)
            seen.append(after)
            return scale * (_with_constant(features) @ weights) + shift

        return predict, seen


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


def _with_constant(features: Tensor) -> Tensor:
    """Return features of any size as such of about mean square 1 by their number, and a 1."""
    wide = features.float() if features.dtype in (torch.bfloat16, torch.float16) else features
    wide = wide / wide.shape[1] ** 0.5
    return torch.cat([wide, torch.ones_like(wide[:, :1])], 1)


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


def _make(genes: Genes, setting: Setting) -> Ridge:
    """Turn a genome of `ridge_space` into a learner.

    Raises:
        ValueError: if the task has no labelled examples, or the network no features.
        TypeError: if a gene is unknown.
    """
    is_embedding(setting.outputs, "ridge heads")
    outer = make_outer(genes["outer"]) if "outer" in genes else DEFAULT_OUTER
    known = {**genes, "outer": outer}
    most = class_count(setting.task)
    return Ridge(setting.network, setting.task.loss, most, norm=setting.norm, **known)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del genes, primitives
    return "y ← f(x)·W, W = argmin ‖f(X)·W - Y‖² + λ‖W‖², λ learned"


RIDGE = Family(
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
    formula=_formula,
)
