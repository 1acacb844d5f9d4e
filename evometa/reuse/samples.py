"""Unseen tasks of labelled examples, to write an export with and to hold it against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.evaluate.faults import asked_first
from evometa.network import unpadded
from evometa.records import derive_seed
from evometa.task.classes import labels_of
from evometa.task.episodes import over, part_of
from evometa.task.protocol import IGNORED, Batch, ClassBatch, Task, sized


@dataclass(frozen=True)
class Sample:
    """One task as a user gives it: no padding, and labels from 0 of which none is left out.

    Attributes:
        x: inputs to adapt to.
        y: their targets.
        new: inputs to predict.
        answers: their targets.
        ways: how many labels there are, where they mean the same in every task; else None.
    """

    x: Any
    y: Tensor
    new: Any
    answers: Tensor
    ways: int | None = None

    @property
    def classes(self) -> int:
        """How many classes there are; of labels alone."""
        return int(self.y.max()) + 1 if self.ways is None else self.ways

    @property
    def support(self) -> Batch | ClassBatch:
        """What a learner adapts to."""
        if self.y.is_floating_point():
            return Batch(self.x, self.y)
        return ClassBatch(self.x, self.y, torch.arange(self.classes))

    def part(self, support: Any = slice(None), query: Any = slice(None)) -> Sample:
        """Return the task with some of its examples."""
        return numbered(
            part_of(self.x, support),
            self.y[support],
            part_of(self.new, query),
            self.answers[query],
            self.ways,
        )

    def joined(self, other: Sample, offset: int = 0) -> Sample:
        """Return the examples of two tasks as one, with `offset` added to the other's labels."""

        def both(one: Any, two: Any) -> Any:
            return pytree.tree_map(lambda a, b: torch.cat([a, b]), one, two)

        return numbered(
            both(self.x, other.x),
            both(self.y, other.y + offset),
            both(self.new, other.new),
            both(self.answers, other.answers + offset),
            self.ways,
        )


def numbered(x: Any, y: Tensor, new: Any, answers: Tensor, ways: int | None = None) -> Sample:
    """Return a task with labels from 0, without the new inputs of classes that have no example.

    With `ways`, labels mean the same in every task, and stay as they are.
    """
    if y.is_floating_point() or ways is not None:
        return Sample(x, y, new, answers, ways)
    labels, numbers = torch.unique(y, return_inverse=True)
    known = torch.isin(answers, labels)
    if bool(known.any()):
        new, answers = part_of(new, known), answers[known]
    return Sample(x, numbers, new, torch.searchsorted(labels, answers))


def draw_samples(task: Task, seed: int, count: int = 2) -> list[Sample]:
    """Draw tasks of meta-validation."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "export"))
    task = sized(task, "export")
    episodes = task.episodes("meta-validation", count, generator)
    labels = labels_of(task)
    ways = None if labels is None else len(labels)
    rows = [[_labelled(task, part_of(side, row)) for side in episodes] for row in range(count)]
    return [numbered(*one, *other, ways) for one, other in rows]


def _labelled(task: Task, side: Any) -> tuple[Any, Tensor]:
    """Return inputs and targets of one side of one episode, without padding."""
    targets = side.targets
    inputs = unpadded(side.inputs) if hasattr(side, "inputs") else asked_first(task, side)
    if targets.is_floating_point():
        return inputs, targets
    real = targets != IGNORED
    return over(lambda leaf: leaf[real].contiguous(), inputs), targets[real]
