"""A study with all that it needs, as a value: to keep with a run, to send to workers.

Small files travel with their bytes. Large ones are named by path and sha256, and must be found
unchanged when the study is run again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evometa.errors import StudyError
from evometa.study_file.modules import StudyModules
from evometa.study_file.needs import needed_files
from evometa.task.cache import cache_folder

FILE_BYTES = 16 * 2**20
"""Larger files are named, not kept."""
TOTAL_BYTES = 64 * 2**20
"""Of all files that are kept; the smallest come first."""


@dataclass(frozen=True)
class Large:
    """A file that is not kept.

    Attributes:
        path: where it is.
        sha256: what it held.
    """

    path: str
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A study with the files that it needs; their names are relative, as they lie to each other.

    Attributes:
        study: name of the study's file.
        module: name of its module, `"studies.mine"` in a package.
        roots: folders from which it imports.
        small: what is in the small files, the study's among them.
        large: the others.
    """

    study: str
    module: str
    roots: Sequence[str]
    small: Mapping[str, bytes]
    large: Mapping[str, Large]

    @classmethod
    def collect(cls, modules: StudyModules, base: Path) -> Bundle:
        """Gather what a study needs; it has been run.

        Args:
            modules: the study's.
            base: the folder of its project.
        """
        module, main = modules.main
        outside = [root for root in modules.roots if not root.is_relative_to(base)]
        names = {folder: folder.name or "root" for folder in (base,)}
        for folder in outside:
            taken = [*names.values()]
            names[folder] = next(
                n for k in range(len(taken) + 1) if (n := f"{folder.name}{'-' * k}") not in taken
            )

        def name(path: Path) -> str:
            home = next(folder for folder in names if path.is_relative_to(folder))
            return str(PurePosixPath(names[home], path.relative_to(home).as_posix()))

        small: dict[str, bytes] = {}
        large: dict[str, Large] = {}
        room = TOTAL_BYTES
        for path in sorted(needed_files(modules, base), key=lambda p: (p.stat().st_size, p)):
            size = path.stat().st_size
            if size > min(FILE_BYTES, room) and path != main:
                large[name(path)] = Large(str(path), sha256_of(path))
            else:
                small[name(path)] = modules.sources.get(path) or path.read_bytes()
                room -= size
        roots = [name(root) for root in modules.roots]
        return cls(name(main), module, roots, small, large)

    @classmethod
    def read(cls, study: Mapping[str, Any], read: Callable[[str | None], bytes]) -> Bundle:
        """Return what a run keeps.

        Args:
            study: study.json. What older runs need besides their file is looked for where it was.
            read: returns what is in a kept file, None for the study's; may raise `OSError`.

        Raises:
            StudyError: naming the files that are missing, or have been changed.
        """
        beside = Path(study["file"]).parent
        old = {"study": "study.py", "module": "study", "roots": [".", str(beside)]}
        kept = study.get("files") or {**old, "kept": {"study.py": ""}, "named": {}}
        wrong: list[str] = []
        small: dict[str, bytes] = {}
        large: dict[str, Large] = {}
        for name, sha256 in kept["kept"].items():
            own = name == kept["study"]  # a change of it is told with those of the declaration
            try:
                small[name] = read(None if own else name)
            except OSError as error:
                wrong.append(f"{name} cannot be read: {error}")
                continue
            if not own and hashlib.sha256(small[name]).hexdigest() != sha256:
                wrong.append(f"{name} is not what it was")
        for name, entry in kept["named"].items():
            large[name] = each = Large(**entry)
            if not Path(each.path).is_file():
                wrong.append(f"{name}, too large to be kept, is no longer at {each.path}")
            elif sha256_of(Path(each.path)) != each.sha256:
                wrong.append(f"{name}, too large to be kept, is not what it was, at {each.path}")
        if wrong:
            raise StudyError(
                "a run goes on only with the files that its study was started with, but "
                + "; ".join(wrong)
                + ". Put them back, or start a new run with another --run folder"
            )
        return cls(kept["study"], kept["module"], kept["roots"], small, large)

    @property
    def others(self) -> dict[str, bytes]:
        """The small files besides the study's own."""
        return {name: data for name, data in self.small.items() if name != self.study}

    def describe(self) -> dict[str, Any]:
        """Return names and hashes as plain data."""
        return {
            "study": self.study,
            "module": self.module,
            "roots": list(self.roots),
            "kept": {name: hashlib.sha256(data).hexdigest() for name, data in self.small.items()},
            "named": {name: vars(each) for name, each in self.large.items()},
        }

    def unpack(self) -> Path:
        """Return a folder with all files, the large ones as links; the same for equal bundles.

        It lies in the cache of evometa, or in a temporary folder where that cannot be written.

        Raises:
            StudyError: if a large file is not on this machine.
        """
        marks = [f"{name} {sha}" for name, sha in self.describe()["kept"].items()]
        marks += [f"{name} {each.path} {each.sha256}" for name, each in self.large.items()]
        digest = hashlib.sha256("\n".join(sorted(marks)).encode()).hexdigest()[:24]
        try:
            folder = cache_folder().resolve() / "studies" / digest
            folder.mkdir(parents=True, exist_ok=True)
            self._write(folder)
        except OSError:
            folder = Path(tempfile.mkdtemp(prefix="evometa-study-")).resolve()
            self._write(folder)
        return folder

    def _write(self, folder: Path) -> None:
        for root in self.roots:
            if root != "." and not Path(root).is_absolute():  # as in older runs
                _inside(folder, root).mkdir(parents=True, exist_ok=True)
        for name, data in self.small.items():
            file = _inside(folder, name)
            if file.is_file() and file.read_bytes() == data:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, written = tempfile.mkstemp(dir=file.parent)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(written).replace(file)
        for name, each in self.large.items():
            if not Path(each.path).is_file():
                raise StudyError(
                    f"a file of the study, {name}, is too large to be sent along, and this machine "
                    f"({os.uname().nodename}) has none at {each.path}; put it there, or into a "
                    "folder that all machines share"
                )
            link = _inside(folder, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(each.path)


def _inside(folder: Path, name: str) -> Path:
    """Return where a file belongs.

    Raises:
        StudyError: if the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        raise StudyError(f"a file of a study must have a relative name, but got {name!r}")
    return folder.joinpath(*parts)


def sha256_of(path: Path) -> str:
    """Return the hash of a file; it is read again only when it has been written to."""
    stat = path.stat()
    return _hashed(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4096)
def _hashed(path: str, modified: int, size: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
