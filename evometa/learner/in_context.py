"""Learning in context: a small transformer over examples and their labels.

In kind as SNAIL (Mishra et al., 2018), GPICL (Kirsch et al., 2022) and CAML (Fifty et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import ABSENT, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.perceptron import Perceptron
from evometa.learner.protocol import Tensors
from evometa.network import drawn
from evometa.rule import outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct

SCALE = 10.0  # initial one of the logits
AGREEMENT = 1.0  # initial strength by which examples of one class see each other


class Layer(NamedTuple):
    """The support set as a layer's attention sees it.

    Attributes:
        keys: shape `(heads, examples, width / heads)`.
        values: likewise.
        codes: of the labels, shape `(examples, ways)`.
    """

    keys: Tensor
    values: Tensor
    codes: Tensor


class Context(NamedTuple):
    """A support set that queries may look at.

    Attributes:
        layers: what there is to be seen in each.
        real: which examples are no padding, bool of shape `(examples,)`.
    """

    layers: tuple[Layer, ...]
    real: Tensor


@dataclass(frozen=True)
class InContext(Head):
    """Lets the support set see itself, and each query the support set, through a few layers.

    A token is an example's content beside a code of its label; a query begins with the code 0. Each
    pre-norm layer moves the content by attention and a perceptron, and the code by the same
    attention. The logit of a class is the inner product of the query's last code with the class's.

    Codes are those of random orthonormal label vectors, without drawing any: layers act on codes as
    all maps do that commute with every rotation of them, by a number each, and see them by inner
    products alone, so that whichever orthonormal vectors were drawn, the result would be the same.
    Hence nothing is random; permuting the classes permutes the logits, exactly; there may be any
    number of classes; and the order of the support set does not matter.

    Attributes:
        features: of an example.
        width: of a token's content.
        heads: of the attention.
        depth: layers.

    Raises:
        ValueError: if an argument has no such value.
    """

    features: int
    width: int = 64
    heads: int = 4
    depth: int = 2

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"`{each.name}` must be a whole number from 1, got {value!r}")
        if self.width % self.heads:
            raise ValueError(
                f"`heads` must divide `width`, got {self.heads} heads and the width {self.width}"
            )

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"in-context {self.width} {self.heads} heads {self.depth} layers"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights.

        Queries and keys begin with the same map, so that what is alike is seen from the start.
        """
        width, heads = self.width, self.heads
        params = {"embed": drawn((self.features, width), self.features**-0.5, like, generator)}
        for layer in range(self.depth):
            alike = drawn((width, width), width**-0.5, like, generator)
            params |= {
                f"{layer}.query": alike,
                f"{layer}.key": alike.clone(),
                f"{layer}.value": drawn((width, width), width**-0.5, like, generator),
                f"{layer}.out": drawn((width, width), width**-0.5, like, generator),
                f"{layer}.agreement": like.new_full((heads,), AGREEMENT),
                f"{layer}.code": like.new_full((heads,), 1 / heads),
                **self._perceptron(layer).init(like, generator),
            }
        return Own(params, {"scale": like.new_tensor(SCALE)}, {})

    def fit(self, own: Tensors, shown: Shown) -> Context:
        """Let the support set see itself."""
        content, codes, layers = shown.features @ own["embed"], shown.one_hot, []
        for layer in range(self.depth):
            seen = self._seen(own, layer, content, codes)
            layers.append(seen)
            content, codes = self._step(own, layer, content, codes, seen, shown.real)
        return Context(tuple(layers), shown.real)

    def score(self, own: Tensors, state: Context, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        content = features @ own["embed"]
        codes = torch.zeros_like(content[:, :1] * state.layers[0].codes[0])
        for layer, seen in enumerate(state.layers):
            content, codes = self._step(own, layer, content, codes, seen, state.real)
        return own["scale"] * codes

    def _seen(self, own: Tensors, layer: int, content: Tensor, codes: Tensor) -> Layer:
        normed = _norm(content)
        keys, values = (self._heads(normed @ own[f"{layer}.{name}"]) for name in ("key", "value"))
        return Layer(keys, values, codes)

    def _step(
        self, own: Tensors, layer: int, content: Tensor, codes: Tensor, seen: Layer, real: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return content, `(tokens, width)`, and codes, `(tokens, ways)`, after a layer."""
        queries = self._heads(_norm(content) @ own[f"{layer}.query"])
        alike = queries @ seen.keys.mT / (self.width / self.heads) ** 0.5
        agreed = own[f"{layer}.agreement"].view(-1, 1, 1) * (codes @ seen.codes.T)
        weights = torch.where(real, alike + agreed, ABSENT).softmax(-1)  # (heads, tokens, examples)
        read = (weights @ seen.values).movedim(0, 1).flatten(1)
        content = content + read @ own[f"{layer}.out"]
        content = content + self._perceptron(layer)(own, _norm(content))
        shares = (own[f"{layer}.code"].view(-1, 1, 1) * weights).sum(0)
        return content, codes + shares @ seen.codes

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(rows.shape[0], self.heads, -1).movedim(1, 0)

    def _perceptron(self, layer: int) -> Perceptron:
        return Perceptron(f"{layer}.perceptron", (self.width, 2 * self.width, self.width))


def _norm(content: Tensor) -> Tensor:
    """Return content of mean 0 and variance 1; a map always follows that has its own scales."""
    return F.layer_norm(content, content.shape[-1:])


def in_context_space(
    *,
    width: Space | None = None,
    heads: Space | None = None,
    depth: Space | None = None,
    ways: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of in-context learners.

    Args:
        width: of a token's content; default `Choice(32, 64, 128)`.
        heads: of the attention; default `Choice(1, 2, 4, 8)`.
        depth: layers; default `Int(1, 4)`.
        ways: classes in an episode of meta-training; default `Int(5, 20, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        width=Choice(32, 64, 128) if width is None else width,
        heads=Choice(1, 2, 4, 8) if heads is None else heads,
        depth=Int(1, 4) if depth is None else depth,
        ways=Int(5, 20, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `in_context_space` into a learner; raises as `make_embedded` does."""
    what = "in-context learners"

    def head(**own: int) -> InContext:
        return InContext(shape_of(setting, what).numel(), **own)

    return make_embedded(genes, setting, what, head)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    depth, heads = genes["depth"], genes["heads"]
    return f"class ← argmaxₖ T(f(x); (f(xᵢ), e(yᵢ))ᵢ)·e(k), T {depth} layers of {heads} heads"


FAMILY = Family(
    name="in_context",
    make=_make,
    space=in_context_space,
    presets={
        "in-context": {
            "width": 64,
            "heads": 4,
            "depth": 2,
            "ways": 20,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
