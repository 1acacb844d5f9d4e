"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people (Lake et al., 2015)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.task.cache import Arrays, cache_folder, cached, fingerprint
from evometa.task.classes import ClassTask, class_task, takes_no_more
from evometa.task.download import ARCHIVES, download_archives
from evometa.task.folder import foreign
from evometa.task.image_folder import shuffled_splits
from evometa.task.images import decode
from evometa.task.sampler import Classes, Range

SIDE = 28
DRAWINGS = 20
BACKGROUND, EVALUATION = 964, 659
VALIDATION = 100


@dataclass(frozen=True)
class OmniglotArchives:
    """Where the characters of `Omniglot` come from; the arguments are described there."""

    split: str
    seed: int

    def __post_init__(self) -> None:
        if self.split not in ("random", "background"):
            raise TaskError(f"`split` must be 'random' or 'background', got {self.split!r}")

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Decode the drawings of a folder, or of the archives that were downloaded.

        Args:
            data: holds `images_background.zip` and `images_evaluation.zip`, or the folders they
                extract to.
            download: fetch the archives to the user's cache if there is no `data`.
            skip_broken: has no effect; the data set is either whole or refused.
            least: has no effect; all characters have twenty drawings.

        Raises:
            TaskError: if the data is missing or not whole.
        """
        folder = data or _downloaded(download)
        if not folder.is_dir():
            raise TaskError(f"a data folder must exist, but there is none at {folder}")
        sources = [_source(folder, name) for name in ARCHIVES]
        key = fingerprint([file for source in sources for file in _parts(source)])
        arrays = cached(f"omniglot-{key}", lambda: _decode_all(sources))
        characters = BACKGROUND + EVALUATION
        classes = Classes(
            arrays["images"],
            np.arange(characters + 1) * DRAWINGS,
            self._splits(),
            rotations=self.split == "random",
        )
        return classes, [f"character {index}" for index in range(characters)]

    def describe(self) -> dict[str, Any]:
        """Return name and arguments."""
        return {"name": "Omniglot", **asdict(self)}

    def _splits(self) -> dict[str, npt.NDArray[np.int64]]:
        if self.split == "random":
            return shuffled_splits((1100, VALIDATION, 423), BACKGROUND + EVALUATION, self.seed)
        splits = shuffled_splits((BACKGROUND - VALIDATION, VALIDATION, 0), BACKGROUND, self.seed)
        return {**splits, "meta-test": np.arange(BACKGROUND, BACKGROUND + EVALUATION)}


@takes_no_more
def Omniglot(
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    split: str = "random",
    seed: int = 1,
    sampling: str = "equal",
) -> ClassTask:
    """Return few-shot classification of handwritten characters, 28x28, ink 1 on paper 0.

    Args:
        ways: characters in an episode, or a pair of least and most.
        shots: support drawings a character, or a pair.
        queries: query drawings a character.
        split: `"random"`: 1,100 / 100 / 423 characters at random, the four rotations of each as
            classes of their own (Santoro et al., 2016; Finn et al., 2017). `"background"`: the
            original split by alphabets, 659 evaluation characters for meta-test and the 964
            background characters for the rest, 100 of them, drawn by `seed`, for meta-validation;
            no rotations.
        seed: shuffles the characters.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `ClassTask`.

    Raises:
        TaskError: if an argument is none of these.
    """
    return class_task(OmniglotArchives(split, seed), ways, shots, queries, sampling)


def _downloaded(download: bool) -> Path:
    folder = cache_folder() / "omniglot"
    if all((folder / f"{name}.zip").exists() for name in ARCHIVES):
        return folder
    if download:
        download_archives(folder)
        return folder
    files = " and ".join(f"{name}.zip" for name in ARCHIVES)
    raise TaskError(
        f"Omniglot is not on this machine. Pass --download to fetch it (14 MB) to {folder}, or "
        f"--data DIR, where DIR holds {files} or the folders they extract to"
    )


def _source(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.zip"):
        if path.exists():
            return path
    raise TaskError(
        f"{folder} must hold {name}.zip or the folder {name}, but it holds "
        f"{', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'nothing'}"
    )


def _parts(source: Path) -> list[Path]:
    """Return the archive, or all drawings of an extracted folder."""
    return [source.resolve()] if source.is_file() else _drawings(source.resolve())


def _drawings(folder: Path) -> list[Path]:
    inside = ((path, path.relative_to(folder)) for path in folder.rglob("*.png"))
    return sorted(path for path, name in inside if not any(map(foreign, name.parts)))


def _decode_all(sources: list[Path]) -> Arrays:
    """Decode all drawings, characters in the order of alphabet and number."""
    images = []
    for source, expected in zip(sources, (BACKGROUND, EVALUATION), strict=True):
        with _files(source) as files:
            by_character: dict[str, list[str]] = {}
            for name in sorted(files):
                by_character.setdefault(name.rpartition("/")[0], []).append(name)
            counts = {len(names) for names in by_character.values()}
            if len(by_character) != expected or counts != {DRAWINGS}:
                raise TaskError(
                    f"{source} must hold {expected} characters of {DRAWINGS} drawings, but holds "
                    f"{len(by_character)} of {sorted(counts)}; fetch it anew"
                )
            for names in by_character.values():
                for name in names:
                    try:
                        drawing = decode(io.BytesIO(files[name]()), SIDE, 1, invert=True).pixels
                    except Exception as error:  # a damaged archive raises whatever its bytes mean
                        raise TaskError(
                            f"{source}: {name} is not a readable image: {error}; fetch it anew"
                        ) from error
                    images.append(drawing)
    return {"images": np.stack(images)}


@contextmanager
def _files(source: Path) -> Iterator[dict[str, Any]]:
    """Yield readers of the drawings by their path within the archive or folder."""
    if source.is_dir():
        yield {path.relative_to(source).as_posix(): path.read_bytes for path in _drawings(source)}
        return
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        raise TaskError(f"{source} is not a zip archive: {error}; fetch it anew") from error
    with archive:
        inside = [name for name in archive.namelist() if name.endswith(".png")]
        names = [name for name in inside if not any(map(foreign, name.split("/")))]
        yield {name: lambda name=name: archive.read(name) for name in names}
