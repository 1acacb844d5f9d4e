"""Few-shot regression of values that come in groups: one group is one task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evometa.errors import TaskError
from evometa.metrics import Direction
from evometa.task.protocol import Batch, EpisodeBatch, Predict, Side, split_seed
from evometa.task.reading import listed


@dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """Rows sorted by group, and which groups belong to which split; never written to.

    Attributes:
        inputs: shape `(rows, *shape)`, float32 or int64; uint8 becomes floats of 0 to 1.
        targets: shape `(rows, outputs)`, float32.
        starts: shape `(groups + 1,)`; group `g` owns rows `starts[g]` to `starts[g + 1]`.
        names: of the groups.
        splits: split name to group numbers.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int64]
    names: tuple[str, ...]
    splits: Mapping[str, npt.NDArray[np.int64]]

    def small(self, least: int) -> dict[str, int]:
        """Return the groups of any split with fewer rows, and how many they have."""
        sizes = np.diff(self.starts)
        every = [int(number) for own in self.splits.values() for number in own]
        return {self.names[each]: int(sizes[each]) for each in every if sizes[each] < least}

    def without_small(self, least: int) -> Groups:
        """Return the groups that have enough rows."""
        sizes = np.diff(self.starts)
        splits = {split: own[sizes[own] >= least] for split, own in self.splits.items()}
        return replace(self, splits=splits)

    def digest(self) -> str:
        """Return a short hash of rows and split."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.targets, self.starts, *self.splits.values()):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


@final
@dataclass(frozen=True)
class GroupTask:
    """Few-shot regression: learn from some rows of a group, and predict others.

    Attributes:
        groups: the rows.
        shots: support rows of an episode.
        queries: query rows of an episode.
        described: arguments to be told with the results.
    """

    groups: Groups
    shots: int
    queries: int
    described: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("shots", "queries"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TaskError(f"`{name} >= 1` must hold, but got ({name}={value})")

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """Mean squared and mean absolute error of the queries."""
        return {"query_loss": "min", "absolute_error": "min"}

    def load(
        self, data: Path | None, *, download: bool = False, skip_broken: bool = False
    ) -> GroupTask:
        """Return the task with groups that are large enough.

        Raises:
            TaskError: if a data folder is given, a group is too small and not to be skipped, or a
                split has no group.
        """
        if data is not None:
            raise TaskError(f"arrays are in memory, but got --data {data}; leave it out")
        least = self.shots + self.queries
        small = self.groups.small(least)
        if small and not skip_broken:
            named = listed([f"{name} ({count})" for name, count in small.items()])
            raise TaskError(
                f"each group needs at least shots + queries = {least} rows, but {len(small)} have "
                f"fewer: {named}; lower shots or queries, or leave them out with --skip-broken"
            )
        groups = self.groups.without_small(least)
        for split, own in groups.splits.items():
            if not len(own):
                raise TaskError(f"{split} needs at least one group of {least} rows, but has none")
        return replace(self, groups=groups)

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` groups, each before any comes again, and distinct rows of each.

        Returns:
            Inputs of shape `(n, rows, *shape)`, targets of shape `(n, rows, outputs)`.
        """
        rng = np.random.default_rng(split_seed(split, generator))
        own, both = self.groups.splits[split], self.shots + self.queries
        rounds = [rng.permutation(own) for _ in range(-(-n // len(own)))]
        rows = np.stack(
            [
                rng.choice(np.arange(*self.groups.starts[each : each + 2]), both, replace=False)
                for each in np.concatenate(rounds)[:n]
            ]
        )
        inputs = torch.from_numpy(self.groups.inputs[rows])
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255.0)
        targets, k = torch.from_numpy(self.groups.targets[rows]), self.shots
        support = Batch(inputs[:, :k].contiguous(), targets[:, :k].contiguous())
        return EpisodeBatch(support, Batch(inputs[:, k:].contiguous(), targets[:, k:].contiguous()))

    def loss(self, predict: Predict, side: Side) -> Tensor:
        """Return the mean squared error; raises as `errors_of` does."""
        return errors_of(predict, side).square().mean()

    def scores(self, predict: Predict, side: Side) -> dict[str, Tensor]:
        """Return mean squared and mean absolute error."""
        errors = errors_of(predict, side)
        return {"query_loss": errors.square().mean(), "absolute_error": errors.abs().mean()}

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and the hash of rows and split."""
        own = {"name": "Arrays", **self.described, "shots": self.shots, "queries": self.queries}
        return {**own, "data": self.groups.digest()}


def errors_of(predict: Predict, side: Side) -> Tensor:
    """Return predictions less targets.

    Raises:
        ValueError: if the shapes differ, which would broadcast silently.
    """
    predictions, targets = predict(side.inputs), side.targets
    if predictions.shape != targets.shape:
        raise ValueError(
            f"predictions must have shape {tuple(targets.shape)}, got {tuple(predictions.shape)}"
        )
    errors: Tensor = predictions - targets
    return errors
