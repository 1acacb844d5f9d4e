"""A folder of class folders is a family of few-shot classification tasks."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from evometa.errors import TaskError
from evometa.task.cache import Arrays, cached
from evometa.task.protocol import SPLITS, EpisodeBatch
from evometa.task.sampler import (
    CLASSIFICATION_METRICS,
    Episodic,
    ImageClasses,
    Images,
    classification_loss,
    classification_scores,
)

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT_FOLDERS = {
    "meta-train": ("meta-train", "train"),
    "meta-validation": ("meta-validation", "validation", "valid", "val"),
    "meta-test": ("meta-test", "test"),
}


@dataclass(frozen=True)
class ImageFolder:
    """Few-shot classification of the images in a folder.

    The folder holds one folder a class, split by `seed`, or three folders `meta-train`,
    `meta-validation` and `meta-test` (or `train`, `val`, `test`) which hold the class folders.
    Images are decoded once, resized, and kept in the user's cache.

    Attributes:
        ways: classes in an episode.
        shots: support images a class.
        queries: query images a class.
        size: side of the decoded images, in pixels.
        channels: 1 for grey, 3 for colour.
        fractions: shares of the classes in the three splits.
        seed: shuffles the classes before they are split.
        invert: make dark ink on light paper light on dark.
        rotations: count each of the four right-angle rotations as a class of its own.
        folder: where the images are; `load`'s argument comes first.
        classes: the decoded images, once loaded.
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15
    size: int = 28
    channels: int = 3
    fractions: tuple[float, float, float] = (0.64, 0.16, 0.2)
    seed: int = 0
    invert: bool = False
    rotations: bool = False
    folder: str | None = None
    classes: ImageClasses | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _ = self._shape
        if self.channels not in (1, 3):
            raise TaskError(f"`channels` must be 1 or 3, but got (channels={self.channels})")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise TaskError(f"`fractions` must be positive and sum to 1, got {self.fractions}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Accuracy and cross-entropy of the queries."""
        return CLASSIFICATION_METRICS

    @property
    def _shape(self) -> Episodic:
        return Episodic(self.ways, self.shots, self.queries)

    def load(
        self, data: Path | None, *, download: bool = False, skip_broken: bool = False
    ) -> ImageFolder:
        """Decode the images, or take them from the cache.

        Raises:
            TaskError: if the folder is missing or empty, an image is broken, or a class or split
                is too small.
        """
        folder = data or (Path(self.folder) if self.folder else None)
        if folder is None:
            raise TaskError(
                "an image folder must be given: pass --data DIR or ImageFolder(folder=)"
            )
        files, split_of = _list_classes(folder)
        names = list(files)
        key = _fingerprint(folder, files, self.size, self.channels, self.invert, skip_broken)
        arrays = cached(
            f"folder-{key}", lambda: _decode_all(files, self._decode, skip_broken=skip_broken)
        )
        if skip_broken:
            arrays, names = _without_small(arrays, names, self.shots + self.queries)
        splits = _split(names, split_of, self.fractions, self.seed)
        classes = ImageClasses(arrays["images"], arrays["starts"], splits, self.rotations)
        classes.check(self._shape, names)
        return replace(self, classes=classes)

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` episodes: inputs `(n, examples, channels, size, size)`, 0 to 1."""
        return loaded(self.classes).episodes(self._shape, split, n, generator)

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy."""
        return classification_loss(predictions, targets)

    def scores(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return accuracy and mean cross-entropy."""
        return classification_scores(predictions, targets)

    def describe(self) -> dict[str, Any]:
        """Return name, arguments and the hash of images and split."""
        arguments = asdict(replace(self, classes=None, folder=None))
        del arguments["classes"], arguments["folder"]
        digest = None if self.classes is None else self.classes.digest()
        return {"name": type(self).__name__, **arguments, "data": digest}

    def _decode(self, file: io.BytesIO | Path) -> Images:
        return decode(file, self.size, self.channels, invert=self.invert)


def decode(file: io.BytesIO | Path, size: int, channels: int, *, invert: bool) -> Images:
    """Return one image as bytes of shape `(channels, size, size)`."""
    with Image.open(file) as image:
        pixels = image.convert("L" if channels == 1 else "RGB")
        small = pixels.resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(small, dtype=np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return 255 - array if invert else array


def loaded(classes: ImageClasses | None) -> ImageClasses:
    """Return the classes of a loaded task.

    Raises:
        TaskError: if it is not loaded.
    """
    if classes is None:
        raise TaskError("the task has no data yet: call task = task.load(folder) first")
    return classes


def shuffled_splits(
    counts: tuple[int, int, int], classes: int, seed: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Deal the classes, in random order, to the three splits."""
    order = np.random.default_rng(seed).permutation(classes)
    bounds = np.cumsum(counts)
    parts = np.split(order, bounds[:2])
    return {split: np.sort(part) for split, part in zip(SPLITS, parts, strict=True)}


def _list_classes(folder: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Return the files of each class, and each class's split where folders say so."""
    if not folder.is_dir():
        raise TaskError(f"a data folder must exist, but there is none at {folder}")
    found = {
        split: path
        for split, names in SPLIT_FOLDERS.items()
        for path in [next((folder / n for n in names if (folder / n).is_dir()), None)]
        if path is not None
    }
    files: dict[str, list[Path]] = {}
    split_of: dict[str, str] = {}
    roots = found if len(found) == len(SPLITS) else {"": folder}
    for split, root in roots.items():
        for path in sorted(p for p in root.iterdir() if p.is_dir()):
            images = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
            if images:
                name = str(path.relative_to(folder))
                files[name], split_of[name] = images, split
    if not files:
        raise TaskError(
            f"a data folder must hold class folders with {', '.join(SUFFIXES)} images, but "
            f"{folder} has none (it holds {len(list(folder.iterdir()))} entries)"
        )
    return files, split_of if len(roots) > 1 else {}


def _fingerprint(folder: Path, files: dict[str, list[Path]], *arguments: Any) -> str:
    digest = hashlib.sha256(repr((str(folder.resolve()), arguments)).encode())
    for name, paths in files.items():
        for path in paths:
            stat = path.stat()
            digest.update(f"{name}/{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def _decode_all(
    files: dict[str, list[Path]], read: Callable[[Path], Images], *, skip_broken: bool
) -> Arrays:
    images: list[Images] = []
    starts = [0]
    broken: list[Path] = []
    for paths in files.values():
        for path in paths:
            try:
                images.append(read(path))
            except (OSError, SyntaxError, ValueError) as error:
                if not skip_broken:
                    raise TaskError(
                        f"{path} is not a readable image: {error}; mend or remove it, or pass "
                        "--skip-broken to leave broken images out"
                    ) from error
                broken.append(path)
        starts.append(len(images))
    if not images:
        raise TaskError(f"none of {len(broken)} images can be read; the first: {broken[0]}")
    if broken:
        log.warning("%d broken images are left out; the first: %s", len(broken), broken[0])
    return {"images": np.stack(images), "starts": np.array(starts)}


def _without_small(arrays: Arrays, names: Sequence[str], least: int) -> tuple[Arrays, list[str]]:
    """Leave out the classes that have too few images."""
    starts = arrays["starts"]
    keep = [c for c, count in enumerate(np.diff(starts)) if count >= least]
    if len(keep) == len(names):
        return arrays, list(names)
    log.warning("%d classes have too few images and are left out", len(names) - len(keep))
    parts = [arrays["images"][starts[c] : starts[c + 1]] for c in keep]
    images = np.concatenate(parts) if parts else arrays["images"][:0]
    bounds = np.cumsum([0, *(len(part) for part in parts)])
    return {"images": images, "starts": bounds}, [names[c] for c in keep]


def _split(
    names: Sequence[str],
    split_of: dict[str, str],
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
