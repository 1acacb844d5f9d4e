"""What every task offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from evometa.errors import TaskError
from evometa.metrics import Direction, Metric
from evometa.records import derive_seed

SPLITS = ("meta-train", "meta-validation", "meta-test")
IGNORED = -100
"""Label of an example that is padding: PyTorch's losses leave it out, and so do all learners."""

Side: TypeAlias = Any
"""One side of one episode: a pytree of tensors of any type, such as a `Batch`, without its first
axis. What is in it is between the task's `episodes` and its `loss` and `scores`; learners other
than gradient steps want `inputs` and `targets`."""

Predict: TypeAlias = Callable[[Any], Any]
"""The adapted learner as a function of inputs: what the network takes, with `examples` as first
axis of each tensor, to what it returns."""


class Batch(NamedTuple):
    """One side of many episodes.

    Attributes:
        inputs: what the network takes: a tensor of shape `(tasks, examples, *shape)` and any type,
            or a dict, list or tuple of such tensors, which reaches `forward` as it is.
        targets: shape `(tasks, examples)`, int64, for classes; `(tasks, examples, outputs)`,
            float32, for regression.
    """

    inputs: Any
    targets: Any


class ClassBatch(NamedTuple):
    """One side of many episodes of classes.

    Attributes:
        inputs: as in `Batch`; `evometa.network.Padded` where some examples are padding.
        targets: labels from 0, int64, shape `(tasks, examples)`; `IGNORED` marks padding.
        classes: which class of the split each label stands for, from 0 to `available(split) - 1`,
            int64, shape `(tasks, ways)`; both sides of an episode have the same. It says how many
            ways there are, whatever the labels of a side.
    """

    inputs: Any
    targets: Tensor
    classes: Tensor


class EpisodeBatch(NamedTuple):
    """Episodes: what to adapt to, and what to be scored on.

    Attributes:
        support: a pytree of tensors that begin with the axis `tasks`, such as a `Batch`.
        query: likewise.
    """

    support: Any
    query: Any


class Task(Protocol):
    """A family of few-shot tasks.

    Besides, a task may say with attributes what it is:

    `mappable = False`: `loss` and `scores` cannot be mapped over tasks by `vmap`, because they act
    in a simulator outside of PyTorch, say. Episodes are then learned one after the other.

    `surrogate = True`: the value of the loss says nothing, its gradient all; so with policies. The
    gate then does not hold the gradient's derivative against differences of it.

    `ways`: classes in an episode, or a pair of least and most; `available(split)`: the most that
    one could have. Prototypes want the former, and are meta-trained with up to the latter; transfer
    learns all classes of meta-train at once.

    `labels`: the classes by number, sorted, where they mean the same in every task, so that all of
    them are in each episode; else None.

    `sized(generator)`: returns the task with the shapes of one meta-batch, where they vary from
    one to the next. All episodes that one `episodes` call draws have equal shapes.
    """

    @property
    def metrics(self) -> Mapping[str, Direction | Metric]:
        """Names of what `scores` returns, with the direction in which each improves.

        `{"accuracy": "max", "query_loss": "min"}`. The first is the primary one.
        """
        ...

    def load(self, data: Path | None, *, download: bool = False, skip_broken: bool = False) -> Task:
        """Return the task with its data at hand; tasks that make their own return themselves.

        Raises:
            TaskError: if the data is missing, broken or too small; says what to do.
        """
        ...

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` episodes of a split, on the CPU: every tensor in them begins with `n`."""
        ...

    def loss(self, predict: Predict, side: Side) -> Tensor:
        """Return the mean loss of a learner on one side of one episode, a differentiable scalar.

        A supervised task compares `predict(side.inputs)` with `side.targets`. A task that acts
        calls `predict` on what it observes, step by step; its randomness is part of the side.
        """
        ...

    def scores(self, predict: Predict, side: Side) -> dict[str, Tensor]:
        """Return the metrics of a learner on one side of one episode, scalar tensors."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and hashes as plain data."""
        ...


def is_mappable(task: Task) -> bool:
    """Return whether `vmap` can map the task's loss and scores."""
    return bool(getattr(task, "mappable", True))


def is_surrogate(task: Task) -> bool:
    """Return whether the loss is one whose gradient alone counts."""
    return bool(getattr(task, "surrogate", False))


def varies(task: Task) -> bool:
    """Return whether shapes differ from one meta-batch to the next."""
    return hasattr(task, "sized") and bool(getattr(task, "varies", True))


def sized(task: Task, *seeds: int | str) -> Task:
    """Return the task with the shapes of one meta-batch, if they vary.

    The seeds alone decide, so that all candidates of a pack draw equal shapes.
    """
    if not varies(task):
        return task
    found: Task = cast(Any, task).sized(
        torch.Generator().manual_seed(derive_seed("shapes", *seeds))
    )
    return found


def split_seed(split: str, generator: torch.Generator) -> int:
    """Draw a seed that differs between splits, so that their episodes never coincide.

    Raises:
        TaskError: if there is no such split.
    """
    if split not in SPLITS:
        raise TaskError(f"a split must be one of {', '.join(SPLITS)}, got {split!r}")
    drawn = int(torch.randint(2**62, (), generator=generator))
    return derive_seed(split, drawn)
