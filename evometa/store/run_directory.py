"""A run's folder: what was searched, the table's parts, and one driver at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evometa.errors import StoreError
from evometa.store.files import write_atomically

log = logging.getLogger(__name__)


class RunDirectory:
    """A run's folder, held by this process until it is left.

    Made by `create` or `open`; a context manager. `read` looks without holding.

    Attributes:
        path: the folder.
        study: study.json, what was searched, as plain data.
    """

    def __init__(self, path: Path, study: Mapping[str, Any]) -> None:
        self.path, self.study = path, study
        self._lock = _lock(path)

    @classmethod
    def create(cls, path: Path, study: Mapping[str, Any], source: str) -> RunDirectory:
        """Make the folder of a new run.

        Args:
            path: must not exist, or be empty.
            study: plain data for study.json.
            source: text of the study file, kept beside it.

        Raises:
            StoreError: if there is something at `path`, or it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreError(
                f"{path} exists; go on with its search, if it holds one: evometa resume {path}, "
                "or start another with --run FOLDER"
            )
        try:
            (path / "evaluations").mkdir(parents=True, exist_ok=True)
            (path / "weights").mkdir(exist_ok=True)
            text = json.dumps(study, indent=1, allow_nan=False)
            write_atomically(path / "study.py", lambda file: file.write(source.encode()))
            # study.json last: a folder that has one is whole
            write_atomically(path / "study.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise StoreError(f"{path} cannot be created: {error}") from error
        return cls(path, json.loads(text))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Hold the folder of an earlier run.

        Raises:
            StoreError: if it is no run, or another driver holds it.
        """
        return cls(path, cls.read(path))

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """Return study.json without holding the folder.

        Raises:
            StoreError: if it is missing or cannot be read.
        """
        file = path / "study.json"
        if not file.is_file():
            raise StoreError(
                f"a run directory holds a study.json, but there is none in {path}; "
                "start a search with: evometa search STUDY --run " + str(path)
            )
        try:
            study: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{file} cannot be read: {error}") from error
        return study

    def end(self, summary: Mapping[str, Any]) -> None:
        """Keep how a search ended, in summary.json.

        Raises:
            StoreError: if it cannot be written.
        """
        text = json.dumps(summary, indent=1)
        try:
            write_atomically(self.path / "summary.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise StoreError(f"{self.path}/summary.json cannot be written: {error}") from error

    @staticmethod
    def read_summary(path: Path) -> dict[str, Any]:
        """Return how the last search ended; empty if none has, or it cannot be read."""
        try:
            summary: dict[str, Any] = json.loads((path / "summary.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return summary

    @property
    def weights(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "weights"

    @staticmethod
    def is_held(path: Path) -> bool:
        """Return whether a driver works on the folder now."""
        try:
            descriptor = os.open(path / ".lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
        finally:
            os.close(descriptor)
        return False

    @property
    def study_file(self) -> Path:
        """The copy of the study file."""
        return self.path / "study.py"

    @property
    def parts(self) -> Path:
        """The folder of the table's parts."""
        return self.path / "evaluations"

    def __enter__(self) -> RunDirectory:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the folder."""
        os.close(self._lock)


def _lock(path: Path) -> int:
    """Take the run's lock, which the system drops when this process ends, however it ends."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.warning("%s does not support locks: start one driver at a time", path)
            return descriptor
        holder = os.read(descriptor, 200).decode(errors="replace")
        os.close(descriptor)
        raise StoreError(
            f"another driver works on {path} ({holder}); wait for it, or stop it first"
        ) from error
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor
