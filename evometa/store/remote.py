"""Run directories on object stores: S3, Google Cloud Storage, Azure, what `pyarrow.fs` opens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pyarrow import fs

from evometa.errors import StoreError
from evometa.files import local

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE = 0.5  # seconds; doubles each time

T = TypeVar("T")


class UnreachableError(StoreError, OSError):
    """An object store does not answer, or says no."""


@total_ordering
class RemotePath:
    """A file or folder on an object store, with the part of `pathlib.Path` that a run needs.

    Operations that fail are repeated, for a quarter of a minute and what the store's client adds to
    it: in a long search cut connections are the rule.

    Args:
        system: of `pyarrow.fs`.
        path: in it.
        url: what the user wrote, for messages and commands to copy.
    """

    def __init__(self, system: fs.FileSystem, path: str, url: str) -> None:
        self._system, self._path, self._url = system, PurePosixPath(path), url

    @classmethod
    def open(cls, url: str) -> RemotePath:
        """Connect to a URL.

        Options such as `endpoint_override` go behind a `?`; keys come from where the cloud's own
        tools take them.

        Raises:
            StoreError: if it is no URL that `pyarrow.fs` knows.
        """
        try:
            system, path = fs.FileSystem.from_uri(url)
        except (ValueError, OSError, NotImplementedError) as error:
            raise StoreError(
                f"{_public(url)} cannot be opened: {error}. A run directory is a folder, or a URL "
                "such as s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or abfs://CONTAINER/FOLDER"
            ) from error
        return cls(system, path, _public(url))

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._path.stem

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return self.with_path(self._path.parent)

    def resolve(self) -> RemotePath:
        """Return this: a URL is absolute."""
        return self

    def __truediv__(self, name: str) -> RemotePath:
        """Return what lies in this folder."""
        return self.with_path(self._path / name)

    def with_name(self, name: str) -> RemotePath:
        """Return another file of the same folder."""
        return self.with_path(self._path.with_name(name))

    def with_path(self, path: PurePosixPath) -> RemotePath:
        """Return another path on the same store."""
        scheme, host, _, query, _ = urlsplit(self._url)
        # the host of an object store's URL is the first part of the path: its bucket
        _, _, below = str(path).partition("/")
        return RemotePath(self._system, str(path), urlunsplit((scheme, host, below, query, "")))

    def __str__(self) -> str:
        """Return the URL, without keys."""
        return self._url

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same path."""
        return isinstance(other, RemotePath) and self._path == other._path

    def __lt__(self, other: RemotePath) -> bool:
        """Order by path."""
        return self._path < other._path

    def __hash__(self) -> int:
        """Hash by path."""
        return hash(self._path)

    def exists(self) -> bool:
        """Return whether there is a file or folder."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Return whether it is a file."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return bool(self._info().type == fs.FileType.Directory)

    def size(self) -> int:
        """Return the size of a file in bytes."""
        return int(self._info().size or 0)

    def modified(self) -> float:
        """Return when a file was written, by the clock of the store, in seconds since the epoch."""
        written = self._info().mtime
        if written is None:
            raise FileNotFoundError(f"there is no {self}")
        return float(written.timestamp())

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what is in the folder; nothing if there is none."""
        selector = fs.FileSelector(str(self._path), allow_not_found=True)
        for info in self._again(lambda: self._system.get_file_info(selector)):
            yield self / PurePosixPath(info.path).name

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yield what in the folder has a name that fits."""
        return (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Make the folder."""
        del exist_ok  # object stores do not mind
        self._again(lambda: self._system.create_dir(str(self._path), recursive=parents))

    def read_bytes(self) -> bytes:
        """Return what is in a file."""

        def read() -> bytes:
            with self._system.open_input_stream(str(self._path)) as file:
                return bytes(file.read())

        return self._again(read)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return what is in a text file."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        """Write a file, all of it or nothing: an object appears when its stream is closed.

        Raises:
            UnreachableError: if the store does not answer, or says no.
        """

        def write() -> None:
            with self._system.open_output_stream(str(self._path)) as file:
                file.write(data)
            if (size := self._info().size) != len(data):
                raise OSError(f"{self}: {len(data)} bytes were written, and {size} arrived")

        self._again(write)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete a file."""
        try:
            self._again(lambda: self._system.delete_file(str(self._path)))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: RemotePath) -> None:
        """Move a file: copied, then deleted."""
        self._again(lambda: self._system.move(str(self._path), str(target._path)))

    def _info(self) -> Any:
        return self._again(lambda: self._system.get_file_info(str(self._path)))

    def _again(self, action: Callable[[], T]) -> T:
        """Repeat what fails for want of a connection."""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as error:
                if attempt == ATTEMPTS - 1 or "ACCESS_DENIED" in str(error):
                    raise UnreachableError(f"{self} cannot be reached: {error}") from error
                log.warning("%s: %s; tried again", self, error)
                time.sleep(FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


Place: TypeAlias = Path | RemotePath
"""Where a run is kept."""


def place(run: str | Place) -> Place:
    """Return the place that a path or a URL names, as `local` reads a path."""
    if isinstance(run, RemotePath):
        return run
    text = str(run)
    remote = "://" in text and not text.startswith("file://")
    return RemotePath.open(text) if remote else local(text)


def _public(url: str) -> str:
    """Return a URL without user and password."""
    scheme, host, path, query, fragment = urlsplit(url)
    return urlunsplit((scheme, host.rpartition("@")[2], path, query, fragment))
