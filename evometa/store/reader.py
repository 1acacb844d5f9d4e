"""Read a run's table, also while it grows, also when a part of it is broken."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.files import is_unfinished
from evometa.records import Evaluation, Key
from evometa.store.checks import KEYS, PROVENANCE, check_part, fitting
from evometa.store.files import require_file
from evometa.store.older import upgrade, version_of
from evometa.store.remote import Place, RemotePath, UnreachableError, place
from evometa.store.run_directory import RunDirectory
from evometa.store.schema import VERSION, from_row, make_schema

log = logging.getLogger(__name__)

ATTEMPTS = 100  # to read a table whose writer merges its parts meanwhile
_PART = re.compile(r"part-\d+(-\d+)?(\.[0-9a-f]+-\d+)?")

Study: TypeAlias = Callable[[], Mapping[str, Any]]
"""Returns study.json; asked for parts of older versions alone."""


def part_files(folder: Place) -> list[Place]:
    """Return the parts in the order of writing; hidden files are unfinished.

    Raises:
        StoreError: if the folder cannot be read.
    """
    if isinstance(folder, RemotePath):
        return sorted(folder.glob("part-*.parquet"))
    try:
        names = os.listdir(folder)  # noqa: PTH208 - `glob` finds nothing where it may not look
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error}") from error
    return sorted(folder / n for n in names if n.startswith("part-") and n.endswith(".parquet"))


def read_search(run: Place) -> tuple[dict[str, Any], pa.Table]:
    """Return study.json and the table of a run, which fit each other.

    Raises:
        StoreError: if there is no run, or it is damaged; the message says where.
    """
    study = RunDirectory.read(run)
    return study, fitting(run, study, read_table(run))


def load(run: Place | str, *more: Place | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of a run, or of several as one.

    Nothing of a run is executed. Rows of older versions get the columns they lack. The result is
    Arrow's: `.to_pandas()`, `polars.from_arrow(table)`.

    Args:
        run: a run directory, or its URL.
        more: others; then a first column `run` says which one a row is from, by the folder's name,
            or by its path where two have the same name.
        columns: the only ones to read, by name; those of a million rows take moments then.

    Returns:
        One row a candidate, rung and repeat; runs in the order given, rows in that of telling. The
        metadata `evometa.provenance` holds, as a JSON list, what wrote the parts.

    Raises:
        StoreError: if there is no run, no such column, or a newer version wrote it.
    """
    paths = [place(each) for each in (run, *more)]
    if len(set(paths)) < len(paths):
        raise StoreError(f"each run must be given once, got {', '.join(map(str, paths))}")
    tables = [read_table(path, columns) for path in paths]
    if more:
        names = run_names(paths)
        tables = [
            table.add_column(0, "run", pa.repeat(pa.scalar(name), len(table)))
            for table, name in zip(tables, names, strict=True)
        ]
    return together(tables, " and ".join(map(str, paths)))


def read_table(run: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a run's table in the order of telling, one row for each candidate, rung and repeat.

    Nothing is changed: broken parts are left out, with a warning.

    Args:
        run: a run directory.
        columns: the only ones to return; default all.

    Raises:
        StoreError: if there is no run at `run`, or no such column in it.
    """
    folder = run / "evaluations"
    if not folder.is_dir():
        raise StoreError(f"{run} must be a run directory, but it has no folder evaluations")
    wanted = None if columns is None else list(dict.fromkeys([*KEYS, *columns]))
    tables = _sound_parts(run, wanted)
    table = make_schema({}, []).empty_table()
    if tables:
        table = _in_order(together(tables, folder).combine_chunks())
    if columns is None:
        return table
    missing = [name for name in columns if name not in table.column_names]
    if missing and tables:
        known = sorted({name for part in _sound_parts(run) for name in part.column_names})
        raise StoreError(f"{run} has no column {missing[0]!r}; it has {', '.join(known)}")
    for name in missing:
        table = table.append_column(name, pa.nulls(0))
    return table.select(list(columns))


def _sound_parts(run: Place, columns: Sequence[str] | None = None) -> list[pa.Table]:
    """Return the parts that are not torn."""
    folder, study = run / "evaluations", cache(partial(_study, run))
    for _ in range(ATTEMPTS):
        tables = []
        try:
            for path in part_files(folder):
                try:
                    tables.append(read_part(path, study, columns))
                except FileNotFoundError:
                    raise
                except (pa.ArrowException, OSError) as error:
                    _require_torn(path, error)
                    log.warning("%s is left out: it is torn (%s)", path, error)
            return tables
        except FileNotFoundError:  # a writer has just merged it into another part
            continue
    raise StoreError(f"the files in {folder} vanish while they are read; wait, and try again")


def together(tables: Sequence[pa.Table], where: object) -> pa.Table:
    """Return tables as one; a gene that is a number in one and a text in another becomes a text.

    Args:
        tables: with columns of their own; what one lacks is empty there.
        where: they are from, for the message.

    Raises:
        StoreError: if a column is of another kind in each.
    """
    kinds: dict[str, set[pa.DataType]] = {}
    for field in (field for table in tables for field in table.schema):
        kinds.setdefault(field.name, set()).add(field.type)
    mixed = [n for n, found in kinds.items() if len(found) > 1 and n.startswith("gene.")]
    words = [n for n in mixed if pa.string() in kinds[n] or pa.bool_() in kinds[n]]
    try:
        fitted = [_as_words(table, words) for table in tables]
        table = pa.concat_tables(fitted, promote_options="permissive")
    except pa.ArrowException as error:
        raise StoreError(f"the tables of {where} do not fit together: {error}") from error
    return table.replace_schema_metadata(joined_metadata(tables))


def _as_words(table: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        if name in table.column_names:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, table[name].cast(pa.string()))
    return table


def read_part(path: Place, study: Study, columns: Sequence[str] | None = None) -> pa.Table:
    """Return one part as this version has it; of `columns`, those that it has.

    Args:
        path: its file.
        study: returns study.json of its run.
        columns: the only ones to return; default all.

    Raises:
        ArrowInvalid: if it is torn.
        FileNotFoundError: if it is gone.
        StoreError: if it is no file, not what evometa writes, a newer version wrote it, or the
            store cannot be reached.
    """
    require_file(path)
    try:
        file = pq.ParquetFile(source(path))
        known = file.schema_arrow.names
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"the names of its columns are damaged: {error}") from error
    with file:
        names = None if columns is None else [n for n in columns if n in known]
        wrote = version_of(file.schema_arrow, path)
        # in older parts, new columns are made of others
        read = names if wrote == VERSION else None
        table = check_part(file.read(read), path, wrote, whole=read is None)
    table = as_now(table, study, path)
    return (
        table if columns is None else table.select([n for n in columns if n in table.schema.names])
    )


def as_now(table: pa.Table, study: Study, path: Place) -> pa.Table:
    """Return a table of any version as this one has it.

    Raises:
        StoreError: if it does not fit its study.
    """
    if version_of(table.schema, path) == VERSION:
        return table
    try:
        return upgrade(table, study(), path)
    except (KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(f"{path} does not fit the study.json of its run: {error!r}") from error


def source(path: Place) -> Any:
    """Return what Arrow reads a file from."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, RemotePath) else path


def run_names(paths: Sequence[Place]) -> list[str]:
    """Return the folders' names, or their paths where two have the same name."""
    names = [path.name if isinstance(path, RemotePath) else path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def repair(run: Place) -> list[Place]:
    """Set broken parts aside, in `set-aside`, so that a search can go on; return where they are.

    Only for who holds the run.

    Raises:
        StoreError: if there is what nobody can go on from, or the folder cannot be read.
    """
    moved, study = [], cache(partial(_study, run))
    if isinstance(run, Path):
        for left in filter(lambda path: is_unfinished(path.name), (run / "evaluations").iterdir()):
            left.unlink(missing_ok=True)  # its writer was killed
    for path in part_files(run / "evaluations"):
        if not _PART.fullmatch(path.stem):
            raise StoreError(f"{path} must be named like part-000000.parquet; move it away")
        try:
            read_part(path, study)
        except (pa.ArrowException, OSError) as error:
            _require_torn(path, error)
            aside = run / "set-aside"
            aside.mkdir(exist_ok=True)
            target = aside / path.name
            while target.exists():
                target = target.with_name(f"again-{target.name}")
            path.replace(target)  # type: ignore[arg-type]  # both are of one kind
            moved.append(target)
            log.warning("%s is torn (%s); it is set aside as %s", path, error, target)
    return moved


def _require_torn(path: Place, error: Exception) -> None:
    """Raise `StoreError` if it is the system that fails, not the part: no permission, say."""
    if isinstance(error, UnreachableError):
        raise error
    if isinstance(error, OSError) and error.errno is not None:
        raise StoreError(f"{path} cannot be read: {error}") from error


def evaluations(table: pa.Table) -> Iterator[Evaluation]:
    """Yield the evaluations of a table, in its order.

    Raises:
        StoreError: if a row is none.
    """
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            try:
                yield from_row(row)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise StoreError(
                    f"the row of candidate {row.get('candidate_id')} cannot be read: {error!r}"
                ) from error


def find_evaluation(path: Place, study: Study, key: Key) -> Evaluation | None:
    """Return the evaluation of this key in one part, if it is there."""
    table = pq.read_table(source(path), filters=[("number", "=", key[0])])
    table = as_now(table, study, path)
    found = [each for each in evaluations(table) if each.candidate.key == key]
    return found[-1] if found else None


def _study(run: Place) -> Mapping[str, Any]:
    """Return study.json; empty where a folder holds a table alone."""
    return RunDirectory.read(run) if (run / "study.json").is_file() else {}


def _in_order(table: pa.Table) -> pa.Table:
    """Sort by the order of telling, and of doubles keep the first; most tables are so already."""
    number, rung, repeat, told = (table[name].to_numpy().astype(np.int64) for name in KEYS)
    order = np.arange(len(table))
    if (np.diff(told) <= 0).any():
        order = np.lexsort((repeat, rung, told))
    keys = number * (1 + rung.max(initial=0)) + rung
    keys = (keys * (1 + repeat.max(initial=0)) + repeat)[order]
    first = np.unique(keys, return_index=True)[1]
    if len(first) == len(table) and (np.diff(order) == 1).all():
        return table
    return table.take(pa.array(order[np.sort(first)]))


def joined_metadata(tables: Sequence[pa.Table]) -> dict[str, str]:
    """Return the version of tables put together, and what wrote them, each once."""
    origins: list[Any] = []
    for table in tables:
        found = json.loads((table.schema.metadata or {}).get(PROVENANCE, b"[]"))
        for origin in found if isinstance(found, list) else [found]:
            if origin not in origins:
                origins.append(origin)
    return {"evometa.schema": str(VERSION), "evometa.provenance": json.dumps(origins)}
