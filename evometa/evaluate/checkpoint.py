"""Checkpoints on disk: safetensors files, which hold tensors and nothing that could run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from evometa.errors import StoreError
from evometa.evaluate.pack import CARRIED, TRAINED
from evometa.evaluate.training import Checkpoint
from evometa.files import oddity, write_whole
from evometa.records import Candidate
from evometa.study import Level, Training

log = logging.getLogger(__name__)

MOST = 1000  # checkpoints kept: shared disks have quotas of files
EVERY = 64  # candidates between two looks at how many there are


@dataclass(frozen=True)
class Start:
    """Where the training of a candidate begins.

    Attributes:
        candidate: the candidate.
        rung: the highest one that is behind.
        checkpoint: what to go on from; None to begin at the beginning.
    """

    candidate: Candidate
    rung: int
    checkpoint: Checkpoint | None

    @property
    def iteration(self) -> int:
        """Meta-iterations that are behind."""
        return 0 if self.checkpoint is None else int(self.checkpoint["iteration"])


def stages_to(levels: Sequence[Level], rung: int) -> list[int]:
    """Return the rungs where a training on the way to a rung changes its task or its size.

    Rungs that differ in their length alone are one stage.
    """
    kinds = [(level.task, level.training, level.steps) for level in levels[: rung + 1]]
    # a training must not look further ahead than its rung, so scores apart, validation is no change
    return [r for r in range(rung + 1) if r == rung or not _alike(kinds[r], kinds[r + 1])]


def _alike(one: tuple[Any, Training, Any], other: tuple[Any, Training, Any]) -> bool:
    same = replace(one[1], validation=other[1].validation) == other[1]
    return one[0] is other[0] and one[2] == other[2] and same


def checkpoint_path(folder: Path, candidate: Candidate) -> Path:
    """Return where a candidate's checkpoint is kept, for each seed."""
    return folder / f"{candidate.id}-{candidate.repeat}.safetensors"


def prune(folder: Path, most: int = MOST) -> None:
    """Delete the oldest checkpoints if there are more than `most`.

    A candidate that is promoted after that is trained from the start.
    """
    files = list(folder.glob("*.safetensors"))
    ages: dict[Path, float] = {}
    for path in files if len(files) > most else ():
        with contextlib.suppress(OSError):  # a neighbour may delete it just now
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=lambda path: ages[path])[: max(0, len(ages) - most)]:
        path.unlink(missing_ok=True)


def find_start(folder: Path, candidate: Candidate, structure: str) -> Start:
    """Return where a candidate may go on: the beginning, if there is no checkpoint that fits.

    Args:
        folder: where checkpoints are.
        candidate: to be trained on.
        structure: of its network; a checkpoint of another one does not fit, whatever the shapes.
    """
    beginning = Start(candidate, 0, None)
    path = checkpoint_path(folder, candidate)
    if not candidate.rung or not path.exists():
        return beginning
    try:
        checkpoint = load_checkpoint(path, structure)
    except StoreError as error:
        log.warning("%s is trained from the start: %s", candidate.id, error)
        return beginning
    rung = int(checkpoint.pop("rung", torch.tensor(2**31)))
    # it may be of this very evaluation, which was not recorded, but not of a later one
    return beginning if rung > candidate.rung else Start(candidate, rung, checkpoint)


def save_checkpoint(path: Path, checkpoint: Checkpoint, structure: str, rung: int = 0) -> None:
    """Write a checkpoint; a file that is there is replaced at once or not at all.

    Args:
        path: where to; its folder must exist.
        checkpoint: as `Trainer.checkpoint` makes it.
        structure: of what was trained, so that it is never loaded into anything else.
        rung: where the candidate stands.

    Raises:
        StoreError: if it cannot be written.
    """
    data = save({**checkpoint, "rung": torch.tensor(rung)}, {"structure": structure})
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise StoreError(f"a checkpoint cannot be written to {path}: {error}") from error


def learned(checkpoint: Checkpoint) -> Checkpoint:
    """Return what is needed to adapt, without what is needed to go on with the training."""
    parts = tuple(f"{part}/" for part in (*TRAINED, *CARRIED))
    return {name: value for name, value in checkpoint.items() if name.startswith(parts)}


def load_checkpoint(path: Path, structure: str | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        structure: of what is to go on; None for any.

    Raises:
        StoreError: if it is missing, torn, or of a learner of another structure.
    """
    try:
        if oddity(path):
            raise OSError(f"it is {oddity(path)}")
        with safe_open(path, framework="pt") as file:
            kept = (file.metadata() or {}).get("structure", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"a checkpoint must be a whole safetensors file, {path}: {error}"
        ) from error
    if structure is not None and kept != structure:
        raise StoreError(
            f"{path} is the checkpoint of another learner:\n{kept}\nand not of\n{structure}"
        )
    return tensors
