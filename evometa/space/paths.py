"""Reach into genomes by path: `blocks[2].width`."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from evometa.errors import GenomeError
from evometa.records import Genome

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def get(genome: Genome, path: str) -> Genome:
    """Return the value at a path; the empty path is the genome.

    Raises:
        GenomeError: if there is nothing at the path.
    """
    value = genome
    try:
        for key in _keys(path):
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise GenomeError(f"{path}: there is no such gene in {genome!r}") from error
    return value


def replace(genome: Genome, values: Mapping[str, Genome]) -> Genome:
    """Return a copy of a genome with the values at some paths replaced."""
    if "" in values:
        return copy.deepcopy(values[""])
    new = copy.deepcopy(genome)
    for path, value in values.items():
        *parents, last = _keys(path)
        holder = new
        for key in parents:
            holder = holder[key]
        holder[last] = value
    return new


def gene_value(genome: Genome, path: str) -> int | float | str | bool | None:
    """Return a gene as one value of a table: the name of a branch, JSON for a list."""
    value = get(genome, path)
    if isinstance(value, dict):
        return str(next(iter(value)))
    return json.dumps(value) if isinstance(value, list) else value


def _keys(path: str) -> list[Any]:
    return [int(index) if index else name for name, index in _PART.findall(path)]
