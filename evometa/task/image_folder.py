"""A folder of class folders is a family of few-shot classification tasks."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from evometa.errors import TaskError
from evometa.task.cache import Arrays, cached
from evometa.task.classes import ClassTask, class_task
from evometa.task.protocol import SPLITS
from evometa.task.sampler import ImageClasses, Images, Range

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLIT_FOLDERS = {
    "meta-train": ("meta-train", "train"),
    "meta-validation": ("meta-validation", "validation", "valid", "val"),
    "meta-test": ("meta-test", "test"),
}


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
    ) -> tuple[ImageClasses, list[str]]:
        """Decode the images, or take them from the cache.

        Raises:
            TaskError: if the folder is missing or empty, or an image is broken.
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
            arrays, names = _without_small(arrays, names, least)
        splits = _split(names, split_of, self.fractions, self.seed)
        return ImageClasses(arrays["images"], arrays["starts"], splits, self.rotations), names

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the place of the folder does not matter."""
        arguments = asdict(self)
        del arguments["folder"]
        return {"name": "ImageFolder", **arguments}

    def _decode(self, file: io.BytesIO | Path) -> Images:
        return decode(file, self.size, self.channels, invert=self.invert)


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
    Images are decoded once, resized, and kept in the user's cache.

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


def decode(file: io.BytesIO | Path, size: int, channels: int, *, invert: bool) -> Images:
    """Return one image as bytes of shape `(channels, size, size)`."""
    with Image.open(file) as image:
        pixels = image.convert("L" if channels == 1 else "RGB")
        small = pixels.resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(small, dtype=np.uint8).reshape(size, size, channels).transpose(2, 0, 1)
    return 255 - array if invert else array


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
