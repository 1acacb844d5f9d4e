"""What every learner offers: five verbs and a record of traits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from evometa.network import Network
from evometa.rule import DEFAULT_OUTER, Outer
from evometa.task.protocol import Predict, Side
from evometa.task.sampler import Range

Tensors: TypeAlias = dict[str, Tensor]
Meta: TypeAlias = Mapping[str, Tensors]
"""What a learner knows before an episode, in five parts: the outer loop trains `params` and
`learned`; `constants` are the learner's fixed numbers; `buffers` are carried from one meta-batch to
the next; `stage` holds what changes along the training."""

Adapted: TypeAlias = Any
"""What a learner knows after the support set: a pytree of tensors."""

Loss: TypeAlias = Callable[[Predict, Side], Tensor]
"""The mean loss of a learner on one side of one episode, as a task gives it."""


class MetaLoss(NamedTuple):
    """What one episode tells the outer loop.

    Attributes:
        objective: a scalar to differentiate.
        loss: the query loss after adaptation, a scalar to report.
        buffers: those buffers that the episode moved.
    """

    objective: Tensor
    loss: Tensor
    buffers: Tensors


class Stage(NamedTuple):
    """How a learner learns at a point of meta-training.

    Attributes:
        name: equal names stand for equal programs.
        learner: the learner to use.
        numbers: the `stage` part of its meta-parameters.
    """

    name: str
    learner: Learner
    numbers: Tensors


@dataclass(frozen=True)
class Traits:
    """What is to be known of a learner besides what it does.

    Attributes:
        structure: text that is equal for learners which differ only in numbers.
        steps: inner steps in meta-training; 0 where `trajectory` has a length of its own.
        outer: how the outer loop trains it.
        order: highest derivative of the network that meta-training takes.
        any_ways: whether it can learn tasks of other numbers of classes than it was trained on.
        ways: classes in an episode of its meta-training, or a pair of least and most; None for as
            many as the task has.
        memory: whether `predict` remembers: it then returns its outputs and the `Adapted` to go
            on with, so that a policy can be carried through a world.
        mappable: whether `vmap` can map its functions.
        stage: how it learns at a point of meta-training, from 0 to 1; None for always the same.
    """

    structure: str
    steps: int = 0
    outer: Outer = DEFAULT_OUTER
    order: int = 1
    any_ways: bool = False
    ways: Range | None = None
    memory: bool = False
    mappable: bool = True
    stage: Callable[[float], Stage] | None = None


class Learner(Protocol):
    """How an episode is learned: a frozen dataclass of pure functions of values.

    All functions speak of one candidate and one episode. They are mapped over the tasks of a
    meta-batch and over the candidates of a pack, so every number in which candidates of equal
    structure may differ comes in through the meta-parameters. `network` must be a field, so that
    `unmapped` can exchange it. `meta_loss` trains, with dropout and the like; all else does not.
    """

    @property
    def network(self) -> Network:
        """The network that learns."""
        ...

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        ...

    def init(self, generator: torch.Generator) -> Meta:
        """Return the meta-parameters before any training; `generator` draws what is random.

        A learner may own weights besides the network's: they are `params` as well.
        """
        ...

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Adapt to the support set, and see how well the queries are predicted."""
        ...

    def adapt(self, meta: Meta, support: Side) -> Adapted:
        """Learn one episode's support set."""
        ...

    def trajectory(self, meta: Meta, support: Side, steps: int | None = None) -> Iterable[Adapted]:
        """Give what is known before the first inner step and after each; the last is `adapt`'s.

        Args:
            meta: trained meta-parameters.
            support: the support set.
            steps: inner steps; default as many as in meta-training. Learners without steps give
                one entry.
        """
        ...

    def predict(self, adapted: Adapted, inputs: Any) -> Any:
        """Predict one episode's queries, `examples` first."""
        ...


AnyLearner = TypeVar("AnyLearner", bound=Learner)


def unmapped(learner: AnyLearner) -> AnyLearner:
    """Return a learner for calls outside of `vmap`: faster there, and wrong within."""
    return replace(learner, network=learner.network.unmapped)  # type: ignore[type-var]


def stage_at(learner: Learner, traits: Traits, progress: float) -> Stage:
    """Return how a learner learns at a point of meta-training, from 0 to 1."""
    return Stage("", learner, {}) if traits.stage is None else traits.stage(progress)


def predictor(learner: Learner, adapted: Adapted) -> Predict:
    """Return an adapted learner as a function of inputs, for one walk through an episode."""
    if not learner.traits.memory:
        return partial(learner.predict, adapted)
    return Walk(learner, adapted)


class Walk:
    """A learner with memory on its way through an episode: each prediction goes on from the last.

    Attributes:
        adapted: what it knows by now.
    """

    def __init__(self, learner: Learner, adapted: Adapted) -> None:
        self._learner, self.adapted = learner, adapted

    def __call__(self, inputs: Any) -> Any:
        """Predict, and remember."""
        outputs, self.adapted = self._learner.predict(self.adapted, inputs)
        return outputs
