"""Fetch the published Omniglot archives."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from evometa.errors import TaskError
from evometa.files import open_plain

BASE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
ARCHIVES = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""Archive names and their published md5."""

CHUNK = 1 << 16
ATTEMPTS = 5


def download_archives(
    folder: Path, *, base: str = BASE, md5: dict[str, str] | None = None, attempts: int = ATTEMPTS
) -> None:
    """Fetch both archives to `folder`, going on where an earlier download broke off.

    Args:
        folder: created if missing.
        base: address of the folder that holds the archives.
        md5: archive name to md5; default the published ones.
        attempts: how often to try an archive whose connection breaks.

    Raises:
        TaskError: if an archive cannot be reached or is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in (ARCHIVES if md5 is None else md5).items():
        path = folder / f"{name}.zip"
        if path.exists():
            continue
        part = path.with_suffix(".part")
        _retry(lambda url=f"{base}{name}.zip", part=part: _fetch(url, part), attempts)  # type: ignore[misc]
        found = hashlib.md5(part.read_bytes(), usedforsecurity=False).hexdigest()
        if found != digest:
            part.unlink()
            raise TaskError(
                f"{base}{name}.zip must have the md5 {digest}, but has {found}; the file was "
                "removed. Try again, or fetch it by hand and pass --data DIR"
            )
        part.replace(path)


def _retry(fetch: Callable[[], None], attempts: int) -> None:
    for attempt in range(1, attempts + 1):
        try:
            return fetch()
        except (urllib.error.URLError, ConnectionError, TimeoutError, EOFError) as error:
            if attempt == attempts:
                raise TaskError(
                    f"the download failed {attempts} times, last: {error}; what was fetched is "
                    "kept, so try again when the network is back, or pass --data DIR"
                ) from error


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what is missing of `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with response:
        resumed = response.status == 206  # else the server sends the whole file again
        missing = response.headers.get("Content-Length")
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if resumed else os.O_TRUNC)
        with os.fdopen(open_plain(part, flags), "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                missing = None if missing is None else int(missing) - len(chunk)
    if missing:
        raise EOFError(f"the connection to {url} broke off with {missing} bytes missing")
