"""Decoded images, kept between runs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from evometa.files import local, write_whole
from evometa.task.images import decoding_rule

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray[Any, Any]]


def cache_folder() -> Path:
    """Return `~/.cache/evometa`; EVOMETA_CACHE overrides it, and XDG_CACHE_HOME the `~/.cache`."""
    own = os.environ.get("EVOMETA_CACHE")
    if own:
        return local(own)
    return local(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "evometa"


def fingerprint(files: Iterable[Path], *arguments: object) -> str:
    """Return a hash of all that decides what is decoded from files.

    That is their paths, sizes and times of change (which, unlike those of modification, cannot be
    set), the arguments, and the rule that images are decoded by.
    """
    digest = hashlib.sha256(repr((decoding_rule(), arguments)).encode("utf-8", "backslashreplace"))
    for path in files:
        try:
            stat = path.stat()
            times = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        except OSError as error:  # whoever reads it will say so
            times = (error.errno or 0, 0, 0)
        digest.update(os.fsencode(path) + repr(times).encode())
    return digest.hexdigest()[:24]


def cached(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return arrays from the cache, or make and keep them.

    A damaged file is made anew; a cache that cannot be written is done without.
    """
    path = cache_folder() / f"{name}.npz"
    if path.is_file():
        try:
            with path.open("rb") as stored, np.load(stored, allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # a damaged archive raises whatever its bytes happen to mean
            log.warning("The cache file %s is damaged (%s); it is made anew.", path, error)
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    except OSError as error:
        log.warning("The cache %s cannot be written (%s); going on without.", path, error)
    return arrays
