"""Files of the local disk: paths as people write them, and writes that nobody can lead astray.

A folder may come from a stranger, with links in it that lead elsewhere. So a file is made under a
name that nobody can guess, exclusively, and renamed: a link that stands at its place is replaced,
never followed. Links on the way to a folder are followed, as everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link to nothing",
}


def local(text: str | Path) -> Path:
    """Return the path that a person means: `~` and `~user` are homes, `file://` is left out."""
    path = str(text)
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
        path = path.removeprefix("localhost") if path.startswith("localhost/") else path
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises for a user unknown


def oddity(path: Path) -> str:
    """Return what stands at a path instead of a file; empty if it is one, or nothing is there.

    Raises:
        OSError: if one may not look.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return _KINDS[stat.S_IFLNK] if path.is_symlink() else ""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no file")


def open_plain(path: Path, flags: int) -> int:
    """Return a descriptor of a file that stays where it is: a lock, a log, a download.

    Args:
        path: a link there is not followed, and nothing but a file is opened.
        flags: of `os.open`.

    Raises:
        OSError: if it cannot be opened, or is no file.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is {oddity(path) or 'no file'}; remove it")
    return descriptor


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader sees all of it or none of it, even after a power cut.

    The bytes go to a hidden file in the same folder, which is synced and renamed; then the folder
    is synced. On an error the hidden file is removed.

    Args:
        path: whatever file or link is there is replaced.
        write: is given the open file.

    Raises:
        OSError: if the disk is full or cannot be written.
    """
    unfinished = _beside(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(unfinished, flags, 0o666), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_unfinished(name: str) -> bool:
    """Return whether a file's name is that of one whose writer was killed, or still writes it."""
    return name.startswith(".") and name.endswith(".tmp")


@contextlib.contextmanager
def private_folder(path: Path) -> Iterator[Path]:
    """Lend a new folder beside a path, that of nobody else; what is left in it is deleted."""
    folder = _beside(path)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_stream(path: Path) -> bool:
    """Return whether what a person names is to be written into, not replaced: a device, a pipe.

    A link to one counts only where the system has made it, as `/dev/stdout`.
    """
    _, *parts = path.absolute().parts
    if parts[:1] == ["proc"] or parts[:2] in (["dev", "stdout"], ["dev", "stderr"], ["dev", "fd"]):
        return path.exists() and not path.is_dir()
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def write_stream(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write into a device or pipe; a reader that goes away is no fault.

    Raises:
        OSError: if it cannot be written.
    """
    with (
        contextlib.suppress(BrokenPipeError),
        os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY), "wb") as file,
    ):
        write(file)


def _beside(path: Path) -> Path:
    """Return a hidden name in the same folder that nobody can guess, nor is too long."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")
