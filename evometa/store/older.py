"""How runs of older versions are read: as this one would have written them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from evometa.errors import StoreError
from evometa.limits import stored_limits, violation
from evometa.records import BASELINE, EARLIER, Status, repeat_seed
from evometa.store.schema import COLUMNS, VERSION

_PREFIXES = {"seed:": BASELINE, "earlier:": EARLIER}  # of operators, up to version 2


def upgrade_study(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return study.json of any version with `levels`, `seeds` and `earlier` as this one has them.

    Up to version 2 further seeds were levels, and designs of earlier runs were named by a prefix.
    """
    if study.get("schema", 1) > 2:
        return dict(study)
    changes: dict[str, Any] = {}
    if "levels" in study:
        own = [level for level in study["levels"] if not level.get("seed")]
        changes["seeds"] = 1 + len(study["levels"]) - len(own)
        changes["levels"] = [{k: v for k, v in each.items() if k != "seed"} for each in own]
    if "earlier" in study:
        seeds = study["earlier"].get("seeds", {}).items()
        named = {name.removeprefix("earlier:"): genome for name, genome in seeds}
        changes["earlier"] = {**study["earlier"], "seeds": named}
    return {**study, **changes}


def version_of(schema: pa.Schema, place: object) -> int:
    """Return which version wrote a table.

    Args:
        schema: of the table.
        place: its file, for the message.

    Raises:
        StoreError: if it is newer than this one.
    """
    text = (schema.metadata or {}).get(b"evometa.schema", b"1")
    if not text.isdigit():
        raise StoreError(f"{place} must have a number as its schema version, got {text!r}")
    wrote = int(text)
    if wrote > VERSION:
        raise StoreError(
            f"{place} has schema version {wrote}, this evometa reads versions up to {VERSION}; "
            "install the evometa that wrote it, or a newer one"
        )
    return wrote


def upgrade(table: pa.Table, study: Mapping[str, Any], place: object) -> pa.Table:
    """Return a table of any version as this one has it.

    Up to version 2 further seeds were rungs beyond the full one, names were prefixes of operators,
    and constraints were judged as results were told.

    Args:
        table: all columns of it, as they were read.
        study: study.json, as `upgrade_study` returns it.
        place: its file, for messages.

    Raises:
        StoreError: if a newer version wrote it, or a metric has the name of a new column.
    """
    wrote = version_of(table.schema, place)
    if wrote == VERSION:
        return table
    new = {column.name: column for column in COLUMNS if column.since > wrote}
    clash = sorted(new.keys() & set(study.get("metrics", ())))
    if clash:
        raise StoreError(
            f"{place} has a metric {clash[0]!r}, which is a column of its own since schema version "
            f"{new[clash[0]].since}; read it with the evometa that wrote it"
        )
    if wrote < 3:
        table = _with_repeats(table, study)
        table = _with_names(table)
        table = _with_violations(table, study)
    for name, column in new.items():
        if name not in table.column_names:
            table = _with(table, name, [column.absent] * len(table))
    core = [column.name for column in COLUMNS]
    return table.select([*core, *(name for name in table.column_names if name not in core)])


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with a column added or replaced."""
    kind = next(column.type for column in COLUMNS if column.name == name)
    field, array = pa.field(name, kind), pa.array(values, kind)
    if name not in table.column_names:
        return table.append_column(field, array)
    return table.set_column(table.schema.get_field_index(name), field, array)


def _with_repeats(table: pa.Table, study: Mapping[str, Any]) -> pa.Table:
    if "repeat" in table.column_names:  # a confirmation, which counted its seeds so before
        return _with(table, "repeat", table["repeat"].to_pylist())
    if study.get("seeds", 1) == 1:
        return table
    full = len(study["levels"]) - 1
    rungs = table["rung"].to_numpy()
    repeats = np.maximum(rungs - full, 0)
    seeds = zip(table["seed"].to_pylist(), repeats.tolist(), strict=True)
    table = _with(table, "rung", np.minimum(rungs, full))
    table = _with(table, "seed", [repeat_seed(seed, repeat) for seed, repeat in seeds])
    return _with(table, "repeat", repeats)


def _with_names(table: pa.Table) -> pa.Table:
    operators, names = table["operator"].cast(pa.string()).to_pylist(), [""] * len(table)
    for place, operator in enumerate(operators):
        for prefix, word in _PREFIXES.items():
            if operator.startswith(prefix):
                operators[place], names[place] = word, operator.removeprefix(prefix)
    return _with(_with(table, "operator", operators), "name", names)


def _with_violations(table: pa.Table, study: Mapping[str, Any]) -> pa.Table:
    limits = stored_limits(study) if study.get("constraints") else []
    if not limits:
        return table
    rows = table.select(["status", *{limit.metric for limit in limits}]).to_pylist()
    broken = [violation(row, limits) if row["status"] == Status.OK else 0.0 for row in rows]
    return _with(table, "violation", broken)
