"""Checkpoints on disk: safetensors files, which hold tensors and nothing that could run."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from evometa.errors import StoreError
from evometa.evaluate.training import Checkpoint


def save_checkpoint(path: Path, checkpoint: Checkpoint, structure: str) -> None:
    """Write a checkpoint; a file that is there is replaced at once or not at all.

    Args:
        path: where to; its folder must exist.
        checkpoint: as `Trainer.checkpoint` makes it.
        structure: the learner's, so that it is never loaded into another one.

    Raises:
        StoreError: if it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(save(checkpoint, {"structure": structure}))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(f"a checkpoint cannot be written to {path}: {error}") from error


def load_checkpoint(path: Path, structure: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: the file.
        structure: of the learner that is to go on.

    Raises:
        StoreError: if it is missing, torn, or of a learner of another structure.
    """
    try:
        with safe_open(path, framework="pt") as file:
            kept = (file.metadata() or {}).get("structure", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"a checkpoint must be a whole safetensors file, {path}: {error}"
        ) from error
    if kept != structure:
        raise StoreError(
            f"{path} is the checkpoint of another learner:\n{kept}\nand not of\n{structure}"
        )
    return tensors
