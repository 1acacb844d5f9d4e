"""What a run must be before anybody believes it: every reader gets checked data, or one sentence.

A run may be damaged, or come from a stranger. Here alone is decided what a table and a study.json
must be like; who reads them afterwards need not doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import StoreError
from evometa.plain import LONGEST_GENOME, parsed
from evometa.records import Status
from evometa.store.schema import COLUMNS, VERSION

_SHAPES: dict[str, type] = {
    "schema": int,
    "file": str,
    "file_sha256": str,
    "kind": str,
    "objectives": dict,
    "metrics": list,
    "directions": dict,
    "summaries": dict,
    "baselines": dict,
    "training": dict,
    "task": dict,
    "settings": dict,
    "versions": dict,
    "constraints": list,
    "levels": list,
    "seeds": int,
    "earlier": dict,
    "files": dict,
}
"""What study.json holds; older ones hold less."""

KEYS = ("number", "rung", "repeat", "told")
"""Columns without which no row can be put in order."""

_SECONDS = 10**6
_RANGES = {
    "number": (0, 2**32),
    "rung": (0, 2**12),
    "repeat": (0, 2**16),
    "seed": (0, 2**63 - 1),
    "started_at": (-(2**35) * _SECONDS, 2**37 * _SECONDS),  # what a calendar of Python holds
}
_GENES = (pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.null())
PROVENANCE = b"evometa.provenance"


def check_study(study: Any, file: object) -> dict[str, Any]:
    """Return what study.json holds, once its parts have been found to be of the right kind.

    Args:
        study: plain data.
        file: where it is from, for the message.

    Raises:
        StoreError: if it is something else, or a newer version wrote it.
    """
    if not isinstance(study, dict):
        _refuse(file, f"it must be an object of a study's parts, not a {type(study).__name__}")
    for name, kind in _SHAPES.items():
        if name in study and type(study[name]) is not kind:
            _refuse(file, f"`{name}` must be a {kind.__name__}, not {_short(study[name])}")
    if study.get("schema", 1) > VERSION:
        raise StoreError(
            f"{file} has schema version {study['schema']}, this evometa reads versions up to "
            f"{VERSION}; install the evometa that wrote it, or a newer one"
        )
    objectives, directions = study.get("objectives", {}), study.get("directions", {})
    for name, direction in (*objectives.items(), *directions.items()):
        if direction not in ("min", "max"):
            _refuse(file, f"the metric {name!r} must be 'min' or 'max', not {_short(direction)}")
    for name in ("metrics", "constraints"):
        if not all(isinstance(text, str) for text in study.get(name, ())):
            _refuse(file, f"`{name}` must hold texts alone")
    for level in study.get("levels", ()):
        known = isinstance(level, dict) and [level.get("iterations"), level.get("seed", 0)]
        if not known or not all(type(value) is int for value in known):
            _refuse(file, "each of `levels` must hold a number of `iterations`")
    if not isinstance(study.get("earlier", {}).get("seeds", {}), dict):
        _refuse(file, "`earlier` must hold `seeds` by their names")
    files = study.get("files")
    if files and not _is_bundle(files):
        _refuse(file, "`files` does not name what the study needs")
    return study


def _is_bundle(files: dict[str, Any]) -> bool:
    """Return whether `files` of a study.json names files as `Bundle.describe` does."""
    kinds = {"study": str, "module": str, "roots": list, "kept": dict, "named": dict}
    return (
        all(type(files.get(name)) is kind for name, kind in kinds.items())
        and all(isinstance(text, str) for text in [*files["roots"], *files["kept"].values()])
        and all(
            isinstance(each, dict)
            and {*each} == {"path", "sha256"}
            and all(isinstance(text, str) for text in each.values())
            for each in files["named"].values()
        )
    )


def check_part(table: pa.Table, path: object, version: int, *, whole: bool) -> pa.Table:
    """Return a part with each of its own columns of the right type, complete and finite.

    Args:
        table: as it was read.
        path: its file, for the message.
        version: which wrote it; it has the columns of that.
        whole: whether it must have all of these columns.

    Raises:
        StoreError: if it is not what evometa writes.
    """
    names = table.column_names
    if len(set(names)) < len(names):
        _refuse(path, "two columns have the same name")
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        _refuse(path, f"its values are damaged: {error}")
    for field in _core(version):
        if field.name in names:
            table = _typed(table, field, path)
            _check_values(table[field.name], field.name, path)
        elif whole or field.name in KEYS:
            _refuse(path, f"the column {field.name!r} is missing")
    for field in table.schema:
        if field.name.startswith("gene."):
            if field.type not in _GENES:
                _refuse(path, f"the column {field.name!r} must not be of the type {field.type}")
            _require_finite(table[field.name], field.name, path)
    if {"status", "scores"} <= {*names}:
        ok = table.filter(pc.equal(pc.cast(table["status"], pa.string()), Status.OK.value))
        _require_finite(pc.list_flatten(ok["scores"]), "scores", path)
        for field in table.schema:
            if pa.types.is_floating(field.type):
                _require_finite(ok[field.name], field.name, path)
    for text in table["genome"].to_pylist() if whole else ():
        if len(text) > LONGEST_GENOME:
            _refuse(
                path, f"a genome has {len(text):,} characters, and not at most {LONGEST_GENOME:,}"
            )
        try:
            parsed(text, "a genome")
        except StoreError as error:
            _refuse(path, str(error))
    _check_origin(table, path)
    return table


def fitting(run: object, study: Mapping[str, Any], table: pa.Table) -> pa.Table:
    """Return a run's table with a column for each metric, once the study has been found to fit it.

    Args:
        run: where both are from, for the message.
        study: as `check_study` returns it.
        table: as `read_table` returns it.

    Raises:
        StoreError: if the table is not that of the study.
    """
    for part in ("objectives", "metrics"):
        if not study.get(part):
            _refuse(f"{run}/study.json", f"it must name `{part}`")
    objectives, metrics = study["objectives"], study["metrics"]
    strange = [name for name in objectives if name not in metrics]
    if strange:
        _refuse(f"{run}/study.json", f"the objective {strange[0]!r} is none of its `metrics`")
    own = {field.name for field in _core(VERSION)}
    ok = table.filter(pc.equal(pc.cast(table["status"], pa.string()), Status.OK.value))
    for name in metrics:
        if name in own or name.startswith("gene."):
            _refuse(f"{run}/study.json", f"{name!r} is no name of a metric")
        if name not in table.column_names:
            if len(table):
                _refuse(f"{run}/evaluations", f"the column {name!r}, a metric, is missing")
            table = table.append_column(name, pa.nulls(0, pa.float64()))
        elif not pa.types.is_floating(table[name].type):
            _refuse(f"{run}/evaluations", f"the metric {name!r} must hold floats")
        elif name in (*objectives, metrics[0], "params") and ok[name].null_count:
            _refuse(f"{run}/evaluations", f"{name!r} is empty where a candidate is OK")
    highest = pc.max(table["rung"]).as_py() or 0
    if highest >= len(study.get("levels") or range(2**31)):
        _refuse(f"{run}/evaluations", f"it holds the rung {highest}, of which study.json is silent")
    return table


def _core(version: int) -> list[pa.Field]:
    """Return the columns that every table of a version has."""
    return [pa.field(each.name, each.type) for each in COLUMNS if each.since <= version]


def _typed(table: pa.Table, field: pa.Field, path: object) -> pa.Table:
    """Return a table whose column has the type of a field, where its values allow it."""
    found = table.schema.field(field.name).type
    if found == field.type:
        return table
    try:
        column = table[field.name].cast(field.type)
    except pa.ArrowException:
        _refuse(path, f"the column {field.name!r} must be of the type {field.type}, not {found}")
    return table.set_column(table.schema.get_field_index(field.name), field, column)


def _check_values(column: pa.ChunkedArray, name: str, path: object) -> None:
    inner = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    parts = inner.flatten() if pa.types.is_struct(inner.type) else [inner]
    if column.null_count or any(part.null_count for part in parts):
        _refuse(path, f"the column {name!r} has empty cells")
    if name in _RANGES and len(column):
        low, high = _RANGES[name]
        found = pc.min_max(pc.cast(column, pa.int64())).as_py()
        if not low <= found["min"] <= found["max"] <= high:
            _refuse(path, f"the column {name!r} must lie within {low} and {high}")


def _require_finite(column: Any, name: str, path: object) -> None:
    if pa.types.is_floating(column.type) and pc.all(pc.is_finite(column)).as_py() is False:
        _refuse(path, f"the column {name!r} holds an infinity, or what is no number")


def _check_origin(table: pa.Table, path: object) -> None:
    text = (table.schema.metadata or {}).get(PROVENANCE, b"[]").decode("utf-8", "replace")
    found = parsed(text, f"{path}: the metadata {PROVENANCE.decode()}")
    for origin in found if isinstance(found, list) else [found]:
        if not isinstance(origin, dict) or not isinstance(origin.get("versions", {}), dict):
            _refuse(path, f"the metadata {PROVENANCE.decode()} are not what evometa writes")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _refuse(file: object, why: str) -> NoReturn:
    raise StoreError(
        f"{file} is damaged, or not of evometa: {why}. Put the file of a sound copy in its place, "
        "or move it out of the run"
    )
