"""Few-shot tasks of arrays in memory: examples with labels, or values in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evometa.errors import TaskError
from evometa.task.classes import ClassTask, class_task
from evometa.task.groups import Groups, GroupTask
from evometa.task.image_folder import shuffled_splits
from evometa.task.protocol import SPLITS
from evometa.task.reading import Reading, alike, listed
from evometa.task.sampler import Classes, Range

Array = npt.NDArray[Any]
Splits = tuple[float, float, float] | Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class LabelledArrays:
    """Where the classes of `Arrays` come from: examples sorted by label."""

    examples: Array
    starts: npt.NDArray[np.int64]
    names: tuple[str, ...]
    splits: Mapping[str, npt.NDArray[np.int64]]
    described: Mapping[str, Any] = field(default_factory=dict)
    place: str = "arrays"
    what: str = "examples"

    @classmethod
    def of(
        cls, examples: Array, labels: Any, splits: Splits, seed: int, **told: Any
    ) -> LabelledArrays:
        """Return examples sorted by label, their classes dealt to the splits.

        Args:
            examples: shape `(examples, *shape)`.
            labels: of any one kind.
            splits: as in `Arrays`.
            seed: deals the classes.
            told: more fields.

        Raises:
            TaskError: if labels or splits cannot be.
        """
        names, owners = np.unique(_labels(labels, "y", len(examples)), return_inverse=True)
        order = np.argsort(owners, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(names)))])
        found = dealt(splits, names, seed)
        return cls(examples[order], starts, tuple(map(str, names.tolist())), found, **told)

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Return the classes that are large enough, where small ones may be skipped.

        Raises:
            TaskError: if a data folder is given, or there is nothing to tell apart.
        """
        _refuse_folder(data)
        wanted = {int(number) for own in self.splits.values() for number in own}
        enough = np.diff(self.starts) >= (least if skip_broken else 0)
        kept = [number for number in range(len(self.names)) if number in wanted and enough[number]]
        every = range(len(self.names))
        ignored = {
            "classes of no split": [self.names[each] for each in every if each not in wanted],
            "classes of too few examples": [
                self.names[each] for each in wanted if not enough[each]
            ],
        }
        rows = [np.arange(*self.starts[number : number + 2]) for number in kept]
        place = {number: new for new, number in enumerate(kept)}
        splits = {
            split: np.array([place[number] for number in own if number in place], np.int64)
            for split, own in self.splits.items()
        }
        examples = self.examples[np.concatenate([*rows, np.array([], np.int64)])]
        starts = np.cumsum([0, *map(len, rows)])
        names = [self.names[number] for number in kept]
        reading = self._reading(Classes(examples, starts, splits), names, ignored)
        reading.log()
        return Classes(examples, starts, splits, reading=reading), names

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the arrays themselves are known by their hash."""
        return {"name": "Arrays", **self.described}

    def _reading(
        self, classes: Classes, names: list[str], ignored: dict[str, list[str]]
    ) -> Reading:
        """Return what the arrays were read as, and what looks wrong about them."""
        sizes = np.diff(classes.starts)
        split_of = {int(number): split for split, own in classes.splits.items() for number in own}
        warnings = alike(
            classes.examples,
            np.repeat(np.arange(len(names)), sizes),
            names,
            [f"{name} #{k}" for name, size in zip(names, sizes, strict=True) for k in range(size)],
            split_of,
            what=self.what,
        )
        return Reading(
            self.place,
            len(names),
            len(classes.examples),
            ignored={why: found for why, found in ignored.items() if found},
            warnings=warnings,
            what=self.what,
        )


def Arrays(
    x: Any,
    y: Any,
    *,
    group: Any = None,
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    splits: Splits = (0.64, 0.16, 0.2),
    seed: int = 0,
    sampling: str = "equal",
) -> ClassTask | GroupTask:
    """Return few-shot tasks of arrays in memory.

    Without `group`, `y` are labels and an episode tells some of the classes apart. With `group`,
    `y` are values, and an episode is one group: learn from some of its rows, predict others.

    Args:
        x: inputs, of numpy, torch or nested lists, shape `(examples, *shape)`. Floats become
            float32, whole numbers int64 (tokens, say), truth values float32. Pixels, uint8 of two
            axes or more an example, become floats of 0 to 1; one channel needs an axis of its own,
            `(examples, 1, height, width)`.
        y: labels of any one kind, shape `(examples,)`; or values, `(examples,)` or
            `(examples, outputs)`, which networks predict in the shape `(examples, outputs)`.
        group: which group each row belongs to, of any one kind, shape `(examples,)`.
        ways: classes in an episode, or a pair of least and most; without `group` alone.
        shots: support examples a class, or of the group; for classes also a pair.
        queries: query examples a class, or of the group.
        splits: shares of the classes or groups in the three splits; or the labels or groups of
            each by name, `{"meta-train": [...], "meta-validation": [...], "meta-test": [...]}`.
        seed: shuffles the classes or groups before they are split.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `ClassTask`.

    Raises:
        TaskError: if the arrays do not fit together, hold what cannot be learned from, or an
            argument has no such value.
    """
    inputs = _inputs(x)
    described = {"seed": seed, "splits": as_plain(splits)}
    if group is None:
        source = LabelledArrays.of(inputs, y, splits, seed, described=described)
        return class_task(source, ways, shots, queries, sampling)
    names, owners = np.unique(_labels(group, "group", len(inputs)), return_inverse=True)
    order = np.argsort(owners, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(names)))])
    texts = tuple(map(str, names.tolist()))
    found = dealt(splits, names, seed)
    if sampling != "equal" or not isinstance(shots, int):
        raise TaskError(
            "groups of values are sampled alike, with one number of `shots`, got "
            f"sampling={sampling!r} and shots={shots!r}"
        )
    values = _values(y, len(inputs))
    groups = Groups(inputs[order], values[order], starts, texts, found)
    return GroupTask(groups, shots, queries, described)


def _inputs(x: Any) -> Array:
    """Return the inputs as one array of float32, int64 or uint8."""
    found = _array(x, "x")
    if not found.ndim or not len(found):
        raise TaskError(
            f"`x` must have the shape (examples, *shape), got {found.shape}: there are no examples"
        )
    if found.dtype == np.uint8 and found.ndim >= 3:
        return found
    if found.dtype.kind in "iu":
        if found.dtype == np.uint64 and int(found.max()) >= 2**63:
            raise TaskError("`x` must fit into int64, but holds larger numbers")
        return found.astype(np.int64)
    if found.dtype.kind not in "fb":
        raise TaskError(
            f"`x` must hold floats, whole numbers or truth values, got the type {found.dtype}; "
            "texts and categories must be numbers first"
        )
    return _finite(found, "x")


def _values(y: Any, count: int) -> Array:
    """Return values of shape `(examples, outputs)`, float32."""
    found = _array(y, "y")
    if found.ndim not in (1, 2) or len(found) != count or found.dtype.kind not in "iufb":
        raise TaskError(
            f"`y` of groups must be {count} numbers, as many as `x` has rows, of shape (examples,) "
            f"or (examples, outputs), got the shape {found.shape} and the type {found.dtype}"
        )
    return _finite(found.reshape(count, -1), "y")


def _finite(found: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        single = found.astype(np.float32)
    good = np.logical_and.reduce(np.isfinite(single.reshape(len(single), -1)), axis=1)
    if not good.all():
        rows = [str(row) for row in np.flatnonzero(~good)[:3]]
        raise TaskError(
            f"`{name}` must be finite, and within float32, but {int((~good).sum())} of {len(good)} "
            f"rows are not, as row {listed(rows)}; fill or leave out what is missing"
        )
    return single


def _labels(values: Any, name: str, count: int) -> Array:
    """Return labels or groups as an array that can be sorted."""
    if isinstance(values, (list, tuple)) and None not in values:
        kinds = sorted({type(each).__name__ for each in values})
        if len(kinds) > 1:
            raise TaskError(f"`{name}` must hold labels of one kind, got {', '.join(kinds)}")
    found = _array(values, name)
    if found.shape != (count,):
        raise TaskError(
            f"`{name}` must have the shape ({count},), a label for each row of `x`, got "
            f"{found.shape}"
        )
    if found.dtype.kind == "f":
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found))[0])
            raise TaskError(f"`{name}` must name a class for each row, but row {row} is missing")
        if (found != np.round(found)).any():
            raise TaskError(
                f"`{name}` must hold labels, but holds values such as "
                f"{found[found != np.round(found)][0]:g}; to learn values, say with `group` which "
                "rows belong together"
            )
        return found.astype(np.int64)
    if found.dtype.kind == "O":
        missing = [row for row, each in enumerate(found.tolist()) if each is None or each != each]
        if missing:
            raise TaskError(
                f"`{name}` must name a class for each row, but row {missing[0]} is missing"
            )
        kinds = sorted({type(each).__name__ for each in found.tolist()})
        if kinds != ["str"]:
            raise TaskError(f"`{name}` must hold labels of one kind, got {', '.join(kinds)}")
        return found.astype(str)
    return found


def _array(values: Any, name: str) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        return np.array(values)
    except (ValueError, TypeError) as error:
        raise TaskError(f"`{name}` must be an array, or become one: {error}") from error


def dealt(splits: Splits, names: Array, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return which classes or groups belong to which split, by number.

    Args:
        splits: shares of them, or the names of each split.
        names: of all, sorted.
        seed: shuffles them before shares are dealt.

    Raises:
        TaskError: if there is no such split, or one is in two of them.
    """
    if not isinstance(splits, Mapping):
        shares = np.array(splits, float)
        if shares.shape != (3,) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
            raise TaskError(f"`splits` must be three shares of sum 1, or a dict, got {splits!r}")
        train, validation = (round(share * len(names)) for share in shares[:2])
        counts = (train, validation, len(names) - train - validation)
        return shuffled_splits(counts, len(names), seed)
    if set(splits) != set(SPLITS):
        raise TaskError(
            f"`splits` must name {', '.join(SPLITS)}, got {', '.join(map(str, splits))}"
        )
    places = {name: place for place, name in enumerate(names.tolist())}
    taken: dict[Any, str] = {}
    found = {}
    for split in SPLITS:
        own = [each.item() if isinstance(each, np.generic) else each for each in splits[split]]
        for each in own:
            if each not in places:
                raise TaskError(f"{split} names {each!r}, but no row is of it")
            if each in taken:
                raise TaskError(f"{each!r} is in {taken[each]} and in {split}: splits must differ")
            taken[each] = split
        found[split] = np.array(sorted(places[each] for each in own), np.int64)
    return found


def as_plain(splits: Splits) -> Any:
    """Return splits as plain data."""
    if not isinstance(splits, Mapping):
        return [float(share) for share in splits]
    return {split: [str(each) for each in own] for split, own in splits.items()}


def _refuse_folder(data: Path | None) -> None:
    if data is not None:
        raise TaskError(f"arrays are in memory, but got --data {data}; leave it out")
