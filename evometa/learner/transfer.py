"""Plain transfer, the baseline beside every meta-learner: one classifier of all training classes.

Chen et al. (2019, Baseline++); Tian et al. (2020, "a good embedding is all you need?").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Embedded, Fitted, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.embedding import Embedding
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.finetuned import KINDS, Finetuned, directions
from evometa.learner.pairs import COSINE_SCALE, one_of
from evometa.learner.protocol import Meta, MetaLoss, Tensors, Traits
from evometa.learner.prototypes import Prototypes
from evometa.learner.ridge import Ridge
from evometa.network import Network, drawn
from evometa.rule import outer_space
from evometa.space import Choice, Float, Int, Primitive, Space, Struct
from evometa.task.classes import class_count
from evometa.task.protocol import IGNORED, Side

ALL = "all:"  # begins the names of the classifier's weights among what is learned
HEADS = ("mean", "ridge", "linear", "cosine")
WHAT = "transfer learners"
DRAWN = 8  # episodes whose classes are looked at before the training


@dataclass(frozen=True)
class Normalised(Head):
    """Lets another head see features whose mean square is 1 in each example.

    Attributes:
        head: the other one.
    """

    head: Head

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"{self.head.structure} normalised"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the head's numbers."""
        return self.head.init(like, generator)

    def fit(self, own: Tensors, shown: Shown) -> Any:
        """Return what the head finds."""
        return self.head.fit(own, Shown(self._seen(shown.features), shown.targets, shown.ways))

    def score(self, own: Tensors, state: Any, features: Tensor) -> Tensor:
        """Return the head's predictions."""
        return self.head.score(own, state, self._seen(features))

    def _seen(self, features: Tensor) -> Tensor:
        return directions(features) * math.sqrt(features.shape[1])


@dataclass(frozen=True)
class Transfer:
    """Trains a network to tell all classes of meta-train apart; a head learns each new task.

    Episodes are minibatches to the training: what a label stands for is in their `classes`. Its
    loss is that of the classifier, which adapting and predicting know nothing of.

    Attributes:
        network: the embedding.
        reader: adapts and predicts, with a head on this network.
        classes: of meta-train.
        features: of an example.
        cosine: whether the classifier's logits are scaled cosines.
        training: whether dropout and the like are active.
    """

    network: Network
    reader: Embedded
    classes: int
    features: int
    cosine: bool = False

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        own = self.reader.traits
        kind = "cosine" if self.cosine else "linear"
        return Traits(
            structure=f"transfer {kind} {self.classes} {own.structure}",
            outer=own.outer,
            any_ways=True,
            ways=own.ways,
        )

    def init(self, generator: torch.Generator) -> dict[str, Tensors]:
        """Return parameters and buffers of network and classifier, and the head's own numbers."""
        meta, like = self.reader.init(generator), next(iter(self.network.params.values()))
        shape = (self.features, self.classes)
        std = (2 / sum(shape)) ** 0.5  # Glorot's
        learned = {f"{ALL}weight": drawn(shape, std, like, generator)}
        if self.cosine:
            learned[f"{ALL}scale"] = like.new_tensor(COSINE_SCALE)
        else:
            learned[f"{ALL}bias"] = like.new_zeros(self.classes)
        constants = {**meta["learned"], **meta["constants"]}  # nothing of the head is trained
        return {**meta, "learned": learned, "constants": constants}

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """See how well the classifier of all classes knows the examples of both sides."""
        params, embedding = meta["params"], Embedding(self.network, self.reader.norm, True)
        one, buffers = embedding.support(params, meta["buffers"], support.inputs)
        other, after = embedding.queries(params, buffers, query.inputs)
        logits = self._logits(meta["learned"], torch.cat([one, other]))
        targets = torch.cat([_numbers(support), _numbers(query)])
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED)
        return embedding.told(loss, loss, after)

    def adapt(self, meta: Meta, support: Side) -> Fitted:
        """Return what the head learns from a support set; raises as `Embedded.adapt` does."""
        return self._reading.adapt(meta, support)

    def trajectory(self, meta: Meta, support: Side, steps: int | None = None) -> list[Fitted]:
        """Return the one thing there is: a head knows no steps."""
        return self._reading.trajectory(meta, support, steps)

    def predict(self, adapted: Fitted, inputs: Any) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        return self._reading.predict(adapted, inputs)

    @property
    def _reading(self) -> Embedded:
        return replace(self.reader, network=self.network)

    def _logits(self, learned: Tensors, features: Tensor) -> Tensor:
        """Return logits of all classes of meta-train, shape `(examples, classes)`."""
        weight = learned[f"{ALL}weight"]
        if self.cosine:
            return learned[f"{ALL}scale"] * (directions(features) @ directions(weight.T).T)
        return features @ weight + learned[f"{ALL}bias"]


def _numbers(side: Side) -> Tensor:
    """Return which class of meta-train each example is of; padding keeps its mark."""
    return torch.where(side.targets == IGNORED, IGNORED, side.classes[side.targets.clamp(min=0)])


def _check(setting: Setting, classes: int) -> None:
    """Refuse a task whose episodes do not say which of all classes they are of.

    Raises:
        ValueError: with what they lack.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWN):
        support = setting.task.episodes("meta-train", 1, generator).support
        found = getattr(support, "classes", None)
        if found is None:
            raise ValueError(
                f"{WHAT} learn all classes at once: a side of an episode must be a `ClassBatch`, "
                f"whose `classes` say what its labels stand for, got {type(support).__name__}"
            )
        if int(found.min()) < 0 or int(found.max()) >= classes:
            raise ValueError(
                f"`classes` must be numbers from 0 to {classes - 1}, as there are {classes} in "
                f"meta-train, got {int(found.min())} to {int(found.max())}"
            )


def transfer_space(
    *,
    classifier: Space | None = None,
    head: Space | None = None,
    normalise: Space | None = None,
    steps: Space | None = None,
    rate: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of plain transfer (Chen et al., 2019; Tian et al., 2020).

    Args:
        classifier: of all classes of meta-train; default `Choice("linear", "cosine")`.
        head: of a new task: `"mean"`, the nearest class mean; `"ridge"`; or a `"linear"` or
            `"cosine"` classifier, fine-tuned; default a `Choice` of all.
        normalise: whether the head sees features of equal lengths; default `Choice(True, False)`.
        steps: of the fine-tuning; default `Int(0, 200)`.
        rate: of the fine-tuning; default `Float(0.01, 10, log=True)`.
        outer: the training's optimiser; default `outer_space()`.
    """
    return Struct(
        classifier=Choice(*KINDS) if classifier is None else classifier,
        head=Choice(*HEADS) if head is None else head,
        normalise=Choice(True, False) if normalise is None else normalise,
        steps=Int(0, 200) if steps is None else steps,
        rate=Float(0.01, 10.0, log=True) if rate is None else rate,
        outer=outer_space() if outer is None else outer,
    )


def _head(
    head: str = "linear", normalise: bool = True, steps: int = 100, rate: float = 1.0
) -> Head:
    one_of("head", head, HEADS)
    one_of("normalise", normalise, (True, False))
    if head == "mean":
        return Prototypes("cosine" if normalise else "euclidean")
    found = Ridge(True) if head == "ridge" else Finetuned(head, steps, rate)
    return Normalised(found) if normalise else found


def _make(genes: Genes, setting: Setting) -> Transfer:
    """Turn a genome of `transfer_space` into a learner.

    Raises:
        ValueError: as `make_embedded` does; and if the task does not say how many classes
            meta-train has, or which its episodes are of.
        TypeError: if a gene is unknown or missing.
    """
    own = {name: gene for name, gene in genes.items() if name != "classifier"}
    reader = make_embedded(own, setting, WHAT, _head)
    classes = class_count(setting.task, "meta-train")
    if classes is None:
        raise ValueError(
            f"{WHAT} learn all classes at once: the task must say how many meta-train has, with a "
            f"method `available(split)`, and {type(setting.task).__name__} has none"
        )
    _check(setting, classes)
    kind = genes.get("classifier", "linear")
    one_of("classifier", kind, KINDS)
    features = shape_of(setting, WHAT).numel()
    return Transfer(setting.network, reader, classes, features, kind == "cosine")


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    each = f"{genes['steps']} steps of {genes['rate']:.3g} on a {genes['head']} classifier of f(x)"
    known = {"mean": "nearest class mean of f(x)", "ridge": "ridge regression on f(x)"}
    normalised = ", f normalised" if genes["normalise"] else ""
    return (
        f"f from a {genes['classifier']} classifier of all training classes; "
        f"{known.get(genes['head'], each)}{normalised}"
    )


_OUTER = {"adam": {"rate": 1e-3, "schedule": "constant"}}
FAMILY = Family(
    name="transfer",
    make=_make,
    space=transfer_space,
    presets={
        "transfer": {
            "classifier": "linear",
            "head": "linear",
            "normalise": True,
            "steps": 100,
            "rate": 1.0,
            "outer": _OUTER,
        },
        "baseline++": {
            "classifier": "cosine",
            "head": "cosine",
            "normalise": True,
            "steps": 100,
            "rate": 0.01,
            "outer": _OUTER,
        },
    },
    optional=("ways",),
    formula=_formula,
)
