"""Writes that are complete or absent, and reads of what a stranger may have put there."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from evometa.errors import StoreError
from evometa.files import oddity, write_whole
from evometa.store.remote import Place, RemotePath

MOST_BYTES = 1 << 26
"""Of a text file that is read whole; those of a run are a thousand times smaller."""


def write_text(path: Place, text: str) -> None:
    """Write a text file that is complete or absent.

    Raises:
        StoreError: if it cannot be written.
    """
    try:
        write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def write_atomically(path: Place, write: Callable[[BinaryIO], object]) -> None:
    """Write a file as `write_whole` does; on an object store, the object appears whole.

    Raises:
        OSError: if the disk is full or cannot be written, or the store cannot be reached.
    """
    if isinstance(path, RemotePath):
        buffer = BytesIO()
        write(buffer)
        path.write_bytes(buffer.getvalue())
    else:
        write_whole(path, write)


def require_file(path: Place) -> None:
    """Do nothing where there is a file, or nothing: what else may be there can block its reader.

    Raises:
        StoreError: if there is a folder, a pipe, a socket, a device or a link to nothing.
    """
    try:
        odd = oddity(path) if isinstance(path, Path) else ""
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if odd:
        raise StoreError(f"{path} must be a file, but it is {odd}; remove it")


def read_text(path: Place) -> str:
    """Return what is in a text file of a run.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: if it is no file, too large, no UTF-8, or cannot be read.
    """
    require_file(path)
    try:
        size = path.size() if isinstance(path, RemotePath) else path.stat().st_size
        if size > MOST_BYTES:
            raise StoreError(
                f"{path} must have at most {MOST_BYTES:,} bytes, but has {size:,}: it is not what "
                "evometa wrote"
            )
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
