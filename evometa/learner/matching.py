"""Matching networks: predict by attention over the support set (Vinyals et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from evometa.learner.embedded import ABSENT, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import SCALES, one_of, pooled, scale_of, similarity
from evometa.learner.protocol import Tensors
from evometa.learner.set_to_set import SetToSet
from evometa.network import cell_weights, lstm
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

DISTANCES = ("euclidean", "cosine")
CONTEXTS = ("none", "fce", "set")


class Keys(NamedTuple):
    """A support set to be compared with.

    Attributes:
        keys: embedded in its context, shape `(examples, features)`.
        members: which examples belong to which class, shape `(ways, examples)`.
    """

    keys: Tensor
    members: Tensor


@dataclass(frozen=True)
class Matching(Head):
    """Classifies by the labels of the support examples, each weighed by its attention.

    The outputs are the logarithms of the mixture's probabilities: the task's cross-entropy of them
    is the published loss.

    Attributes:
        features: of an example; needed with a context alone.
        distance: `"euclidean"`, squared, which trains well; or `"cosine"`, as published.
        scale: whether what similarities are multiplied with is learned; see `scale_of`.
        context: `"none"`; `"fce"`, the published full conditional embedding: a bidirectional LSTM
            over the support set, whose order then matters, and an attention LSTM over the query;
            `"set"`, self-attention over the support set, whose order does not matter.
        steps: of the attention LSTM.

    Raises:
        ValueError: if an argument is none of these.
    """

    features: int = 0
    distance: str = "euclidean"
    scale: str | None = None
    context: str = "none"
    steps: int = 5

    def __post_init__(self) -> None:
        one_of("distance", self.distance, DISTANCES)
        one_of("scale", self.scale, (None, *SCALES))
        one_of("context", self.context, CONTEXTS)
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"`steps >= 1` must hold, got {self.steps!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        steps = f" {self.steps}" if self.context == "fce" else ""
        return f"matching {self.distance} {self.scale} {self.context}{steps}"

    @property
    def ordered(self) -> bool:
        """Whether it reads the support set in turn."""
        return self.context == "fce"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights of the context, and the scale of the similarities."""
        size, params = self.features, dict[str, Tensor]()
        if self.context == "set":
            params = SetToSet(size).init(like, generator)
        if self.context == "fce":
            cells = {
                "forward": cell_weights(4, size, size, size, like, generator),
                "backward": cell_weights(4, size, size, size, like, generator),
                "query": cell_weights(4, size, 2 * size, size, like, generator),
            }
            params = {f"{cell}.{k}": v for cell, each in cells.items() for k, v in each.items()}
        return scale_of(self.scale, self.distance, like)._replace(params=params)

    def fit(self, own: Tensors, shown: Shown) -> Keys:
        """Embed the support set in its context."""
        keys = shown.features
        if self.context == "set":
            keys = SetToSet(self.features)(own, keys, shown.real)
        if self.context == "fce":
            ahead = _walk(_cell(own, "forward"), keys, shown.real, range(len(keys)))
            back = _walk(_cell(own, "backward"), keys, shown.real, range(len(keys))[::-1])
            keys = keys + ahead + back
        return Keys(keys, shown.members)

    def score(self, own: Tensors, state: Keys, features: Tensor) -> Tensor:
        """Return log probabilities of shape `(queries, ways)`."""
        if self.context == "fce":
            features = self._attending(own, state, features)
        scores = own["scale"] * similarity(self.distance, features, state.keys)
        return pooled(scores, state.members, "logsumexp").log_softmax(-1)

    def _attending(self, own: Tensors, state: Keys, features: Tensor) -> Tensor:
        """Return the queries after they have read the support set a few times."""
        cell, real = _cell(own, "query"), state.members.sum(0) > 0
        output = inner = torch.zeros_like(features)
        for _ in range(self.steps):
            weights = torch.where(real, output @ state.keys.T, ABSENT).softmax(-1)
            memory = torch.cat([output, weights @ state.keys], -1)
            hidden, inner = lstm(cell, features, memory, inner)
            output = hidden + features
        return output


def _walk(cell: Tensors, rows: Tensor, real: Tensor, order: Sequence[int]) -> Tensor:
    """Return the outputs of an LSTM on its way through a set; padding changes nothing."""
    output = inner = torch.zeros_like(rows[0])
    outputs = {}
    for place in order:
        after = lstm(cell, rows[place], output, inner)
        output = torch.where(real[place], after[0], output)
        inner = torch.where(real[place], after[1], inner)
        outputs[place] = output
    return torch.stack([outputs[place] for place in range(len(rows))])


def _cell(own: Tensors, name: str) -> Tensors:
    return {part: own[f"{name}.{part}"] for part in ("inputs", "memory", "bias")}


def matching_space(
    *,
    distance: Space | None = None,
    scale: Space | None = None,
    context: Space | None = None,
    steps: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of matching networks (Vinyals et al., 2016).

    Args:
        distance: default `Choice("euclidean", "cosine")`.
        scale: of the similarities; default `Choice("learned", "fixed")`.
        context: default `Choice("none", "fce", "set")`.
        steps: of the attention LSTM; default `Int(1, 10)`.
        ways: classes in an episode of meta-training; default `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        distance=Choice(*DISTANCES) if distance is None else distance,
        scale=Choice(*SCALES) if scale is None else scale,
        context=Choice(*CONTEXTS) if context is None else context,
        steps=Int(1, 10) if steps is None else steps,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `matching_space` into a learner; raises as `make_embedded` does."""
    what = "matching networks"
    context = genes.get("context", "none") != "none"
    features = shape_of(setting, what).numel() if context else 0
    return make_embedded(genes, setting, what, lambda **own: Matching(features, **own))


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    context = genes.get("context", "none")
    known = {"none": "", "fce": ", f and g conditional (LSTM)", "set": ", g by self-attention"}
    like = "cos(f(x), g(xᵢ))" if genes["distance"] == "cosine" else "-‖f(x) - g(xᵢ)‖²"
    return f"p(y) = Σᵢ softmaxᵢ(τ·{like})·[yᵢ = y]{known[context]}"


_GENES = {"distance": "euclidean", "scale": "fixed", "context": "none", "steps": 5, "ways": 20}
_OUTER = {"adam": {"rate": 1e-3, "schedule": "constant"}}
FAMILY = Family(
    name="matching",
    make=_make,
    space=matching_space,
    presets={
        "matching": {**_GENES, "outer": _OUTER},
        "matching-fce": {**_GENES, "context": "fce", "outer": _OUTER},
    },
    formula=_formula,
)
