"""Where a row came from: versions, the study file's commit, its hash, the data and the split."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("evometa", "torch", "ray", "optuna", "deap", "numpy", "pyarrow")
GIT_SECONDS = 5.0


def versions() -> dict[str, str]:
    """Return the versions that results depend on; torch's names its CUDA build as well."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def provenance(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the metadata of each Parquet part says about its origin, as plain data.

    Args:
        study: study.json.

    Returns:
        `versions` of the driver that writes; `file`, `file_sha256` of the study file; `commit` and
        `dirty` of the repository it lies in, None outside of one; `task`, as it describes itself,
        with the hashes of its data and split where it has any.
    """
    file = study.get("file")
    commit, dirty = _commit(Path(file).parent) if file else (None, None)
    return {
        "versions": versions(),
        "file": file,
        "file_sha256": study.get("file_sha256"),
        "commit": commit,
        "dirty": dirty,
        "task": study.get("task"),
    }


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    # fsmonitor is a command that a repository's own settings may name
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
