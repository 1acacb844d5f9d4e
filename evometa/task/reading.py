"""What was read as the data of a task, what was passed over, and what looks wrong about it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError

log = logging.getLogger(__name__)

HARMLESS = ("hidden", "resource forks of macOS", "left by the operating system or by a tool")
"""Why entries are passed over without a warning."""
NAMED = 3  # entries that are named where there are many


@dataclass(frozen=True)
class Reading:
    """What data was read as; plain data.

    Attributes:
        place: the folder, or what it was.
        classes: that were read.
        images: that were read, or other examples.
        formats: of the files, to how many there are.
        modes: of their pixels, to how many there are.
        changes: what was done to images, to how many.
        ignored: why entries were passed over, to their paths within the folder.
        warnings: what looks wrong.
        what: the examples are.
        owners: what the classes are.
        details: more headings and texts.
    """

    place: str
    classes: int
    images: int
    formats: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, Sequence[str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    what: str = "images"
    owners: str = "classes"
    details: Sequence[tuple[str, str]] = ()

    def lines(self) -> list[tuple[str, str]]:
        """Return it as headings and texts."""
        counts = [
            (name, ", ".join(f"{count} {what}" for what, count in sorted(found.items())))
            for name, found in (("formats", self.formats), ("modes", self.modes))
            if found
        ]
        return [
            ("data", f"{self.place}: {self.classes} {self.owners}, {self.images} {self.what}"),
            *counts,
            *self.details,
            *[("changed", f"{count} {what}") for what, count in sorted(self.changes.items())],
            *[
                ("ignored", f"{len(entries)} {why}: {listed(entries)}")
                for why, entries in sorted(self.ignored.items())
            ],
            *[("warning", text) for text in self.warnings],
        ]

    def log(self) -> None:
        """Log the warnings, and what was passed over though it may be data."""
        for why, entries in self.ignored.items():
            if why not in HARMLESS:
                log.warning(
                    "%s: not read: %d %s: %s", self.place, len(entries), why, listed(entries)
                )
        for text in self.warnings:
            log.warning("%s: %s", self.place, text)


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep readings out of the log, for who prints them."""
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def listed(entries: Sequence[str], most: int = NAMED) -> str:
    """Name the first of many."""
    more = f" and {len(entries) - most} more" if len(entries) > most else ""
    return ", ".join(entries[:most]) + more


def alike(
    images: npt.NDArray[Any],
    owners: npt.NDArray[np.int64],
    names: Sequence[str],
    files: Sequence[str],
    split_of: Mapping[int, str],
    what: str = "images",
) -> list[str]:
    """Return what speaks against the examples of a set: equal ones, and those of a single colour.

    Args:
        images: shape `(images, channels, height, width)`; or other examples, `(examples, *shape)`.
        owners: the class of each image.
        names: of the classes.
        files: the images' own names.
        split_of: class to split.
        what: they are.

    Raises:
        TaskError: if nothing can be learned from them: all are equal, or all classes are.
    """
    flat = _flat(images)
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    if len(set(digests)) == 1 and len(digests) > 1:
        same = "one and the same flat colour" if len(flat) else f"the same {what[:-1]}"
        decoded = " once they are decoded" if what == "images" else ""
        raise TaskError(
            f"all {len(images)} {what} are {same}{decoded}, the first {files[0]}: "
            "there is nothing to learn; look at how they were saved"
        )
    where: dict[bytes, list[int]] = {}
    held: dict[int, list[bytes]] = {}
    for place, digest in enumerate(digests):
        where.setdefault(digest, []).append(place)
        held.setdefault(int(owners[place]), []).append(digest)
    sets: dict[frozenset[bytes], list[int]] = {}
    for owner, own in held.items():
        sets.setdefault(frozenset(own), []).append(owner)
    if len(sets) == 1 and len(held) > 1:
        raise TaskError(
            f"all {len(held)} classes hold the same {what}, {names[0]} as {names[1]}: there is "
            "nothing to tell apart"
        )
    found = []
    if len(flat):
        every = "all" if len(flat) == len(images) else f"{len(flat)} of"
        some = listed([files[place] for place in flat[:NAMED]])
        found.append(f"{every} {len(images)} {what} are of a single colour each, as {some}")
    copies = [[names[owner] for owner in same] for same in sets.values() if len(same) > 1]
    found += [f"these classes hold the same {what}: {listed(each)}" for each in copies[:NAMED]]
    return found + _repeated(where, owners, files, split_of, what)


def _repeated(
    where: Mapping[bytes, Sequence[int]],
    owners: npt.NDArray[np.int64],
    files: Sequence[str],
    split_of: Mapping[int, str],
    what: str,
) -> list[str]:
    """Return which examples come more than once, and how many of them in several splits."""
    pairs: list[tuple[bool, str]] = []  # whether in one split, and what is the same
    for places in where.values():
        if len(places) > 1:
            inside = {split_of[int(owners[place])] for place in places}
            pairs.append((len(inside) == 1, " = ".join(files[place] for place in places[:NAMED])))
    if not pairs:
        return []
    across = sum(not within for within, _ in pairs)
    named = listed([text for _, text in sorted(pairs)])
    return [
        f"{len(pairs)} {what} come more than once, {across} of them in more than one split: {named}"
    ]


def _flat(images: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return which are images of a single colour."""
    if images.ndim != 4:
        return np.array([], np.int64)
    colours = images.reshape(*images.shape[:2], -1)
    return np.flatnonzero((colours.max(2) == colours.min(2)).all(1))
