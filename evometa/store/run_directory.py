"""A run's folder: what was searched, the table's parts, and one driver at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO

from evometa.errors import StoreError
from evometa.plain import parsed
from evometa.store.checks import check_study
from evometa.store.files import read_text, write_atomically
from evometa.store.lock import Lock, hold
from evometa.store.older import upgrade_study
from evometa.store.remote import Place

FILES = "files"
_BEGUN = re.compile(r"evaluations|weights|files|study\.py|\.study\.(py|json)\..*tmp")


def read_study(path: Place) -> dict[str, Any]:
    """Return study.json of a run, without holding its folder.

    Raises:
        StoreError: if it is missing, cannot be read, or is that of no study.
    """
    file = path / "study.json"
    try:
        return upgrade_study(check_study(parsed(read_text(file), str(file)), file))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(
            f"a run directory holds a study.json, but there is none in {path}; "
            f"start a search with: evometa search STUDY --run {path}"
        ) from None


class RunDirectory:
    """A run's folder, held by this process until it is left.

    Made by `create` or `open`; a context manager. `read` looks without holding.

    Attributes:
        path: the folder, or the URL of one on an object store.
        study: study.json, what was searched, as plain data.
    """

    def __init__(self, path: Place, study: Mapping[str, Any]) -> None:
        self.path, self.study = path, study
        self._lock = hold(path)

    @classmethod
    def create(
        cls,
        path: Place,
        study: Mapping[str, Any],
        source: str | bytes,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> RunDirectory:
        """Make the folder of a new run.

        Args:
            path: must not exist, be empty, or hold no more than a killed driver's first steps here.
            study: plain data for study.json.
            source: text of the study file, kept beside it.
            files: what else the study needs, by relative names; kept in the folder `files`.

        Raises:
            StoreError: if there is something at `path`, or it cannot be written.
        """
        cls.require_free(path)
        try:
            (path / "evaluations").mkdir(parents=True, exist_ok=True)
            (path / "weights").mkdir(exist_ok=True)
            text = json.dumps(study, indent=1, allow_nan=False)
            own = source.encode() if isinstance(source, str) else source
            for name, data in {f"{FILES}/{name}": files[name] for name in files}.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path / name, partial(_write, data))
            write_atomically(path / "study.py", partial(_write, own))
            # study.json last: a folder that has one is whole
            write_atomically(path / "study.json", partial(_write, text.encode()))
        except OSError as error:
            raise StoreError(f"{path} cannot be created: {error}") from error
        return cls(path, json.loads(text))

    @staticmethod
    def require_free(path: Place) -> None:
        """Raise `StoreError` if there is something at `path`, so that no run can be made there."""
        if path.exists() and not (path.is_dir() and _is_begun(path)):
            raise StoreError(
                f"{path} exists; go on with its search, if it holds one: evometa resume {path}, "
                "or start another with --run FOLDER"
            )

    @classmethod
    def open(cls, path: Place) -> RunDirectory:
        """Hold the folder of an earlier run.

        Raises:
            StoreError: if it is no run, or another driver holds it.
        """
        return cls(path, cls.read(path))

    @staticmethod
    def read(path: Place) -> dict[str, Any]:
        """Return study.json, as this version has it, without holding the folder.

        Raises:
            StoreError: if it is missing, or cannot be read.
        """
        return read_study(path)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Keep how a search ended, in summary.json.

        Raises:
            StoreError: if it cannot be written, or another driver may hold the folder by now.
        """
        self._lock.check()
        text = json.dumps(summary, indent=1)
        try:
            write_atomically(self.path / "summary.json", lambda file: file.write(text.encode()))
        except OSError as error:
            raise StoreError(f"{self.path}/summary.json cannot be written: {error}") from error

    @staticmethod
    def read_summary(path: Place) -> dict[str, Any]:
        """Return how the last search ended; empty if none has, or it cannot be read."""
        try:
            summary = parsed(read_text(path / "summary.json"), "summary.json")
        except (OSError, StoreError):
            return {}
        return summary if isinstance(summary, dict) else {}

    @staticmethod
    def read_file(path: Place, name: str | None = None) -> bytes:
        """Return the study file that a run keeps, or what else the study needs, by its name.

        Raises:
            OSError: if it is missing or cannot be read.
        """
        file = path / "study.py" if name is None else path / FILES / name
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError(f"there is no file {file}")
        return file.read_bytes()

    @property
    def parts(self) -> Place:
        """The folder of the table's parts."""
        return self.path / "evaluations"

    @property
    def lock(self) -> Lock:
        """What holds the folder."""
        return self._lock

    def __enter__(self) -> RunDirectory:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of the folder."""
        self._lock.release()


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def _is_begun(path: Place) -> bool:
    """Return whether a folder is empty, or that of a run whose making was cut short."""
    folders = (path / "evaluations", path / "weights")
    inside = any(True for folder in folders for _ in folder.glob("*"))
    return not inside and all(_BEGUN.fullmatch(file.name) for file in path.iterdir())
