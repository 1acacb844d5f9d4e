"""What every task offers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from evometa.errors import TaskError
from evometa.records import derive_seed

SPLITS = ("meta-train", "meta-validation", "meta-test")


class Batch(NamedTuple):
    """One side of many episodes.

    Attributes:
        inputs: shape `(tasks, examples, *shape)`, float32.
        targets: shape `(tasks, examples)`, int64, for classes; `(tasks, examples, outputs)`,
            float32, for regression.
    """

    inputs: Tensor
    targets: Tensor


class EpisodeBatch(NamedTuple):
    """Episodes: what to adapt to, and what to be scored on."""

    support: Batch
    query: Batch


class Task(Protocol):
    """A family of few-shot tasks."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `scores` returns; the first is the primary one."""
        ...

    def load(self, data: Path | None, *, download: bool = False, skip_broken: bool = False) -> Task:
        """Return the task with its data at hand; tasks that make their own return themselves.

        Raises:
            TaskError: if the data is missing, broken or too small; says what to do.
        """
        ...

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` episodes of a split, on the CPU."""
        ...

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of one episode's predictions, a differentiable scalar."""
        ...

    def scores(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the metrics of one episode's predictions, scalars."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and hashes as plain data."""
        ...


def split_seed(split: str, generator: torch.Generator) -> int:
    """Draw a seed that differs between splits, so that their episodes never coincide.

    Raises:
        TaskError: if there is no such split.
    """
    if split not in SPLITS:
        raise TaskError(f"a split must be one of {', '.join(SPLITS)}, got {split!r}")
    drawn = int(torch.randint(2**62, (), generator=generator))
    return derive_seed(split, drawn)
