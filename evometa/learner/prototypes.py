"""Prototypical networks: predict by the distance to the mean of each class (Snell et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedding import Embedding, is_embedding
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Loss, Meta, MetaLoss, Tensors, Traits
from evometa.network import Network
from evometa.rule import DEFAULT_OUTER, Outer, make_outer, outer_space
from evometa.space import Choice, Int, Primitive, Space, Struct
from evometa.task.classes import class_count, ways_of
from evometa.task.protocol import Predict, Side

COSINE_SCALE = 10.0  # initial value of the learned scale (Gidaris and Komodakis, 2018)
ABSENT = -1e9  # logit of a class without an example: it is never the likeliest
DISTANCES = {
    "euclidean": "class ← argminₖ ‖f(x) - cₖ‖², cₖ the mean of f over the examples of class k",
    "cosine": "class ← argmaxₖ cos(f(x), cₖ), cₖ the mean of f over the examples of class k",
}


class PrototypeSet(NamedTuple):
    """An embedding with the means of the classes of an episode.

    Attributes:
        params: the embedding's parameters.
        buffers: its buffers.
        prototypes: shape `(ways, features)`.
        counts: examples of each class, shape `(ways,)`.
        scale: what similarities are multiplied with.
    """

    params: Tensors
    buffers: Tensors
    prototypes: Tensor
    counts: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Prototypes:
    """Classifies by the nearest mean of the support embeddings; nothing adapts but the means.

    Classes may have different numbers of examples; one that has none is never predicted.

    Attributes:
        network: the embedding; outputs of any shape are flattened.
        loss: mean loss of a learner on one side of one episode.
        most: classes in an episode whose side does not say how many it has.
        distance: `"euclidean"`, squared, as published; or `"cosine"` with a learned scale.
        ways: classes in an episode of meta-training; more than at test, as published. None for as
            many as the task has.
        outer: how the outer loop trains it.
        norm: batch-norm protocol; see `Embedding`.
        training: whether dropout and the like are active.

    Raises:
        ValueError: if an argument is none of these.
    """

    network: Network
    loss: Loss
    most: int | None
    distance: str = "euclidean"
    ways: int | None = None
    outer: Outer = DEFAULT_OUTER
    norm: str = "inductive"
    training: bool = False

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"`distance` must be one of {[*DISTANCES]}, got {self.distance!r}")

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        return Traits(
            structure=(
                f"prototypes {self.distance} ways={self.ways} {self.outer.structure}\n"
                f"{self.network.structure}\n{self.norm}"
            ),
            outer=self.outer,
            any_ways=True,
            ways=self.ways,
        )

    def init(self, generator: torch.Generator) -> dict[str, Tensors]:
        """Return the embedding's parameters and buffers, and the scale of the similarities."""
        del generator
        scale = torch.tensor(COSINE_SCALE if self.distance == "cosine" else 1.0)
        learned = self.distance == "cosine"
        return {
            "params": dict(self.network.params),
            "learned": {"scale": scale} if learned else {},
            "constants": {} if learned else {"scale": scale},
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Make the prototypes, and see how well the queries are predicted."""
        trained = replace(self, training=True, most=self.ways or self.most)
        predict, seen = trained._watched(trained.adapt(meta, support))
        return trained._embedding.told(self.loss(predict, query), seen[-1])

    def adapt(self, meta: Meta, support: Side) -> PrototypeSet:
        """Return the means of the classes."""
        params, targets = meta["params"], support.targets
        features, buffers = self._embedding.support(params, meta["buffers"], support.inputs)
        labels = torch.arange(ways_of(support, self.most), device=targets.device)
        members = (targets == labels.unsqueeze(1)).to(features.dtype)  # (ways, examples)
        counts = members.sum(1)
        prototypes = members @ features / counts.clamp(min=1).unsqueeze(1)
        scale = {**meta["learned"], **meta["constants"]}["scale"]
        return PrototypeSet(params, buffers, prototypes, counts, scale)

    def trajectory(self, meta: Meta, support: Side, steps: int | None = None) -> list[PrototypeSet]:
        """Return the one thing there is: prototypes know no steps."""
        del steps
        return [self.adapt(meta, support)]

    def predict(self, adapted: PrototypeSet, inputs: Any) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        return self._watched(adapted)[0](inputs)  # type: ignore[no-any-return]

    @property
    def _embedding(self) -> Embedding:
        return Embedding(self.network, self.norm, self.training)

    def _watched(self, adapted: PrototypeSet) -> tuple[Predict, list[Tensors]]:
        """Return the prototypes as a function of inputs, and the buffers before and after."""
        params, buffers, prototypes, counts, scale = adapted
        seen = [buffers]

        def predict(inputs: Any) -> Tensor:
            features, after = self._embedding.queries(params, seen[-1], inputs)
            seen.append(after)
            if self.distance == "cosine":
                similar = F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).T
            else:
                similar = -(features.unsqueeze(1) - prototypes).square().sum(-1)
            return torch.where(counts > 0, scale * similar, ABSENT)

        return predict, seen


def prototype_space(
    *, distance: Space | None = None, ways: Space | None = None, outer: Space | None = None
) -> Struct:
    """Return the space of prototypical networks (Snell et al., 2017).

    Join it with gradient rules as `Choice(prototypes=prototype_space(), gradient=rule_space())`.

    Args:
        distance: default `Choice("euclidean", "cosine")`.
        ways: classes in an episode of meta-training, at most as many as meta-train has; default
            `Int(5, 60, step=5)`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        distance=Choice(*DISTANCES) if distance is None else distance,
        ways=Int(5, 60, step=5) if ways is None else ways,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Prototypes:
    """Turn a genome of `prototype_space` into a learner.

    Raises:
        ValueError: if the task has no classes.
        TypeError: if a gene is unknown.
    """
    task = setting.task
    if class_count(task) is None:
        raise ValueError(
            f"prototypes need a task of classes, with a field `ways`, and {type(task).__name__} "
            "has none"
        )
    is_embedding(setting.outputs, "prototypes")
    outer = make_outer(genes["outer"]) if "outer" in genes else DEFAULT_OUTER
    ways = genes.get("ways")
    there = class_count(task, "meta-train")
    if ways is not None and there is not None:
        ways = min(ways, there)
    known = {**genes, "outer": outer, "ways": ways}
    return Prototypes(setting.network, task.loss, class_count(task), norm=setting.norm, **known)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    return DISTANCES[genes["distance"]]


PROTOTYPES = Family(
    name="prototypes",
    make=_make,
    space=prototype_space,
    presets={
        "protonet": {
            "distance": "euclidean",
            "ways": 60,
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    formula=_formula,
)
