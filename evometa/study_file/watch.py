"""Which files a study opens: Python's audit hook tells, while somebody wants to know."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evometa.study_file.modules import study_of

_watching = 0
_hooked = False


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Note the files that code of studies opens to read within the block, in their `opened`.

    An audit hook cannot be taken away: outside of such blocks it does nothing.
    """
    global _watching, _hooked
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked = True
    _watching += 1
    try:
        yield
    finally:
        _watching -= 1


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "sqlite3.connect"):
        return
    file = arguments[0]
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if not isinstance(file, str | bytes | os.PathLike):
        return
    frame = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("evometa."):  # what evometa reads itself is kept in its own way
            return
        study = study_of(name)
        if study is not None:
            with contextlib.suppress(OSError, ValueError):
                path = os.path.abspath(os.fsdecode(file))  # noqa: PTH100 - links stay as they are
                study.opened.add(Path(path))
            return
        frame = frame.f_back  # type: ignore[assignment]
