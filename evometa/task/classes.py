"""Few-shot classification: what all tasks of classes share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.errors import TaskError
from evometa.metrics import Direction
from evometa.network import Padded
from evometa.task.protocol import IGNORED, ClassBatch, EpisodeBatch, Predict, Side
from evometa.task.reading import Reading
from evometa.task.sampler import META_DATASET_WAYS, Classes, Episodic, Range, bounds_of

P = ParamSpec("P")

OWN_ARRAYS = "To learn from arrays of your own, use Arrays(x, y)"


class NotTaken(TaskError, TypeError):
    """A task is given an argument that it does not take."""


def takes_no_more(make: Callable[P, ClassTask]) -> Callable[P, ClassTask]:
    """Let a function that makes a task refuse what it does not take, arrays above all.

    It raises `NotTaken` for other arguments than its own.
    """

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> ClassTask:
        taken = inspect.signature(make)
        try:
            taken.bind(*args, **kwargs)
        except TypeError as error:
            raise NotTaken(
                f"{make.__name__} takes {', '.join(taken.parameters)}, but {error}. {OWN_ARRAYS}"
            ) from error
        return make(*args, **kwargs)

    return made


class Source(Protocol):
    """Where the classes of a `ClassTask` come from."""

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Return the classes and their names.

        Args:
            data: a folder, if one is given.
            download: whether data may be fetched.
            skip_broken: whether to leave out what cannot be read, and classes that are too small.
            least: examples that a class must have.

        Raises:
            TaskError: if the data is missing or broken; says what to do.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return name and arguments as plain data."""
        ...


@final
@dataclass(frozen=True)
class ClassTask:
    """Few-shot classification of examples by class.

    Attributes:
        source: where the classes come from.
        ways: classes in an episode; a pair for anything from the first to the second, drawn for
            each meta-batch.
        shots: support examples a class, or a pair; the mean where they are unequal.
        queries: query examples a class, at most.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `Episodic`.
        classes: the examples, once loaded.
        support: examples of a support set, and
        share: of each class's examples that it may take; both drawn for each meta-batch of
            Meta-Dataset.

    Raises:
        TaskError: if there is no such shape, or `classes` are of another type.
    """

    source: Source
    ways: Range = 5
    shots: Range = 1
    queries: int = 15
    sampling: str = "equal"
    classes: Classes | None = field(default=None, repr=False, compare=False)
    support: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.classes is not None and not isinstance(self.classes, Classes):
            raise TaskError(
                "`classes` is what `load` has read, no argument, but got a "
                f"{type(self.classes).__name__}. {OWN_ARRAYS}"
            )
        _ = self.shape

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """Accuracy and cross-entropy of the queries."""
        return {"accuracy": "max", "query_loss": "min"}

    @cached_property
    def shape(self) -> Episodic:
        """The shape of an episode."""
        return Episodic(
            self.ways, self.shots, self.queries, self.sampling, self.support, self.share
        )

    @property
    def varies(self) -> bool:
        """Whether shapes differ from one meta-batch to the next."""
        return self.shape.varies

    @property
    def reading(self) -> Reading | None:
        """What the examples were read from, where that is known."""
        return None if self.classes is None else self.classes.reading

    def available(self, split: str) -> int:
        """Return how many classes a split has."""
        return self._loaded.available(split)

    def load(
        self, data: Path | None, *, download: bool = False, skip_broken: bool = False
    ) -> ClassTask:
        """Return the task with its examples at hand.

        Raises:
            TaskError: if the data is missing or broken, or a class or a split is too small.
        """
        least = bounds_of(self.shots)[1] + self.queries
        classes, names = self.source.read(
            data, download=download, skip_broken=skip_broken, least=least
        )
        classes.check(self.shape, names)
        return replace(self, classes=classes)

    def sized(self, generator: torch.Generator) -> ClassTask:
        """Return the task with the shapes of one meta-batch."""
        shape = self._loaded.sized(self.shape, generator)
        return replace(
            self, ways=shape.ways, shots=shape.shots, support=shape.support, share=shape.share
        )

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` episodes: inputs of shape `(n, examples, *shape)`."""
        return self._loaded.episodes(self.shape, split, n, generator)

    def loss(self, predict: Predict, side: Side) -> Tensor:
        """Return the mean cross-entropy of logits of shape `(examples, ways)`."""
        return F.cross_entropy(predict(side.inputs), side.targets, ignore_index=IGNORED)

    def scores(self, predict: Predict, side: Side) -> dict[str, Tensor]:
        """Return accuracy and mean cross-entropy."""
        logits = predict(side.inputs)
        right = (logits.argmax(-1) == side.targets).to(logits.dtype)
        real = side.targets != IGNORED
        accuracy = right.sum() / real.sum() if isinstance(side.inputs, Padded) else right.mean()
        loss = F.cross_entropy(logits, side.targets, ignore_index=IGNORED)
        return {"accuracy": accuracy, "query_loss": loss}

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and the hash of examples and split."""
        found = {**self.source.describe(), "ways": self.ways, "shots": self.shots}
        found["queries"] = self.queries
        if self.sampling != "equal":
            found["sampling"] = self.sampling
        return {**found, "data": None if self.classes is None else self.classes.digest()}

    @property
    def _loaded(self) -> Classes:
        if self.classes is None:
            raise TaskError("the task has no data yet: call task = task.load(folder) first")
        return self.classes


def class_task(
    source: Source, ways: Range, shots: Range, queries: int, sampling: str = "equal"
) -> ClassTask:
    """Return a task of classes; Meta-Dataset's sampler has ways of its own."""
    if sampling == "meta-dataset":
        ways, queries = META_DATASET_WAYS, min(queries, 10)
    return ClassTask(source, ways, shots, queries, sampling)


def class_count(task: Any, split: str | None = None) -> int | None:
    """Return how many classes an episode has at most, or a split in all; None if nothing says."""
    if split is not None:
        return task.available(split) if hasattr(task, "available") else None
    ways = getattr(task, "ways", None)
    return None if ways is None else bounds_of(ways)[1]


def labels_of(task: Any) -> tuple[Any, ...] | None:
    """Return the labels by number, if they mean the same in every task; else None."""
    return getattr(task, "labels", None)


def ways_of(side: Side, most: int | None) -> int:
    """Return how many classes an episode has.

    Args:
        side: one side of it.
        most: classes in an episode whose side does not say how many it has.

    Raises:
        ValueError: if nothing says.
    """
    if isinstance(side, ClassBatch):
        return len(side.classes)
    if most is None:
        raise ValueError("the task must say how many classes an episode has, in a field `ways`")
    return most
