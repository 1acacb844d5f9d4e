"""The genes of genomes as flat columns: what importance, parallel coordinates and exports share."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pyarrow as pa

from evometa.records import Genome

Gene: TypeAlias = int | float | str | bool
MOST_ELEMENTS = 8  # of a list that become genes of their own


def genes(table: pa.Table) -> list[dict[str, Gene]]:
    """Return for each row its genes by path.

    These are the table's typed columns `gene.PATH`, and, from the genome, every other number, word
    or truth value: `hidden[0]`, `rule.rate`; of a list also its length, as `hidden.length`. A gene
    that a genome lacks is not in its dict.
    """
    typed = [name for name in table.column_names if name.startswith("gene.")]
    columns = {name.removeprefix("gene."): table[name].to_pylist() for name in typed}
    found = []
    for row, text in enumerate(table["genome"].to_pylist()):
        flat: dict[str, Gene] = {
            path: values[row] for path, values in columns.items() if values[row] is not None
        }
        _flatten(json.loads(text), "", flat, frozenset(columns))
        found.append(flat)
    return found


def _flatten(value: Genome, path: str, flat: dict[str, Gene], known: frozenset[str]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}" if path else str(key), flat, known)
    elif isinstance(value, list):
        flat[f"{path}.length"] = len(value)
        if not any(isinstance(inner, str) for inner in value):  # the words of an expression
            for place, inner in enumerate(value[:MOST_ELEMENTS]):
                _flatten(inner, f"{path}[{place}]", flat, known)
    elif value is not None and path not in known:
        flat[path] = value


def values_of(found: list[dict[str, Gene]]) -> dict[str, list[Any]]:
    """Return the different values of each gene, sorted; words where kinds are mixed."""
    seen: dict[str, set[Gene]] = {}
    for flat in found:
        for path, value in flat.items():
            seen.setdefault(path, set()).add(value)
    return {
        path: sorted(values) if is_number(values) else sorted(map(str, values))
        for path, values in seen.items()
    }


def is_number(values: set[Gene] | list[Gene]) -> bool:
    """Tell whether all are numbers; truth values are not."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
