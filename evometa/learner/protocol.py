"""What every learner offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from torch import Tensor

from evometa.rule import Outer

Tensors: TypeAlias = dict[str, Tensor]
Meta: TypeAlias = Mapping[str, Tensors]
"""What a learner knows before an episode, in five parts: the outer loop trains `params` and
`learned`; `constants` are the learner's fixed numbers; `buffers` are carried from one meta-batch to
the next; `stage` holds what changes along the training."""

Adapted: TypeAlias = Any
"""What a learner knows after the support set: a pytree of tensors."""

Examples: TypeAlias = tuple[Tensor, Tensor]
"""`(inputs, targets)` of one side of one episode: `(examples, *shape)`, `(examples, ...)`."""

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The mean loss of one episode's predictions and targets."""


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


class Learner(Protocol):
    """How an episode is learned: pure functions of values.

    All functions speak of one candidate and one episode. They are mapped over the tasks of a
    meta-batch and over the candidates of a pack, so every number in which candidates of equal
    structure may differ comes in through the meta-parameters.
    """

    @property
    def structure(self) -> str:
        """Text that is equal for learners which differ only in numbers."""
        ...

    @property
    def steps(self) -> int:
        """Inner steps in meta-training; 0 for learners without any."""
        ...

    @property
    def kin(self) -> str:
        """Text that is equal for learners which `together` can give one structure."""
        ...

    @property
    def alone(self) -> Learner:
        """The learner without those that it shares a pack with."""
        ...

    def together(self, learners: Sequence[Learner]) -> list[Learner]:
        """Return learners of equal `kin` as learners of equal structure, to share a pack."""
        ...

    @property
    def outer(self) -> Outer:
        """How the outer loop trains it."""
        ...

    @property
    def second_order(self) -> bool:
        """Whether meta-training takes second derivatives of the network."""
        ...

    def first_order(self) -> Learner:
        """Return the same learner without second derivatives."""
        ...

    def init(self) -> dict[str, Tensors]:
        """Return the meta-parameters before any training."""
        ...

    def training_task(self, task: Any) -> Any:
        """Return the task whose episodes it is meta-trained on: `task`, or a variant of it."""
        ...

    def prepared(self, *, training: bool, mapped: bool) -> Learner:
        """Return the same learner for meta-training or scoring, mapped by `vmap` or not."""
        ...

    def at(self, progress: float) -> Stage:
        """Return how it learns at a point of meta-training, from 0 to 1."""
        ...

    def meta_loss(self, meta: Meta, support: Examples, query: Examples) -> MetaLoss:
        """Adapt to the support set, and see how well the queries are predicted."""
        ...

    def adapt(self, meta: Meta, support: Examples) -> Adapted:
        """Learn one episode's support set."""
        ...

    def trajectory(self, meta: Meta, support: Examples, steps: int | None = None) -> list[Adapted]:
        """Return what is known before the first inner step and after each; the last is `adapt`'s.

        Args:
            meta: trained meta-parameters.
            support: the support set.
            steps: inner steps; default as many as in meta-training. Learners without steps return
                one entry.
        """
        ...

    def predict(self, adapted: Adapted, inputs: Tensor) -> Tensor:
        """Predict one episode's queries, shape `(queries, *shape)`."""
        ...
