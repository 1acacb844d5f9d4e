"""Learners that embed all examples by one network, and read predictions off with a head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from evometa.learner.embedding import Embedding, is_embedding
from evometa.learner.family import Genes, Setting
from evometa.learner.order import shuffled
from evometa.learner.protocol import Loss, Meta, MetaLoss, Tensors, Traits
from evometa.network import Network
from evometa.rule import DEFAULT_OUTER, Outer, make_outer
from evometa.task.classes import class_count, labels_of, ways_of
from evometa.task.protocol import IGNORED, Predict, Side
from evometa.task.sampler import Range, bounds_of

ABSENT = -1e9  # logit of a class without an example: it is never the likeliest
OWN = "head:"  # begins the names of a head's weights among the parameters


class Own(NamedTuple):
    """A head's numbers by name, before any training.

    Attributes:
        params: its weights, and
        learned: its other numbers that the outer loop trains.
        constants: those that stay.
    """

    params: Tensors
    learned: Tensors
    constants: Tensors


@dataclass(frozen=True)
class Shown:
    """A support set as a head sees it.

    Attributes:
        features: shape `(examples, features)`.
        targets: labels, shape `(examples,)`, of which `IGNORED` marks padding; or values, shape
            `(examples, outputs)`.
        ways: classes in the episode; None where targets are values.
    """

    features: Tensor
    targets: Tensor
    ways: int | None

    @property
    def real(self) -> Tensor:
        """Which examples are no padding, bool of shape `(examples,)`."""
        if self.ways is None:
            return torch.ones_like(self.features[:, 0], dtype=torch.bool)
        return self.targets != IGNORED

    @property
    def members(self) -> Tensor:
        """Which examples belong to which class, 0 or 1, shape `(ways, examples)`."""
        return (self.targets == self._labels.unsqueeze(1)).to(self.features.dtype)

    @property
    def one_hot(self) -> Tensor:
        """The labels as vectors, shape `(examples, ways)`; zeros for padding."""
        return (self.targets.unsqueeze(1) == self._labels).to(self.features.dtype)

    @property
    def _labels(self) -> Tensor:
        assert self.ways is not None, "values have no classes"
        return torch.arange(self.ways, device=self.targets.device)


class Asked(NamedTuple):
    """The queries of an episode of meta-training as a head sees them.

    Attributes:
        features: shape `(queries, features)`.
        outputs: what the head has predicted.
        targets: labels, of which `IGNORED` marks padding; or values.
    """

    features: Tensor
    outputs: Tensor
    targets: Tensor

    @property
    def one_hot(self) -> Tensor:
        """The labels as vectors, shape `(queries, ways)`; zeros for padding."""
        labels = torch.arange(self.outputs.shape[1], device=self.targets.device)
        return (self.targets.unsqueeze(1) == labels).to(self.outputs.dtype)


class Head(Protocol):
    """How labelled features become predictions: a frozen dataclass of pure functions of values.

    It computes in float32 at least, whatever the precision of the network.

    Numbers in which candidates of equal structure may differ come in through `own`: the weights,
    learned numbers and constants of `init` by their names.
    """

    @property
    def structure(self) -> str:
        """Text that is equal for heads which differ only in numbers."""
        ...

    @property
    def most(self) -> int | None:
        """Classes that it can tell apart; None for any number."""
        return None

    @property
    def ordered(self) -> bool:
        """Whether the order of a support set matters.

        It is then read in the order of a hash of its inputs, which says nothing of the labels, in
        training and later: what comes sorted by label gives what any other order gives.
        """
        return False

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the head's numbers before any training, none by default.

        Args:
            like: a parameter of the network; gives type and device.
            generator: draws what is random.
        """
        del like, generator
        return Own({}, {}, {})

    def fit(self, own: Tensors, shown: Shown) -> Any:
        """Return what is to be known of a support set, a pytree of tensors."""
        ...

    def score(self, own: Tensors, state: Any, features: Tensor) -> Tensor:
        """Predict new examples, none of which may see another.

        Args:
            own: the head's numbers.
            state: of `fit`.
            features: shape `(queries, features)`.

        Returns:
            Logits of shape `(queries, ways)`, or values of shape `(queries, outputs)`.
        """
        ...

    def objective(self, own: Tensors, state: Any, asked: Asked, loss: Tensor) -> Tensor:
        """Return what meta-training makes small, by default the task's loss.

        Args:
            own: the head's numbers.
            state: of `fit`.
            asked: the queries.
            loss: the task's loss on the queries, a scalar.
        """
        del own, state, asked
        return loss


class Fitted(NamedTuple):
    """An embedding, and what its head knows of an episode.

    Attributes:
        params: the embedding's parameters.
        buffers: its buffers.
        own: the head's numbers by name.
        state: what the head has found.
        present: which classes have an example, bool of shape `(ways,)`; a true scalar for values.
    """

    params: Tensors
    buffers: Tensors
    own: Tensors
    state: Any
    present: Tensor


@dataclass(frozen=True)
class Embedded:
    """Embeds all examples and lets a head learn from the support's; no weight of either adapts.

    Classes may have different numbers of examples; one that has none is never predicted.

    Attributes:
        network: the embedding; outputs of any shape are flattened.
        head: how labelled features become predictions.
        loss: mean loss of a learner on one side of one episode.
        most: classes in an episode whose side does not say how many it has; None for values.
        ways: classes in an episode of meta-training, or a pair of least and most. None for as many
            as the task has.
        outer: how the outer loop trains it.
        norm: batch-norm protocol; see `Embedding`.
        training: whether dropout and the like are active.
    """

    network: Network
    head: Head
    loss: Loss
    most: int | None
    ways: Range | None = None
    outer: Outer = DEFAULT_OUTER
    norm: str = "inductive"
    training: bool = False

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        return Traits(
            structure=(
                f"{self.head.structure} ways={self.ways} {self.outer.structure}\n"
                f"{self.network.structure}\n{self.norm}"
            ),
            outer=self.outer,
            any_ways=self.head.most is None,
            ways=self.ways,
        )

    def init(self, generator: torch.Generator) -> dict[str, Tensors]:
        """Return parameters and buffers of the embedding, and the head's own numbers."""
        own = self.head.init(next(iter(self.network.params.values())), generator)
        weights = {OWN + name: value for name, value in own.params.items()}
        return {
            "params": {**self.network.params, **weights},
            "learned": dict(own.learned),
            "constants": dict(own.constants),
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Learn the support set, and see how well the queries are predicted."""
        most = self.most if self.ways is None else bounds_of(self.ways)[1]
        trained = replace(self, training=True, most=most)
        fitted = trained.adapt(meta, support)
        predict, seen, met = trained._watched(fitted)
        loss = self.loss(predict, query)
        asked = Asked(*met[-1], query.targets)
        with _exactly(loss):
            objective = self.head.objective(fitted.own, fitted.state, asked, loss)
        return trained._embedding.told(objective, loss, seen[-1])

    def adapt(self, meta: Meta, support: Side) -> Fitted:
        """Return what the head learns from a support set.

        Raises:
            ValueError: if it has no labelled examples, or more classes than the head can tell.
        """
        if not (hasattr(support, "inputs") and hasattr(support, "targets")):
            raise ValueError(
                f"{self.head.structure.split()[0]} learns from labelled examples: the support set "
                f"must have `inputs` and `targets`, as a Batch has, got {type(support).__name__}"
            )
        support = shuffled(support) if self.head.ordered else support
        params = {name: meta["params"][name] for name in self.network.params}
        weights = {
            name.removeprefix(OWN): value
            for name, value in meta["params"].items()
            if name.startswith(OWN)
        }
        own = {**weights, **meta["learned"], **meta["constants"]}
        features, buffers = self._embedding.support(params, meta["buffers"], support.inputs)
        ways = None if self.most is None else ways_of(support, self.most)
        if ways is not None and self.head.most is not None and ways > self.head.most:
            raise ValueError(
                f"{self.head.structure.split()[0]} tells {self.head.most} classes apart, as many "
                f"as it was made for, but this support set has {ways}"
            )
        shown = Shown(_wide(features), support.targets, ways)
        present = shown.real.any() if ways is None else shown.members.sum(1) > 0
        with _exactly(features):
            return Fitted(params, buffers, own, self.head.fit(own, shown), present)

    def trajectory(self, meta: Meta, support: Side, steps: int | None = None) -> list[Fitted]:
        """Return the one thing there is: a head knows no steps."""
        del steps
        return [self.adapt(meta, support)]

    def predict(self, adapted: Fitted, inputs: Any) -> Tensor:
        """Return logits of shape `(queries, ways)`, or values of shape `(queries, outputs)`."""
        return self._watched(adapted)[0](inputs)  # type: ignore[no-any-return]

    @property
    def _embedding(self) -> Embedding:
        return Embedding(self.network, self.norm, self.training)

    def _watched(
        self, fitted: Fitted
    ) -> tuple[Predict, list[Tensors], list[tuple[Tensor, Tensor]]]:
        """Return the learner as a function of inputs, with lists that grow by each call.

        They are of the buffers before and after, and of features and outputs.
        """
        params, buffers, own, state, present = fitted
        seen, met = [buffers], list[tuple[Tensor, Tensor]]()

        def predict(inputs: Any) -> Tensor:
            features, after = self._embedding.queries(params, seen[-1], inputs)
            seen.append(after)
            wide = _wide(features)
            with _exactly(features):
                outputs = torch.where(present, self.head.score(own, state, wide), ABSENT)
            met.append((wide, outputs))
            return outputs

        return predict, seen, met


def _wide(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.bfloat16, torch.float16) else features


def _exactly(like: Tensor) -> AbstractContextManager[Any]:
    """Compute as given: systems that are solved in a network's mixed precision are solved badly."""
    kind = like.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def make_embedded(
    genes: Genes, setting: Setting, what: str, head: Callable[..., Head], *, values: bool = False
) -> Embedded:
    """Turn genes into a learner.

    Args:
        genes: the head's own; and, each with a default, `outer`, and `ways`, at most as many as
            meta-train has, and of no effect where labels mean the same in every task.
        setting: what it is made for.
        what: who learns, in the plural.
        head: makes the head from its own genes.
        values: whether it can learn values as well as classes.

    Raises:
        ValueError: if the task has no classes, or the network no features.
        TypeError: if a gene is unknown or missing.
    """
    task = setting.task
    most = class_count(task)
    if most is None and not values:
        raise ValueError(
            f"{what} need a task of classes, with a field `ways`, and {type(task).__name__} has "
            "none"
        )
    is_embedding(setting.outputs, what)
    own = {name: gene for name, gene in genes.items() if name not in ("outer", "ways")}
    outer = make_outer(genes["outer"]) if "outer" in genes else DEFAULT_OUTER
    ways = None
    if most is not None and labels_of(task) is None:
        ways = _ways(genes.get("ways"), class_count(task, "meta-train"))
    return Embedded(setting.network, head(**own), task.loss, most, ways, outer, setting.norm)


def shape_of(setting: Setting, what: str) -> torch.Size:
    """Return the shape of an example's features.

    Raises:
        ValueError: if the network returns none, or it is not known.
    """
    is_embedding(setting.outputs, what)
    if setting.outputs is None:
        raise ValueError(
            f"{what} have weights of their own: `outputs` of the setting must be known"
        )
    return setting.outputs.shape[1:]  # type: ignore[no-any-return]


def _ways(ways: Any, there: int | None) -> Range | None:
    """Return how many classes to train with: what is wanted, and no more than there are."""
    if ways is None or there is None:
        return None if ways is None else _range(ways)
    low, high = (min(each, there) for each in bounds_of(_range(ways)))
    return low if isinstance(ways, int) else (low, high)


def _range(ways: Any) -> Range:
    low, high = bounds_of(ways) if isinstance(ways, int) or len(ways) == 2 else (0, 0)
    if not (isinstance(low, int) and isinstance(high, int) and 2 <= low <= high):
        raise ValueError(f"`ways` must be a number from 2, or a pair of them, got {ways!r}")
    return ways if isinstance(ways, int) else (low, high)
