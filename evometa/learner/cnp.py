"""Conditional neural processes (Garnelo et al., 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import one_of, whole_numbers
from evometa.learner.perceptron import Perceptron
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct
from evometa.task.classes import class_count

LEAST = 0.1  # standard deviation, as published
TARGETS = ("likelihood", "task")


@dataclass(frozen=True)
class Cnp(Head):
    """Encodes each example with its target, and decodes a query beside the mean of the codes.

    Classes have a mean each, of examples without their label; the decoder's one output is the logit
    of a class (the published one sees all means at once, and so has a fixed number of classes, in
    an order). The order of the support set does not matter.

    Attributes:
        features: of an example.
        outputs: values of a target; None for classes.
        width: of a code, and of the layers of encoder and decoder.
        depth: layers of each.
        target: what the outer loop makes small for values: `"likelihood"`, the mean negative log
            density of a Gaussian whose deviation is predicted as well, as published; `"task"`, the
            task's loss of the mean, by which the preset learns sine waves far sooner.

    Raises:
        ValueError: if an argument has no such value.
    """

    features: int
    outputs: int | None
    width: int = 128
    depth: int = 3
    target: str = "likelihood"

    def __post_init__(self) -> None:
        one_of("target", self.target, TARGETS)
        whole_numbers(self)

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        kind = "classes" if self.outputs is None else f"{self.outputs} values"
        return f"cnp {kind} {self.width} {self.depth} layers {self.target}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights of encoder and decoder."""
        params = self._encoder.init(like, generator) | self._decoder.init(like, generator)
        return Own(params, {}, {})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the mean code, shape `(width,)`; or one a class, `(ways, width)`."""
        if self.outputs is None:
            members = shown.members
            codes = self._encoder(own, shown.features)
            return members @ codes / members.sum(1, keepdim=True).clamp(min=1)
        targets = shown.targets.to(shown.features.dtype)
        return self._encoder(own, torch.cat([shown.features, targets], 1)).mean(0)

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`, or means of shape `(queries, outputs)`."""
        if self.outputs is not None:
            return self.density(own, state, features)[0]
        queries, ways = features.shape[0], state.shape[0]
        pairs = torch.cat(
            [
                features.unsqueeze(1).expand(-1, ways, -1),
                state.expand(queries, -1, -1),
            ],
            -1,
        )
        return self._decoder(own, pairs).squeeze(-1)

    def objective(self, own: Tensors, state: Tensor, asked: Asked, loss: Tensor) -> Tensor:
        """Return the mean negative log density of the queries' targets, or the task's loss."""
        if self.outputs is None or self.target == "task":
            return loss
        mean, deviation = self.density(own, state, asked.features)
        apart = (asked.targets - mean) / deviation
        each = apart.square() / 2 + deviation.log() + math.log(2 * math.pi) / 2
        return each.sum(1).mean()

    def density(self, own: Tensors, state: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations of values, shape `(queries, outputs)` each."""
        code = state.expand(features.shape[0], -1)
        mean, spread = self._decoder(own, torch.cat([features, code], 1)).chunk(2, 1)
        return mean, LEAST + (1 - LEAST) * F.softplus(spread)

    @property
    def _encoder(self) -> Perceptron:
        inner = (self.width,) * self.depth
        return Perceptron("encoder", (self.features + (self.outputs or 0), *inner))

    @property
    def _decoder(self) -> Perceptron:
        inner = (self.width,) * (self.depth - 1)
        last = 1 if self.outputs is None else 2 * self.outputs
        return Perceptron("decoder", (self.features + self.width, *inner, last))


def cnp_space(
    *,
    width: Space | None = None,
    depth: Space | None = None,
    target: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of conditional neural processes (Garnelo et al., 2018).

    Args:
        width: of codes and layers; default `Choice(32, 64, 128)`.
        depth: layers of encoder and decoder each; default `Int(2, 4)`.
        target: default `Choice("likelihood", "task")`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        width=Choice(32, 64, 128) if width is None else width,
        depth=Int(2, 4) if depth is None else depth,
        target=Choice(*TARGETS) if target is None else target,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `cnp_space` into a learner.

    Raises:
        ValueError: as `make_embedded` does; and if there are neither classes nor values.
        TypeError: if a gene is unknown or missing.
    """
    what = "conditional neural processes"

    def head(**own: int) -> Cnp:
        features = shape_of(setting, what).numel()
        outputs = None if class_count(setting.task) is not None else _values(setting, what)
        return Cnp(features, outputs, **own)  # type: ignore[arg-type]

    return make_embedded(genes, setting, what, head, values=True)


def _values(setting: Setting, what: str) -> int:
    """Return how many values a target has."""
    drawn = setting.task.episodes("meta-train", 1, torch.Generator().manual_seed(0))
    targets = getattr(drawn.support, "targets", None)
    if not (isinstance(targets, Tensor) and targets.is_floating_point() and targets.dim() == 3):
        raise ValueError(
            f"{what} need a support set with `targets`, values of shape `(examples, outputs)`, or "
            "a task of classes, with a field `ways`"
        )
    return targets.shape[2]


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del genes, primitives
    return "y ← g(f(x), r), r = meanᵢ h(f(xᵢ), yᵢ); for classes the logit of k, rₖ the mean of k"


FAMILY = Family(
    name="cnp",
    make=_make,
    space=cnp_space,
    presets={
        "cnp": {
            "width": 128,
            "depth": 3,
            "target": "task",
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
