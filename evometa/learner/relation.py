"""Relation networks: a network of the learner's own compares (Sung et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import one_of
from evometa.learner.protocol import Tensors
from evometa.network import drawn
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct
from evometa.task.protocol import IGNORED

HIDDEN = 8  # units before the score, as published
LOSSES = ("squared", "task")


@dataclass(frozen=True)
class Relation(Head):
    """Scores how a query is related to the sum of each class's support examples.

    Where the network returns maps, `(examples, channels, height, width)`, those of query and class
    are joined by channels and pass two blocks of convolution, norm, ReLU and pooling; where it
    returns vectors, one linear layer and ReLU. Two linear layers follow. Published blocks have
    batch norm; here each pair is normalised by itself (group norm of one group), so that no query
    sees another.

    Attributes:
        shape: of an example's features, `(channels, height, width)` or `(features,)`.
        width: channels or units of the relation module.
        target: what the outer loop makes small: `"squared"`, the squared error of scores between 0
            and 1, as published; or `"task"`, the task's cross-entropy.

    Raises:
        ValueError: if an argument is none of these.
    """

    shape: tuple[int, ...]
    width: int = 64
    target: str = "squared"

    def __post_init__(self) -> None:
        one_of("target", self.target, LOSSES)
        if not (isinstance(self.width, int) and self.width >= 1):
            raise ValueError(f"`width >= 1` must hold, got {self.width!r}")
        if len(self.shape) not in (1, 3):
            raise ValueError(
                "relation networks need features of shape (channels, height, width) or (features,) "
                f"an example, got {self.shape}"
            )

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"relation {self.shape} {self.width} {self.target}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights of the relation module."""
        (inputs, *sides), width = self.shape, self.width
        field = 9 if sides else 1
        kernel = (3, 3) if sides else ()
        params = {
            name: drawn((width, inputs, *kernel), (field * inputs) ** -0.5, like, generator)
            for name in ("class", "query")
        }
        last = width
        if sides:
            params["second"] = drawn(
                (width, width, *kernel), (2 / (field * width)) ** 0.5, like, generator
            )
            last = width * _halved(_halved(sides[0])) * _halved(_halved(sides[1]))
            for norm in ("first", "second"):
                params[f"{norm}.weight"] = like.new_ones(width, 1, 1)
                params[f"{norm}.bias"] = like.new_zeros(width, 1, 1)
        else:
            params["first.bias"] = like.new_zeros(width)
        params["hidden"] = drawn((last, HIDDEN), (2 / last) ** 0.5, like, generator)
        params["out"] = drawn((HIDDEN,), HIDDEN**-0.5, like, generator)
        biases = {"hidden.bias": like.new_zeros(HIDDEN), "out.bias": like.new_zeros(())}
        return Own({**params, **biases}, {}, {})

    def fit(self, own: Tensors, shown: Shown) -> Tensor:
        """Return the sums of the classes as the first layer sees them, `(ways, width, *sides)`."""
        return self._seen(own["class"], shown.members @ shown.features)

    def score(self, own: Tensors, state: Tensor, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`; their sigmoids are the published scores."""
        # a layer of joined inputs is the sum of a layer of each, which needs no pairs
        joined = self._seen(own["query"], features).unsqueeze(1) + state
        pairs = joined.flatten(0, 1)
        if len(self.shape) == 1:
            inner = F.relu(pairs + own["first.bias"])
        else:
            inner = F.conv2d(_block(own, "first", pairs), own["second"], padding=1)
            inner = _block(own, "second", inner).flatten(1)
        inner = F.relu(inner @ own["hidden"] + own["hidden.bias"])
        return (inner @ own["out"] + own["out.bias"]).view(joined.shape[:2])

    def objective(self, own: Tensors, state: Tensor, asked: Asked, loss: Tensor) -> Tensor:
        """Return the squared error of the scores, or the task's loss."""
        if self.target == "task":
            return loss
        errors = (asked.outputs.sigmoid() - asked.one_hot).square().mean(1)
        real = (asked.targets != IGNORED).to(errors.dtype)
        return (errors * real).sum() / real.sum()

    def _seen(self, weight: Tensor, features: Tensor) -> Tensor:
        if len(self.shape) == 1:
            return features @ weight.T
        return F.conv2d(features.view(-1, *self.shape), weight, padding=1)


def _block(own: Tensors, norm: str, maps: Tensor) -> Tensor:
    """Normalise each example's maps, cut off what is negative, and halve the sides."""
    maps = F.group_norm(maps, 1) * own[f"{norm}.weight"] + own[f"{norm}.bias"]
    return F.max_pool2d(F.relu(maps), 2, ceil_mode=True)


def _halved(side: int) -> int:
    return (side + 1) // 2


def relation_space(
    *,
    width: Space | None = None,
    target: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of relation networks (Sung et al., 2018).

    Args:
        width: of the relation module; default `Choice(16, 32, 64)`.
        target: default `Choice("squared", "task")`.
        ways: classes in an episode of meta-training; default `Int(5, 20, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        width=Choice(16, 32, 64) if width is None else width,
        target=Choice(*LOSSES) if target is None else target,
        ways=Int(5, 20, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `relation_space` into a learner; raises as `make_embedded` does."""
    what = "relation networks"

    def head(**own: int) -> Relation:
        return Relation(tuple(shape_of(setting, what)), **own)  # type: ignore[arg-type]

    return make_embedded(genes, setting, what, head)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    return "class ← argmaxₖ r(f(x), Σ f over the examples of class k), r learned"


FAMILY = Family(
    name="relation",
    make=_make,
    space=relation_space,
    presets={
        "relation": {
            "width": 64,
            "target": "squared",
            "ways": 5,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
