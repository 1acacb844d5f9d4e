"""Writes that are complete or absent, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO

from evometa.errors import StoreError
from evometa.store.remote import Place, RemotePath


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
    """Write a file so that a reader sees all of it or none of it, even after a power cut.

    The bytes go to a hidden file in the same folder, which is synced and renamed; then the folder
    is synced. On an error the hidden file is removed. On an object store the object appears whole.

    Raises:
        OSError: if the disk is full or cannot be written, or the store cannot be reached.
    """
    if isinstance(path, RemotePath):
        buffer = BytesIO()
        write(buffer)
        path.write_bytes(buffer.getvalue())
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
