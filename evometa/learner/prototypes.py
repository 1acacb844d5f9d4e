"""Prototypical networks: predict by the distance to the mean of each class (Snell et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.protocol import Examples, Learner, Loss, Meta, MetaLoss, Stage, Tensors
from evometa.network import Network, Norm
from evometa.rule import DEFAULT_OUTER, Outer, make_outer

COSINE_SCALE = 10.0  # initial value of the learned scale (Gidaris and Komodakis, 2018)
MOMENTUM = 0.1
DISTANCES = ("euclidean", "cosine")


class PrototypeSet(NamedTuple):
    """An embedding with the means of the classes of an episode.

    Attributes:
        params: the embedding's parameters.
        buffers: its buffers.
        prototypes: shape `(ways, features)`.
        scale: what similarities are multiplied with.
    """

    params: Tensors
    buffers: Tensors
    prototypes: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Prototypes:
    """Classifies by the nearest mean of the support embeddings; nothing adapts but the means.

    Attributes:
        network: the embedding; outputs of any shape are flattened.
        loss: mean loss of one episode's logits and labels.
        shots: support examples a class.
        distance: `"euclidean"`, squared, as published; or `"cosine"` with a learned scale.
        ways: classes in an episode of meta-training; more than at test, as published. None for as
            many as the task has.
        outer: how the outer loop trains it.
        norm: batch-norm protocol. `"transductive"`: support and queries by the statistics of their
            own set; `"inductive"`: both by those of the support set; `"per-step"`: when scored,
            by running averages of meta-training, as published.
        training: whether dropout and the like are active.
        mapped: whether the functions are called within `vmap`.
        classes: of the episode that is adapted to; None for as many as `shots` says. With it,
            classes may have different numbers of examples.

    Raises:
        ValueError: if an argument is none of these.
    """

    network: Network
    loss: Loss
    shots: int
    distance: str = "euclidean"
    ways: int | None = None
    outer: Outer = DEFAULT_OUTER
    norm: str = "transductive"
    training: bool = True
    mapped: bool = True
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(f"`distance` must be one of {DISTANCES}, got {self.distance!r}")

    @property
    def structure(self) -> str:
        """Text that is equal for learners which differ only in numbers."""
        return (
            f"prototypes {self.distance} ways={self.ways} shots={self.shots} "
            f"{self.outer.structure}\n{self.network.structure}\n{self.norm}"
        )

    @property
    def steps(self) -> int:
        """There are none."""
        return 0

    @property
    def kin(self) -> str:
        """The structure: nothing else may differ."""
        return self.structure

    @property
    def alone(self) -> Prototypes:
        """The learner itself."""
        return self

    def together(self, learners: Sequence[Any]) -> list[Learner]:
        """Return the learners, which are equal in structure as they are."""
        return list(learners)

    @property
    def second_order(self) -> bool:
        """Prototypes need no inner gradient."""
        return False

    def first_order(self) -> Prototypes:
        """Return itself."""
        return self

    def training_task(self, task: Any) -> Any:
        """Return the task with episodes of as many classes as the learner is trained on."""
        return task if self.ways is None else replace(task, ways=self.ways)

    def prepared(self, *, training: bool, mapped: bool) -> Prototypes:
        """Return the same learner for meta-training or scoring, mapped by `vmap` or not."""
        return replace(self, training=training, mapped=mapped)

    def at(self, progress: float) -> Stage:
        """Return itself: nothing changes along the training."""
        del progress
        return Stage("prototypes", self, {})

    def init(self) -> dict[str, Tensors]:
        """Return the embedding's parameters and buffers, and the scale of the similarities."""
        scale = torch.tensor(COSINE_SCALE if self.distance == "cosine" else 1.0)
        learned = self.distance == "cosine"
        return {
            "params": dict(self.network.params),
            "learned": {"scale": scale} if learned else {},
            "constants": {} if learned else {"scale": scale},
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta: Meta, support: Examples, query: Examples) -> MetaLoss:
        """Make the prototypes, and see how well the queries are predicted."""
        adapted, buffers = self._adapt(meta, support)
        logits, buffers = self._logits(adapted._replace(buffers=buffers), query[0])
        loss = self.loss(logits, query[1])
        names = self.network.statistics if self.norm == "per-step" and self.training else ()
        return MetaLoss(loss, loss, {name: buffers[name] for name in names})

    def adapt(self, meta: Meta, support: Examples) -> PrototypeSet:
        """Return the means of the classes."""
        return self._adapt(meta, support)[0]

    def trajectory(
        self, meta: Meta, support: Examples, steps: int | None = None
    ) -> list[PrototypeSet]:
        """Return the one thing there is: prototypes know no steps."""
        del steps
        return [self.adapt(meta, support)]

    def predict(self, adapted: PrototypeSet, inputs: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        return self._logits(adapted, inputs)[0]

    def _adapt(self, meta: Meta, support: Examples) -> tuple[PrototypeSet, Tensors]:
        inputs, targets = support
        params = meta["params"]
        norm: Norm = "record" if self.norm == "inductive" else self._query_norm
        features, buffers = self._embed(params, meta["buffers"], inputs, norm)
        ways = self.classes or len(inputs) // self.shots
        labels = torch.arange(ways, device=targets.device)
        members = (targets == labels.unsqueeze(1)).to(features.dtype)  # (ways, examples)
        prototypes = members @ features / members.sum(1, keepdim=True)
        scale = {**meta["learned"], **meta["constants"]}["scale"]
        return PrototypeSet(params, buffers, prototypes, scale), buffers

    @property
    def _query_norm(self) -> Norm:
        if self.norm == "inductive":
            return "stored"
        if self.norm == "per-step":
            return "record" if self.training else "stored"
        return "batch"

    def _logits(self, adapted: PrototypeSet, inputs: Tensor) -> tuple[Tensor, Tensors]:
        params, buffers, prototypes, scale = adapted
        features, buffers = self._embed(params, buffers, inputs, self._query_norm)
        if self.distance == "cosine":
            similar = F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).T
        else:
            similar = -(features.unsqueeze(1) - prototypes).square().sum(-1)
        return scale * similar, buffers

    def _embed(
        self, params: Tensors, buffers: Tensors, inputs: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensors]:
        outputs, seen = self.network(
            params, buffers, inputs, norm=norm, training=self.training, mapped=self.mapped
        )
        if self.norm == "per-step" and norm == "record":
            moved = {
                name: torch.lerp(
                    buffers[name], seen[name].detach().to(buffers[name].dtype), MOMENTUM
                )
                for name in self.network.statistics
            }
            seen = {**buffers, **moved}
        return outputs.flatten(1), seen


def make_prototypes(
    genome: Mapping[str, Any], network: Network, task: Any, norm: str, own: Sequence[Any] = ()
) -> Prototypes:
    """Turn a genome of `prototype_space` into a learner.

    Raises:
        ValueError: if the task has no classes.
        TypeError: if a gene is unknown.
    """
    if not hasattr(task, "ways") or not hasattr(task, "shots"):
        raise ValueError(f"prototypes need a task of classes, and {type(task).__name__} has none")
    del own  # nothing is written as an expression here
    outer = make_outer(genome["outer"]) if "outer" in genome else DEFAULT_OUTER
    return Prototypes(network, task.loss, task.shots, norm=norm, **{**genome, "outer": outer})
