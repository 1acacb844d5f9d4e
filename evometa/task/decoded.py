"""All images of a folder of class folders, decoded, with what is to be said about them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.task.cache import Arrays, cached, fingerprint
from evometa.task.folder import Broken, list_folder, shown
from evometa.task.images import decode
from evometa.task.reading import Reading, alike, listed

LEAST_USED = 1 / 16  # of the range of deep images; less leaves too few grey levels
BROKEN_NAMED = 10


@dataclass(frozen=True)
class Decoded:
    """The images of a folder.

    Attributes:
        place: the folder.
        images: shape `(images, channels, size, size)`, 0 to 255, sorted by class.
        owners: the class of each image, shape `(images,)`.
        names: of the classes.
        files: the images' own names within the folder.
        kinds: format, mode and changes of each image.
        split_of: class name to split, where folders say so; else empty.
        ignored: why entries were passed over, to their paths.
        broken: entries that were left out, and why.
        small: classes that were left out because they have too few images.
    """

    place: str
    images: npt.NDArray[np.uint8]
    owners: npt.NDArray[np.int64]
    names: list[str]
    files: list[str]
    kinds: list[tuple[str, str, list[str]]]
    split_of: Mapping[str, str]
    ignored: Mapping[str, Sequence[str]]
    broken: Sequence[str]
    small: Sequence[str]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each class begins, and where the last one ends."""
        return np.searchsorted(self.owners, np.arange(len(self.names) + 1))

    def reading(self, splits: Mapping[str, npt.NDArray[np.int64]]) -> Reading:
        """Return what was read, and log what looks wrong.

        Args:
            splits: split name to class numbers.

        Raises:
            TaskError: if nothing can be learned from these images.
        """
        split_of = {int(c): split for split, classes in splits.items() for c in classes}
        said = []
        if self.broken:
            said.append(
                f"{len(self.broken)} broken images are left out: "
                f"{listed(self.broken, BROKEN_NAMED)}"
            )
        if self.small:
            said.append(
                f"{len(self.small)} classes have too few images and are left out: "
                f"{listed(self.small)}"
            )
        said += alike(self.images, self.owners, self.names, self.files, split_of)
        said += self._twins()
        reading = Reading(
            self.place,
            len(self.names),
            len(self.images),
            dict(Counter(format for format, _, _ in self.kinds)),
            dict(Counter(mode for _, mode, _ in self.kinds)),
            dict(Counter(change for _, _, changes in self.kinds for change in changes)),
            self.ignored,
            said,
        )
        reading.log()
        return reading

    def _twins(self) -> list[str]:
        """Name the classes that two splits have by name, which then are hardly disjoint."""
        where: dict[str, list[str]] = {}
        for name in self.split_of:
            where.setdefault(Path(name).name, []).append(name)
        twins = [" = ".join(names) for names in where.values() if len(names) > 1]
        if not twins:
            return []
        return [
            f"{len(twins)} classes have the same name in several splits: {listed(twins)}; "
            "meta-learning is tested on classes that it has never seen"
        ]


def read_images(
    folder: Path, size: int, channels: int, *, invert: bool, least: int, skip_broken: bool
) -> Decoded:
    """Decode all images of a folder, or take them from the cache.

    Args:
        folder: holds class folders.
        size: side of the images, in pixels.
        channels: 1 for grey, 3 for colour.
        invert: make dark ink on light paper light on dark.
        least: images that a class must have where broken ones are left out.
        skip_broken: leave out what cannot be read, and classes that have too few images.

    Raises:
        TaskError: if there are none, or one is broken.
    """
    broken = Broken(skip_broken)
    found = list_folder(folder, broken)
    paths = [path for images in found.files.values() for path in images]
    owners = np.repeat(np.arange(len(found.files)), [len(own) for own in found.files.values()])
    key = fingerprint([path.absolute() for path in paths], size, channels, invert, skip_broken)
    arrays = cached(
        f"folder-{key}", lambda: _decode_all(paths, size, channels, invert, Broken(skip_broken))
    )
    facts: dict[str, Any] = json.loads(str(arrays["facts"]))
    images, kept, kinds = arrays["images"], arrays["kept"], arrays["kinds"]
    owners = owners[kept]
    names = list(found.files)
    large = np.bincount(owners, minlength=len(names)) >= (least if skip_broken else 0)
    if not large.all():
        held = large[owners]
        images, kept, kinds = images[held], kept[held], kinds[held]
        owners = (np.cumsum(large) - 1)[owners[held]]
    return Decoded(
        shown(folder),
        images,
        owners,
        [name for name, there in zip(names, large, strict=True) if there],
        [shown(paths[place].relative_to(folder)) for place in kept],
        [facts["kinds"][kind] for kind in kinds],
        found.split_of,
        found.passed,
        [*broken.entries, *facts["broken"]],
        [shown(name) for name, there in zip(names, large, strict=True) if not there],
    )


def _decode_all(
    paths: Sequence[Path], size: int, channels: int, invert: bool, broken: Broken
) -> Arrays:
    """Return the images, the places of those that could be read, and their kinds."""
    images, kept = [], []
    kinds: dict[tuple[str, str, tuple[str, ...]], int] = {}
    numbers = []
    brightest: tuple[float, Path] | None = None  # of deep images
    for place, path in enumerate(paths):
        try:
            picture = decode(path, size, channels, invert=invert)
        except TaskError as why:
            broken.refuse(path, f"is not a readable image: {why}")
            continue
        images.append(picture.pixels)
        kept.append(place)
        kind = picture.format, picture.mode, picture.changes
        numbers.append(kinds.setdefault(kind, len(kinds)))
        if picture.used is not None:
            brightest = max(brightest or (0.0, path), (picture.used, path))
    if not images:
        raise TaskError(f"none of {len(paths)} images can be read; the first: {broken.entries[0]}")
    if brightest and brightest[0] <= LEAST_USED:
        used, path = brightest
        raise TaskError(
            f"the deep images use at most {used:.2%} of the range that their depth declares (the "
            f"brightest is {shown(path)}), of which {round(used * 255) + 1} of 256 grey levels "
            "would be left; stretch them to their depth, or save them with 8 bits"
        )
    return {
        "images": np.stack(images),
        "kept": np.array(kept),
        "kinds": np.array(numbers),
        "facts": np.array(json.dumps({"kinds": list(kinds), "broken": broken.entries})),
    }
