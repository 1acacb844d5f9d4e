"""Reach into genomes by path: `blocks[2].width`; the empty path is the whole genome."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from evometa.errors import GenomeError
from evometa.records import Genome

_PATH = re.compile(r"(?:[^.\[\]]+|\[\d+\])(?:\.[^.\[\]]+|\[\d+\])*")
_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def get(genome: Genome, path: str) -> Genome:
    """Return a copy of the value at a path.

    Raises:
        GenomeError: if there is nothing at the path.
    """
    value = genome
    for key in _keys(path):
        value = _step(value, key, genome, path)
    return copied(value)


def replace(genome: Genome, values: Mapping[str, Genome]) -> Genome:
    """Return a copy of a genome with the values at some paths replaced, one after the other.

    Raises:
        GenomeError: if there is nothing at a path.
    """
    new = copied(genome)
    for path, value in values.items():
        keys = _keys(path)
        if not keys:
            new = copied(value)
            continue
        holder = new
        for key in keys[:-1]:
            holder = _step(holder, key, genome, path)
        _step(holder, keys[-1], genome, path)
        holder[keys[-1]] = copied(value)
    return new


def gene_value(genome: Genome, path: str) -> int | float | str | bool | None:
    """Return a gene as one value of a table: the name of a branch, JSON for a list.

    Args:
        genome: a valid genome.
        path: a key of the space's `genes()`.

    Raises:
        GenomeError: if there is nothing at the path.
    """
    value = get(genome, path)
    if isinstance(value, dict):
        return str(next(iter(value)))
    if isinstance(value, list):
        return json.dumps(value)
    result: int | float | str | bool | None = value
    return result


def join(path: str, field: str) -> str:
    """Return the path of a field."""
    return f"{path}.{field}" if path else field


def is_name(name: object) -> bool:
    """Tell whether a path can name a field so: a string that is not empty, without `.[]`."""
    return isinstance(name, str) and name != "" and not set(".[]") & set(name)


def copied(value: Genome) -> Genome:
    """Return a deep copy of plain data; ten times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def _keys(path: str) -> list[str | int]:
    if path and not _PATH.fullmatch(path):
        raise GenomeError(f"{path}: a path must read like `blocks[2].width`, got {path!r}")
    return [int(index) if index else name for name, index in _PART.findall(path)]


def _step(value: Any, key: str | int, genome: Genome, path: str) -> Any:
    if isinstance(key, str):
        if isinstance(value, dict) and key in value:
            return value[key]
    elif isinstance(value, list) and key < len(value):
        return value[key]
    raise GenomeError(f"{path}: must be a gene of the genome, but there is none in {genome!r}")
