"""Relation networks: a network of the learner's own compares (Sung et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

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
EPSILON = 1e-5  # of batch norm, as PyTorch's own
Moments: TypeAlias = tuple[Tensor, Tensor]


class Classes(NamedTuple):
    """A support set to be compared with.

    Attributes:
        sums: of the classes as the first layer sees them, shape `(ways, width, *sides)`.
        statistics: mean and variance of each block's channels; none for vectors.
    """

    sums: Tensor
    statistics: list[Moments]


@dataclass(frozen=True)
class Relation(Head):
    """Scores how a query is related to the sum of each class's support examples.

    Where the network returns maps, `(examples, channels, height, width)`, those of query and class
    are joined by channels and pass two blocks of convolution, batch norm, ReLU and pooling; where
    it returns vectors, one linear layer and ReLU. Two linear layers follow. Batch norm takes the
    statistics of all pairs of a support example and a class, so that no query sees another. At
    first the module sees the difference of query and class, which learns sooner than weights that
    are drawn for each.

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
        first = drawn((width, inputs, *kernel), (field * inputs) ** -0.5, like, generator)
        params = {"class": -first, "query": first}
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

    def fit(self, own: Tensors, shown: Shown) -> Classes:
        """Return the sums of the classes as the first layer sees them, and how pairs are normed."""
        members = shown.members
        sums = self._seen(own["class"], members @ shown.features)
        if len(self.shape) == 1:
            return Classes(sums, [])
        real = (shown.real.unsqueeze(1) & (members.sum(1) > 0)).flatten().to(sums.dtype)
        statistics: list[Moments] = []
        self._related(own, self._joined(own, shown.features, sums).flatten(0, 1), statistics, real)
        return Classes(sums, statistics)

    def score(self, own: Tensors, state: Classes, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`; their sigmoids are the published scores."""
        joined = self._joined(own, features, state.sums)
        pairs = joined.flatten(0, 1)
        if len(self.shape) == 1:
            inner = F.relu(pairs + own["first.bias"])
        else:
            inner = self._related(own, pairs, state.statistics)
        inner = F.relu(inner @ own["hidden"] + own["hidden.bias"])
        return (inner @ own["out"] + own["out.bias"]).view(joined.shape[:2])

    def objective(self, own: Tensors, state: Tensor, asked: Asked, loss: Tensor) -> Tensor:
        """Return the squared error of the scores, or the task's loss."""
        if self.target == "task":
            return loss
        errors = (asked.outputs.sigmoid() - asked.one_hot).square().mean(1)
        real = (asked.targets != IGNORED).to(errors.dtype)
        return (errors * real).sum() / real.sum()

    def _joined(self, own: Tensors, features: Tensor, sums: Tensor) -> Tensor:
        """Return what the first layer makes of each pair, `(examples, ways, width, *sides)`.

        A layer of joined inputs is the sum of a layer of each: it needs no pairs.
        """
        return self._seen(own["query"], features).unsqueeze(1) + sums

    def _related(
        self, own: Tensors, maps: Tensor, statistics: list[Moments], real: Tensor | None = None
    ) -> Tensor:
        """Return what the blocks make of pairs, `(pairs, width, *sides)`, flattened.

        Args:
            own: weights.
            maps: what the first convolution has made of them.
            statistics: of each block; filled if it is empty.
            real: which pairs count then, 0 or 1, shape `(pairs,)`.
        """
        known = list(statistics)
        for place, name in enumerate(("first", "second")):
            if place:
                maps = F.conv2d(maps, own[name], padding=1)
            if not known:
                assert real is not None
                statistics.append(_moments(maps, real))
            mean, variance = statistics[place]
            scale = own[f"{name}.weight"] * (variance + EPSILON).rsqrt()
            maps = F.relu((maps - mean) * scale + own[f"{name}.bias"])
            maps = F.max_pool2d(maps, 2, ceil_mode=True)
        return maps.flatten(1)

    def _seen(self, weight: Tensor, features: Tensor) -> Tensor:
        if len(self.shape) == 1:
            return features @ weight.T
        return F.conv2d(features.view(-1, *self.shape), weight, padding=1)


def _moments(maps: Tensor, real: Tensor) -> Moments:
    """Return mean and variance of each channel of those pairs that count, `(width, 1, 1)`."""
    weights = (real / real.sum()).view(-1, 1, 1, 1)
    mean = (weights * maps).sum(0).mean((1, 2), keepdim=True)
    return mean, (weights * (maps - mean).square()).sum(0).mean((1, 2), keepdim=True)


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
