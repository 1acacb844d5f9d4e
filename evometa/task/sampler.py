"""Examples by class, and how episodes are drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evometa.errors import TaskError
from evometa.network import Padded
from evometa.task.protocol import IGNORED, ClassBatch, EpisodeBatch, split_seed
from evometa.task.reading import Reading

Numbers = npt.NDArray[np.int64]
Range = int | tuple[int, int]

SAMPLINGS = ("equal", "unequal", "meta-dataset")
SUPPORTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Sizes that support sets are padded to, few so that compiled programs stay few."""
VALUES = 4  # of a range that are drawn, for the same reason
META_DATASET_WAYS = (5, 50)
META_DATASET_SUPPORT, META_DATASET_SHOTS = 500, 100  # most examples of a support set, of a class


@dataclass(frozen=True)
class Episodic:
    """The shape of an episode of classes.

    Attributes:
        ways: classes in an episode; a pair for anything from the first to the second, drawn for
            each meta-batch.
        shots: support examples a class, or a pair; the mean where they are unequal.
        queries: query examples a class, at most.
        sampling: `"equal"`, all classes of an episode have as many examples; `"unequal"`, their
            shares of the support set differ by up to four times; `"meta-dataset"`, as published
            with Meta-Dataset (Triantafillou et al., 2020): shares go by the size of a class as
            well, and the size of the support set is drawn, up to 500.
        support: examples of a support set; None for ways times shots.
        share: of each class's examples that a support set of Meta-Dataset may take, 0 to 1.
    """

    ways: Range
    shots: Range
    queries: int
    sampling: str = "equal"
    support: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            low, high = bounds_of(getattr(self, name))
            if not (isinstance(low, int) and isinstance(high, int)) or low < least or high < low:
                raise TaskError(
                    f"`{name} >= {least}` must hold, but got ({name}={getattr(self, name)})"
                )
        if self.sampling not in SAMPLINGS:
            raise TaskError(
                f"`sampling` must be one of {', '.join(map(repr, SAMPLINGS))}, got "
                f"{self.sampling!r}"
            )

    @property
    def varies(self) -> bool:
        """Whether shapes differ from one meta-batch to the next."""
        ranges = not (isinstance(self.ways, int) and isinstance(self.shots, int))
        return ranges or (self.sampling == "meta-dataset" and self.support is None)

    def drawn(self, rng: np.random.Generator, classes: int, sizes: Numbers) -> Episodic:
        """Return the shape of one meta-batch.

        Args:
            rng: draws.
            classes: there are in the smallest split.
            sizes: examples of each class.
        """
        low, high = bounds_of(self.ways)
        if self.sampling != "meta-dataset":
            return replace(self, ways=_one(rng, low, high), shots=_one(rng, *bounds_of(self.shots)))
        ways = int(rng.integers(low, max(low, min(high, classes)) + 1))
        share = 1.0 - rng.random()
        each = min(META_DATASET_SHOTS, int(sizes.max() - min(self.queries, sizes.min() // 2)))
        size = min(META_DATASET_SUPPORT, ways * int(np.ceil(share * each)))
        support = next(step for step in SUPPORTS if step >= max(size, ways))
        return replace(self, ways=ways, shots=1, support=support, share=share)

    def counts(self, rng: np.random.Generator, there: Numbers) -> tuple[Numbers, Numbers]:
        """Return how many support and query examples there are of each class.

        Args:
            rng: draws the shares of unequal classes.
            there: examples of each class, shape `(tasks, ways)`.
        """
        queries = np.full_like(there, self.queries)
        if self.sampling == "equal":
            return np.full_like(there, self.shots), queries
        ways = there.shape[1]
        queries = np.minimum(queries, there.min(1, keepdims=True) // 2)
        left = there - queries
        shares = np.exp(rng.uniform(np.log(0.5), np.log(2), there.shape))
        if self.sampling == "unequal":
            size = np.full((len(there), 1), ways * bounds_of(self.shots)[1])
        else:
            shares *= there
            most = np.ceil(self.share * np.minimum(META_DATASET_SHOTS, left)).astype(int)
            size = np.minimum(most.sum(1, keepdims=True), META_DATASET_SUPPORT)
        exact = shares / shares.sum(1, keepdims=True) * np.maximum(size - ways, 0)
        wanted = np.floor(exact).astype(int) + 1
        if self.sampling == "unequal":  # what rounding has left goes to the largest remainders
            rank = np.argsort(np.argsort(np.floor(exact) - exact, axis=1), axis=1)
            wanted += rank < size - wanted.sum(1, keepdims=True)
        return np.minimum(wanted, left), queries


def bounds_of(value: Range) -> tuple[int, int]:
    """Return the least and the most of a range, or of one number."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _one(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw one of at most `VALUES` numbers between two, as far apart in ratio."""
    steps = np.unique(np.geomspace(low, high, VALUES).round().astype(int))
    return int(rng.choice(steps)) if len(steps) > 1 else low


@dataclass(frozen=True)
class Classes:
    """Examples sorted by class, and which classes belong to which split.

    Never written to: on a worker the arrays are shared by all processes of a node.

    Attributes:
        examples: shape `(examples, *shape)`; pixels of 0 to 255, uint8, become floats of 0 to 1,
            all else stays of its type.
        starts: shape `(classes + 1,)`; class `c` owns examples `starts[c]` to `starts[c + 1]`.
        splits: split name to class numbers.
        rotations: count each of the four right-angle rotations of images as a class of its own.
        reading: what they were read from, where that is known.
        masked: whether examples are tokens, below 0 where there is none; inputs are then
            `{"tokens": ..., "mask": ...}`, with 0 where the mask, bool of the same shape, says
            that there is none.
    """

    examples: npt.NDArray[Any]
    starts: Numbers
    splits: Mapping[str, Numbers]
    rotations: bool = False
    reading: Reading | None = None
    masked: bool = False

    def check(self, shape: Episodic, names: list[str]) -> None:
        """Raise `TaskError` if a class or a split is too small for an episode."""
        counts = np.diff(self.starts)
        fixed = shape.sampling == "equal"
        least = bounds_of(shape.shots)[1] + shape.queries if fixed else 2
        small = [
            f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < least
        ]
        if small:
            more = f" and {len(small) - 5} more" if len(small) > 5 else ""
            wanted = "shots + queries" if fixed else "one example and one query"
            raise TaskError(
                f"each class needs at least {wanted} = {least} examples,"
                f" but these have fewer: {', '.join(small[:5])}{more}; "
                "add examples, or lower shots or queries"
            )
        ways = bounds_of(shape.ways)[shape.sampling != "meta-dataset"]
        for split in self.splits:
            if self.available(split) < ways:
                raise TaskError(
                    f"{split} needs at least ways = {ways} classes, but has "
                    f"{self.available(split)}; add classes, lower ways, or change the split"
                )

    def available(self, split: str) -> int:
        """Return how many classes a split has."""
        return len(self.splits[split]) * (4 if self.rotations else 1)

    def sized(self, shape: Episodic, generator: torch.Generator) -> Episodic:
        """Return the shape of one meta-batch."""
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        fewest = min(self.available(split) for split in self.splits)
        return shape.drawn(rng, fewest, np.diff(self.starts))

    def episodes(
        self, shape: Episodic, split: str, n: int, generator: torch.Generator
    ) -> EpisodeBatch:
        """Draw episodes: distinct classes in random label order, distinct examples in a class.

        Returns:
            Support of shape `(n, examples, *shape)` and queries likewise, sorted by label. Where
            classes are unequal, sides are padded to equal sizes.
        """
        rng = np.random.default_rng(split_seed(split, generator))
        own = self.splits[split]
        turns = 4 if self.rotations else 1
        ways = bounds_of(shape.ways)[1]
        picks = np.stack([rng.choice(len(own) * turns, ways, replace=False) for _ in range(n)])
        classes, turn = own[picks // turns], picks % turns
        first, there = self.starts[classes], np.diff(self.starts)[classes]
        support, query = shape.counts(rng, there)
        most = int((support + query).max())
        chosen = _distinct(rng, there, most) + first[..., None]  # (n, ways, most)
        named = torch.from_numpy(picks)
        place = np.arange(most)
        before = (place < support[..., None], support.sum(1))
        after = (~before[0] & (place < (support + query)[..., None]), query.sum(1))
        sizes = (shape.support or int(before[1].max()), ways * shape.queries)
        if shape.sampling == "unequal":
            sizes = (ways * bounds_of(shape.shots)[1], sizes[1])
        sides = [
            self._side(chosen, turn, mask, size, named, padded=shape.sampling != "equal")
            for (mask, _), size in zip((before, after), sizes, strict=True)
        ]
        return EpisodeBatch(*sides)

    def _side(
        self,
        chosen: Numbers,
        turn: Numbers,
        mask: npt.NDArray[np.bool_],
        size: int,
        named: torch.Tensor,
        *,
        padded: bool,
    ) -> ClassBatch:
        """Return one side: the examples that a mask of shape `(n, ways, most)` says.

        Whether it is `Padded` follows from the sampling, not from what was drawn: the sides of an
        episode and the draws of a pack must have one structure.
        """
        n, _, most = mask.shape
        flat = mask.reshape(n, -1)
        flat = np.pad(flat, ((0, 0), (0, max(0, size - flat.shape[1]))))
        order = np.argsort(~flat, axis=1, kind="stable")[:, :size]  # the real ones first
        real = np.take_along_axis(flat, order, 1)
        labels = np.where(real, order // most, IGNORED)
        order = np.where(real, order, order[:, :1])  # padding repeats the first example
        examples = self.examples[np.take_along_axis(chosen.reshape(n, -1), order, 1)]
        turns = np.take_along_axis(turn, order // most, 1)
        for quarter in range(1, 4 if self.rotations else 1):
            which = turns == quarter
            examples[which] = np.rot90(examples[which], quarter, axes=(-2, -1))
        # in PyTorch's own order: numpy's strides of a single channel would pass for channels last
        pixels = examples.dtype == np.uint8
        inputs = torch.from_numpy(examples).to(
            torch.float32 if pixels else None, memory_format=torch.contiguous_format, copy=True
        )
        inputs = inputs.div_(255.0) if pixels else inputs
        given: Any = inputs
        if self.masked:
            given = {"tokens": inputs.clamp(min=0), "mask": inputs >= 0}
        given = Padded(given, torch.from_numpy(real)) if padded else given
        return ClassBatch(given, torch.from_numpy(labels), named)

    def digest(self) -> str:
        """Return a short hash of examples and split."""
        digest = hashlib.sha256(np.ascontiguousarray(self.examples).data)
        digest.update(np.ascontiguousarray(self.starts).data)
        for split, classes in self.splits.items():
            digest.update(split.encode() + np.ascontiguousarray(classes).data)
        return digest.hexdigest()[:16]


def _distinct(rng: np.random.Generator, counts: Numbers, k: int) -> Numbers:
    """Draw `k` distinct numbers below each count: the order of the smallest random keys."""
    keys = rng.random((*counts.shape, int(counts.max())))
    keys[np.arange(keys.shape[-1]) >= counts[..., None]] = 2.0  # beyond the class's examples
    smallest = np.argpartition(keys, k - 1, axis=-1)[..., :k] if k < keys.shape[-1] else None
    if smallest is None:
        return np.argsort(keys, axis=-1)[..., :k]
    inner = np.argsort(np.take_along_axis(keys, smallest, -1), axis=-1)
    return np.take_along_axis(smallest, inner, -1)
