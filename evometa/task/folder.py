"""What a folder of class folders holds: the files of each class, and what is passed over."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evometa.errors import TaskError
from evometa.task.images import suffixes
from evometa.task.protocol import SPLITS
from evometa.task.reading import HARMLESS

SPLIT_FOLDERS = {
    "meta-train": ("meta-train", "train", "training"),
    "meta-validation": ("meta-validation", "validation", "valid", "val"),
    "meta-test": ("meta-test", "test", "testing"),
}
LEFT_BY_SYSTEMS = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "lost+found", "$recycle.bin",
    "system volume information", "@eadir", "__pycache__",
}  # fmt: skip
OUTSIDE = "beside the class folders"


@dataclass
class Broken:
    """What cannot be read: an error, or left out and kept in mind where that is asked for.

    Attributes:
        skip: whether to leave it out.
        entries: what was left out, and why.
    """

    skip: bool
    entries: list[str] = field(default_factory=list)

    def refuse(self, path: Path, why: str) -> None:
        """Say that an entry cannot be used.

        Raises:
            TaskError: unless it is left out.
        """
        if not self.skip:
            raise TaskError(
                f"{shown(path)} {why}; mend or remove it, or pass --skip-broken to leave out "
                "what is broken"
            )
        self.entries.append(f"{shown(path)} {why}")


@dataclass
class Listing:
    """The images of a folder.

    Attributes:
        files: class name to images, both sorted.
        split_of: class name to split, where folders say so; else empty.
        passed: why entries are passed over, to their paths within the folder.
    """

    files: dict[str, list[Path]] = field(default_factory=dict)
    split_of: dict[str, str] = field(default_factory=dict)
    passed: dict[str, list[str]] = field(default_factory=dict)


def shown(path: Path | str) -> str:
    """Return a path as text that can be printed and stored, whatever bytes its name has."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def foreign(name: str) -> str:
    """Return why an entry of this name is nobody's data; empty if it may be."""
    hidden, forks, left = HARMLESS
    if name.startswith("."):
        return forks if name.startswith("._") else hidden
    return left if name.lower() in LEFT_BY_SYSTEMS else ""


def list_folder(
    folder: Path, broken: Broken, endings: frozenset[str] | None = None, what: str = "image"
) -> Listing:
    """Find the class folders of a folder, and the images, or files of another kind, in them.

    Args:
        folder: holds the class folders, or the folders of splits that do.
        broken: hears of what cannot be read.
        endings: of the files, in small letters; default those of images.
        what: one of them is.

    Raises:
        TaskError: if there are none, if only some of the three splits are there, or for an entry
            that cannot be read.
    """
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (OSError, ValueError) as error:
        raise TaskError(
            f"a data folder must exist, but there is none at {shown(folder)}: {error}"
        ) from error
    if not is_folder:
        raise TaskError(f"a data folder must be a folder, but that is a file at {shown(folder)}")
    return _Lister(folder, broken, suffixes() if endings is None else endings, what).listed()


class _Lister:
    def __init__(self, folder: Path, broken: Broken, endings: frozenset[str], what: str) -> None:
        self._folder, self._broken = folder, broken
        self._suffixes, self._what = endings, what
        self._suffix, self._empty = f"of no suffix of {_a(what)}", f"folders without {what}s"
        self._found = Listing()

    def listed(self) -> Listing:
        folders, files = self._entries(self._folder)
        self._pass(OUTSIDE, files)
        splits = self._splits(folders)
        if splits:
            self._pass(OUTSIDE, [path for path in folders if path not in splits.values()])
            for split in SPLITS:
                folders, files = self._entries(splits[split])
                self._pass(OUTSIDE, files)
                self._add_classes(folders, split)
        else:
            self._add_classes(folders, "")
        if not self._found.files:
            self._refuse_empty()
        return self._found

    def _add_classes(self, folders: list[Path], split: str) -> None:
        for path in folders:
            images = self._images(path)
            if images:
                name = str(path.relative_to(self._folder))
                self._found.files[name] = images
                if split:
                    self._found.split_of[name] = split
            else:
                self._pass(self._empty, [path])

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Return the folders and the images in a folder; all else is passed over or broken."""
        folders, files = [], []
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            self._broken.refuse(folder, f"cannot be opened: {error.strerror}")
            return [], []
        for path in paths:
            why = foreign(path.name)
            image = path.suffix.lower() in self._suffixes
            if why:
                self._pass(why, [path])
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                if image or not path.suffix:
                    why = "is a link that leads nowhere" if path.is_symlink() else "is out of reach"
                    self._broken.refuse(path, f"{why}: {error.strerror}")
                else:
                    self._pass(self._suffix, [path])
                continue
            if stat.S_ISDIR(mode):
                folders.append(path)
            elif not image:
                self._pass(self._suffix, [path])
            elif stat.S_ISREG(mode):
                files.append(path)
            else:
                self._broken.refuse(path, "is no file but a pipe, socket or device")
        return folders, files

    def _images(self, folder: Path) -> list[Path]:
        """Return the images of a class folder."""
        folders, files = self._entries(folder)
        for path in folders:
            if self._holds_images(path):
                self._broken.refuse(
                    path,
                    f"is a folder of {self._what}s within the class folder {shown(folder.name)}, "
                    f"but class folders hold {self._what}s alone; move them up, or pass --data "
                    f"{shown(folder)} if the class folders are in there",
                )
            else:
                self._pass(self._empty, [path])
        return files

    def _splits(self, folders: list[Path]) -> dict[str, Path]:
        """Return the folder of each split; nothing if the folders are classes.

        Folders that are named like splits are those if they hold folders of images.
        """
        named: dict[str, list[Path]] = {}
        for path in folders:
            plain = path.name.lower().replace("_", "-")
            for split, names in SPLIT_FOLDERS.items():
                if plain in names:
                    named.setdefault(split, []).append(path)
        flat = [path for paths in named.values() for path in paths]
        if not any(self._holds_images(inner) for path in flat for inner in _folders(path)):
            if len(flat) > 1 and len(flat) == len(folders):
                raise TaskError(
                    f"{shown(flat[0])} must hold one folder a class, as the folder of a split "
                    "does, but holds none"
                )
            return {}
        for split, paths in named.items():
            if len(paths) > 1:
                raise TaskError(
                    f"there must be one folder for {split}, but {shown(self._folder)} has "
                    f"{' and '.join(shown(path.name) for path in paths)}; join them"
                )
        missing = [split for split in SPLITS if split not in named]
        if missing:
            ways = " and ".join(
                f"{split} (a folder {SPLIT_FOLDERS[split][1]})" for split in missing
            )
            raise TaskError(
                f"{shown(self._folder)} has {' and '.join(shown(path.name) for path in flat)}, but "
                f"nothing for {ways}: move some of the class folders there, or put all class "
                "folders into one folder to have them split at random"
            )
        return {split: paths[0] for split, paths in named.items()}

    def _holds_images(self, folder: Path) -> bool:
        """Tell whether a folder, or any in it, holds images; links in it are not followed."""
        for _, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not foreign(name)]
            if any(Path(n).suffix.lower() in self._suffixes and not foreign(n) for n in files):
                return True
        return False

    def _pass(self, why: str, paths: list[Path]) -> None:
        entries = [shown(path.relative_to(self._folder)) for path in paths]
        if entries:
            self._found.passed.setdefault(why, []).extend(entries)

    def _refuse_empty(self) -> None:
        passed = [entry for entries in self._found.passed.values() for entry in entries]
        usual = (".png", ".jpg", ".webp", ".tif", ".txt")
        some = [each for each in usual if each in self._suffixes]
        some += ["..."] if len(some) < len(self._suffixes) else []
        more = f"; left out as broken: {self._broken.entries[0]}" if self._broken.entries else ""
        raise TaskError(
            f"a data folder must hold class folders with {self._what}s ({', '.join(some)}), but "
            f"{shown(self._folder)} has none (it holds {', '.join(passed[:5]) or 'nothing'}){more}"
        )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _folders(path: Path) -> Iterator[Path]:
    try:
        yield from (p for p in path.iterdir() if not foreign(p.name) and p.is_dir())
    except OSError:
        return
