"""Fast weights: a linear map as a memory, written to by the delta rule (Schlag et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.finetuned import directions
from evometa.learner.pairs import one_of
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Float, Primitive, Space, Struct
from evometa.task.classes import class_count

RULES = ("delta", "hebbian")


@dataclass(frozen=True)
class Delta(Head):
    """Writes one support example after the other into a matrix, and reads predictions off it.

    A key `k` is the direction of an example's features, a value `v` its label as a vector. The
    delta rule, `W ← W + β·k(v - kᵀW)`, takes back what the memory would have said, so the order of
    the examples matters and later ones count more; with orthonormal keys and `β = 1` it is the
    exact association. Hebb's rule, `W ← W + β·kvᵀ`, knows no order. What is learned, besides `β`,
    are scale and shift of the logits.

    Attributes:
        classes: whether it predicts classes; else values.
        rule: `"delta"` or `"hebbian"`.
        write: initial `β`, between 0 and 2, which it never leaves: there the delta rule is stable.
        scale: initial one of the logits.

    Raises:
        ValueError: if an argument has no such value.
    """

    classes: bool
    rule: str = "delta"
    write: float = 1.0
    scale: float = 10.0

    def __post_init__(self) -> None:
        one_of("rule", self.rule, RULES)
        if not (0 < self.write < 2 and self.scale > 0):
            raise ValueError(
                f"`0 < write < 2` and `scale > 0` must hold, got {self.write!r} and {self.scale!r}"
            )

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"delta {'classes' if self.classes else 'values'} {self.rule}"

    @property
    def ordered(self) -> bool:
        """Whether it reads the support set in turn."""
        return self.rule == "delta"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return `β`, as the logit of its half, and how logits follow from what is read."""
        del generator
        write = {"write": (like.new_tensor(self.write) / 2).logit()}
        if self.classes:
            logits = {"scale": like.new_tensor(self.scale), "shift": like.new_tensor(0.0)}
            return Own({}, {**write, **logits}, {})
        return Own({}, write, {"scale": like.new_tensor(1.0), "shift": like.new_tensor(0.0)})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the memory, shape `(features, outputs)`."""
        keys = directions(shown.features)
        values = (shown.one_hot if self.classes else shown.targets).to(keys.dtype)
        keys = keys * shown.real.to(keys.dtype).unsqueeze(1)
        write = 2 * own["write"].sigmoid()
        if self.rule == "hebbian":
            return write * (keys.T @ values)
        memory = torch.zeros_like(keys[:1].T * values[:1])
        for key, value in zip(keys, values, strict=True):
            memory = memory + write * torch.outer(key, value - key @ memory)
        return memory

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`, or values of shape `(queries, outputs)`."""
        return own["scale"] * (directions(features) @ state) + own["shift"]


def delta_space(
    *,
    rule: Space | None = None,
    write: Space | None = None,
    scale: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of fast weights (Schlag et al., 2021).

    Args:
        rule: default `Choice("delta", "hebbian")`.
        write: how much of an error one example takes back, at first; default `Float(0.1, 1.5)`.
        scale: initial scale of the logits of classes; default `Choice(10.0)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        rule=Choice(*RULES) if rule is None else rule,
        write=Float(0.1, 1.5) if write is None else write,
        scale=Choice(10.0) if scale is None else scale,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `delta_space` into a learner; raises as `make_embedded` does."""
    classes = class_count(setting.task) is not None
    return make_embedded(
        genes, setting, "delta-rule memories", lambda **own: Delta(classes, **own), values=True
    )


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    if genes.get("rule", "delta") == "hebbian":
        return "y ← k(x)·W, W ← W + β·k(xᵢ)ᵀyᵢ for each example, k = f/‖f‖, β learned"
    return "y ← k(x)·W, W ← W + β·k(xᵢ)ᵀ(yᵢ - k(xᵢ)·W) for one example after the other, k = f/‖f‖"


FAMILY = Family(
    name="delta",
    make=_make,
    space=delta_space,
    presets={
        "delta-rule": {
            "rule": "delta",
            "write": 1.0,
            "scale": 10.0,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
