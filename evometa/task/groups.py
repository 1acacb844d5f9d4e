"""Rows that come in groups, with values or labels to be predicted: one group is one task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.errors import TaskError
from evometa.metrics import Direction
from evometa.task.protocol import Batch, ClassBatch, EpisodeBatch, Predict, Side, split_seed
from evometa.task.reading import Reading, listed

KINDS = ("values", "classes")
RULED_OUT = 50.0  # how far below the best a logit can be


@dataclass(frozen=True, eq=False, repr=False)
class Groups:
    """Rows sorted by group, and which groups belong to which split; never written to.

    Attributes:
        inputs: shape `(rows, *shape)`, float32 or int64; uint8 becomes floats of 0 to 1.
        targets: values, shape `(rows, outputs)`, float32; or the numbers of labels, `(rows,)`,
            int64.
        starts: shape `(groups + 1,)`; group `g` owns rows `starts[g]` to `starts[g + 1]`.
        names: of the groups.
        splits: split name to group numbers.
        labels: that mean the same in every group, sorted; None for values.
        ordered: whether the rows of a group are in the order of time, so that a support set must
            come before its queries.
        rules: how inputs follow from the columns of a table, plain data; see `encode`.
        reading: what they were read from, where that is known.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    names: tuple[str, ...]
    splits: Mapping[str, npt.NDArray[np.int64]]
    labels: tuple[Any, ...] | None = None
    ordered: bool = False
    rules: Sequence[Mapping[str, Any]] = ()
    reading: Reading | None = None

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


class GroupSource(Protocol):
    """Where the groups of a `GroupTask` come from, if they are still to be read."""

    def read(self, data: Path | None, *, skip_broken: bool, least: int) -> Groups:
        """Return the groups.

        Args:
            data: a file or folder, if one is given.
            skip_broken: whether to leave out what cannot be used, and groups that are too small.
            least: rows that a group must have.

        Raises:
            TaskError: if the data is missing or broken; says what to do.
        """
        ...


@final
@dataclass(frozen=True)
class GroupTask:
    """Learn from some rows of a group, and predict others: values, or labels of one meaning.

    Attributes:
        groups: the rows; None until they are loaded.
        shots: support rows of an episode.
        queries: query rows of an episode.
        described: arguments to be told with the results, the name among them.
        kind: `"values"` or `"classes"`.
        source: gives the rows; None where they are given.
    """

    groups: Groups | None
    shots: int
    queries: int
    described: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    kind: str = "values"
    source: GroupSource | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("shots", "queries"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TaskError(f"`{name} >= 1` must hold, but got ({name}={value})")
        if self.kind not in KINDS:
            raise TaskError(f"`kind` must be 'values' or 'classes', got {self.kind!r}")

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """Of values, mean squared and mean absolute error; of classes, as `class_scores` says."""
        if self.kind == "classes":
            return {"accuracy": "max", "query_loss": "min", "auroc": "max"}
        return {"query_loss": "min", "absolute_error": "min"}

    @property
    def labels(self) -> tuple[Any, ...] | None:
        """The labels by number, sorted, the same in every episode; None for values."""
        return self._loaded.labels

    @property
    def ways(self) -> int | None:
        """How many labels there are; None for values."""
        return None if self.kind == "values" else len(self.labels or ())

    @property
    def reading(self) -> Reading | None:
        """What the rows were read from, where that is known."""
        return None if self.groups is None else self.groups.reading

    def load(
        self, data: Path | None, *, download: bool = False, skip_broken: bool = False
    ) -> GroupTask:
        """Return the task with groups that are large enough.

        Raises:
            TaskError: if the data is missing or broken, a group is too small and not to be
                skipped, or a split has no group.
        """
        least = self.shots + self.queries
        if self.source is not None:
            groups = self.source.read(data, skip_broken=skip_broken, least=least)
        else:
            if data is not None:
                raise TaskError(f"arrays are in memory, but got --data {data}; leave it out")
            refuse_small({} if skip_broken else self._loaded.small(least), least)
            groups = self._loaded.without_small(least)
        for split, own in groups.splits.items():
            if not len(own):
                raise TaskError(f"{split} needs at least one group of {least} rows, but has none")
        return replace(self, groups=groups, source=None)

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` groups, each before any comes again, and distinct rows of each.

        Returns:
            Inputs of shape `(n, rows, *shape)`, targets of shape `(n, rows, outputs)` or, for
            classes, `(n, rows)`. Where rows are in the order of time, no query comes before a
            support row; else the support set has all labels of the episode, if it is large enough.
        """
        groups, rng = self._loaded, np.random.default_rng(split_seed(split, generator))
        own, both = groups.splits[split], self.shots + self.queries
        rounds = [rng.permutation(own) for _ in range(-(-n // len(own)))]
        rows = np.stack(
            [
                rng.choice(np.arange(*groups.starts[each : each + 2]), both, replace=False)
                for each in np.concatenate(rounds)[:n]
            ]
        )
        if groups.ordered:
            rows.sort(axis=1)
        elif self.kind == "classes":
            rows = np.stack([_all_labels_first(each, groups.targets[each]) for each in rows])
        inputs = torch.from_numpy(groups.inputs[rows])
        if inputs.dtype == torch.uint8:
            inputs = inputs.float().div_(255.0)
        targets, k = torch.from_numpy(groups.targets[rows]), self.shots
        sides = [(inputs[:, part].contiguous(), targets[:, part].contiguous())
                 for part in (slice(k), slice(k, None))]  # fmt: skip
        if self.kind == "values":
            return EpisodeBatch(*(Batch(*side) for side in sides))
        classes = torch.arange(self.ways or 0).repeat(n, 1)
        return EpisodeBatch(*(ClassBatch(*side, classes) for side in sides))

    def loss(self, predict: Predict, side: Side) -> Tensor:
        """Return the mean squared error, or the mean cross-entropy of logits `(rows, ways)`.

        Raises:
            ValueError: as `errors_of` does.
        """
        if self.kind == "classes":
            return class_scores(predict(side.inputs), side.targets)["query_loss"]
        return errors_of(predict, side).square().mean()

    def scores(self, predict: Predict, side: Side) -> dict[str, Tensor]:
        """Return the metrics."""
        if self.kind == "classes":
            return class_scores(predict(side.inputs), side.targets)
        errors = errors_of(predict, side)
        return {"query_loss": errors.square().mean(), "absolute_error": errors.abs().mean()}

    def encode(self, rows: Any) -> npt.NDArray[np.float32]:
        """Return rows of a table as the networks take them, shape `(rows, features)`.

        Args:
            rows: as `evometa.task.encode` takes them.

        Raises:
            TaskError: if the task is of no table, or as `evometa.task.encode` does.
        """
        from evometa.task.table import encode

        if not self._loaded.rules:
            raise TaskError("arrays are given as networks take them: there is nothing to encode")
        return encode(self._loaded.rules, rows)

    def describe(self) -> dict[str, Any]:
        """Return name, arguments, the rules of inputs, and the hash of rows and split."""
        own = {"name": "Arrays", **self.described, "shots": self.shots, "queries": self.queries}
        if self.groups is None:
            return {**own, "data": None}
        if self.groups.rules:
            own["rules"] = [dict(rule) for rule in self.groups.rules]
        if self.groups.labels is not None:
            own["labels"] = [*self.groups.labels]
        return {**own, "data": self.groups.digest()}

    @property
    def _loaded(self) -> Groups:
        if self.groups is None:
            raise TaskError("the task has no data yet: call task = task.load(None) first")
        return self.groups


def refuse_small(small: Mapping[str, int], least: int, hint: str = "") -> None:
    """Raise `TaskError` if there are groups with too few rows.

    Args:
        small: their names, and how many rows they have.
        least: rows that a group must have.
        hint: what else can be done.
    """
    if small:
        named = listed([f"{name} ({count})" for name, count in small.items()])
        raise TaskError(
            f"each group needs at least shots + queries = {least} rows, but {len(small)} have "
            f"fewer: {named}; lower shots or queries, or leave them out with --skip-broken{hint}"
        )


def _all_labels_first(
    rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return rows in an order that begins with one of each label."""
    _, first = np.unique(labels, return_index=True)
    return np.concatenate([rows[np.sort(first)], np.delete(rows, first)])


def class_scores(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return accuracy, mean cross-entropy, and the area under the ROC curve.

    A label may be ruled out, as prototypes do where the support has none of it, and come all the
    same: its share counts as e^-50 at least, so that the cross-entropy stays finite.

    The area is the share of pairs, one row of a class and one of another, that its share ranks
    rightly, a tie being half; the mean over the classes that the rows have and have not. Where
    there is none it is 0.5, what guessing gives.

    Args:
        logits: shape `(rows, ways)`.
        targets: shape `(rows,)`.
    """
    right = (logits.argmax(-1) == targets).to(logits.dtype).mean()
    bounded = logits.clamp(min=logits.detach().amax(-1, keepdim=True) - RULED_OUT)
    scores = bounded.log_softmax(-1).T  # (ways, rows)
    own = targets == torch.arange(logits.shape[-1], device=logits.device).unsqueeze(1)
    pairs = (own.unsqueeze(2) & ~own.unsqueeze(1)).to(logits.dtype)
    apart = scores.unsqueeze(2) - scores.unsqueeze(1)
    ranked = ((apart.sign() + 1) / 2 * pairs).sum((1, 2))
    counts = pairs.sum((1, 2))
    there = (counts > 0).to(logits.dtype)
    mean = (ranked / counts.clamp(min=1)).sum() / there.sum().clamp(min=1)
    auroc = torch.where(there.sum() > 0, mean, torch.full_like(mean, 0.5))
    return {"accuracy": right, "query_loss": F.cross_entropy(bounded, targets), "auroc": auroc}


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
