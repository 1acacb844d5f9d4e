"""A folder of class folders is a family of few-shot classification tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.files import local
from evometa.task.classes import ClassTask, class_task, takes_no_more
from evometa.task.decoded import read_images
from evometa.task.protocol import SPLITS
from evometa.task.sampler import Classes, Range


@dataclass(frozen=True)
class FolderOfImages:
    """Where the classes of an `ImageFolder` come from; the arguments are described there."""

    size: int
    channels: int
    fractions: tuple[float, float, float]
    seed: int
    invert: bool
    rotations: bool
    folder: str | None = field(compare=False)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise TaskError(f"`channels` must be 1 or 3, but got (channels={self.channels})")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise TaskError(f"`fractions` must be positive and sum to 1, got {self.fractions}")

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Decode the images, or take them from the cache.

        Raises:
            TaskError: if the folder is missing or empty, an image is broken, or all images or all
                classes are equal.
        """
        folder = data or (local(self.folder) if self.folder else None)
        if folder is None:
            raise TaskError(
                "an image folder must be given: pass --data DIR or ImageFolder(folder=)"
            )
        found = read_images(
            folder,
            self.size,
            self.channels,
            invert=self.invert,
            least=least,
            skip_broken=skip_broken,
        )
        splits = _split(found.names, found.split_of, self.fractions, self.seed)
        reading = found.reading(splits)
        classes = Classes(found.images, found.starts, splits, self.rotations, reading)
        return classes, found.names

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the place of the folder does not matter."""
        arguments = asdict(self)
        del arguments["folder"]
        return {"name": "ImageFolder", **arguments}


@takes_no_more
def ImageFolder(
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    size: int = 28,
    channels: int = 3,
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.2),
    seed: int = 0,
    invert: bool = False,
    rotations: bool = False,
    folder: str | None = None,
    sampling: str = "equal",
) -> ClassTask:
    """Return few-shot classification of the images in a folder.

    The folder holds one folder a class, split by `seed`, or three folders `meta-train`,
    `meta-validation` and `meta-test` (or `train`, `val`, `test`) which hold the class folders.
    Images of all formats that Pillow reads are decoded once, as `evometa.task.images.decode` says,
    and kept in the user's cache. All else is passed over. `classes.reading` says what was read,
    what was not, and what looks wrong.

    Args:
        ways: classes in an episode, or a pair of least and most.
        shots: support images a class, or a pair.
        queries: query images a class.
        size: side of the decoded images, in pixels.
        channels: 1 for grey, 3 for colour.
        fractions: shares of the classes in the three splits.
        seed: shuffles the classes before they are split.
        invert: make dark ink on light paper light on dark.
        rotations: count each of the four right-angle rotations as a class of its own.
        folder: where the images are; `load`'s argument comes first.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `ClassTask`.

    Raises:
        TaskError: if an argument has no such value.
    """
    source = FolderOfImages(size, channels, fractions, seed, invert, rotations, folder)
    return class_task(source, ways, shots, queries, sampling)


def shuffled_splits(
    counts: tuple[int, int, int], classes: int, seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Deal the classes, in random order, to the three splits."""
    order = np.random.default_rng(seed).permutation(classes)
    bounds = np.cumsum(counts)
    parts = np.split(order, bounds[:2])
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def _split(
    names: Sequence[str],
    split_of: Mapping[str, str],
    fractions: tuple[float, float, float],
    seed: int,
) -> dict[str, npt.NDArray[np.int64]]:
    if split_of:
        return {
            split: np.array([c for c, name in enumerate(names) if split_of[name] == split], int)
            for split in SPLITS
        }
    train = round(fractions[0] * len(names))
    validation = round(fractions[1] * len(names))
    counts = (train, validation, len(names) - train - validation)
    return shuffled_splits(counts, len(names), seed)
