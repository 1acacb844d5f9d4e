"""Read a run's table, also while it grows, also when a part of it is broken."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.records import Evaluation, Key
from evometa.store.older import upgrade, version_of
from evometa.store.remote import Place, RemotePath, UnreachableError, place
from evometa.store.run_directory import RunDirectory
from evometa.store.schema import VERSION, from_row, make_schema

log = logging.getLogger(__name__)

KEYS = ("number", "rung", "repeat", "told")

Study: TypeAlias = Callable[[], Mapping[str, Any]]
"""Returns study.json; asked for parts of older versions alone."""


def part_files(folder: Place) -> list[Place]:
    """Return the parts in the order of writing; hidden files are unfinished."""
    return sorted(path for path in folder.glob("part-*.parquet") if path.name[0] != ".")


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
    paths = [place(str(each)) if isinstance(each, str) else each for each in (run, *more)]
    if len(set(paths)) < len(paths):
        raise StoreError(f"each run must be given once, got {', '.join(map(str, paths))}")
    tables = [read_table(path, columns) for path in paths]
    if more:
        names = run_names(paths)
        tables = [
            table.add_column(0, "run", pa.repeat(pa.scalar(name), len(table)))
            for table, name in zip(tables, names, strict=True)
        ]
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.replace_schema_metadata(joined_metadata(tables))


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
    tables, study = [], cache(partial(_study, run))
    for path in part_files(folder):
        try:
            tables.append(read_part(path, study, wanted))
        except FileNotFoundError:  # a writer has just merged it into another part
            return read_table(run, columns)
        except (pa.ArrowException, OSError) as error:
            _require_torn(path, error)
            log.warning("%s is left out: it is torn (%s)", path, error)
    table = make_schema({}, []).empty_table()
    if tables:
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
        table = _in_order(table)
        table = table.replace_schema_metadata(joined_metadata(tables))
    if columns is None:
        return table
    missing = [name for name in columns if name not in table.column_names]
    if missing and tables:
        known = sorted(
            {name for path in part_files(folder) for name in pq.read_schema(source(path)).names}
        )
        raise StoreError(f"{run} has no column {missing[0]!r}; it has {', '.join(known)}")
    for name in missing:
        table = table.append_column(name, pa.nulls(0))
    return table.select(list(columns))


def read_part(path: Place, study: Study, columns: Sequence[str] | None = None) -> pa.Table:
    """Return one part as this version has it; of `columns`, those that it has.

    Args:
        path: its file.
        study: returns study.json of its run.
        columns: the only ones to return; default all.

    Raises:
        ArrowInvalid: if it is torn.
        FileNotFoundError: if it is gone.
        StoreError: if a newer version wrote it, or the store cannot be reached.
    """
    with pq.ParquetFile(source(path)) as file:
        names = None if columns is None else [n for n in columns if n in file.schema_arrow.names]
        if version_of(file.schema_arrow, path) == VERSION:
            return file.read(names)
        table = upgrade(file.read(), study(), path)  # new columns are made of others
    return (
        table if columns is None else table.select([n for n in columns if n in table.schema.names])
    )


def source(path: Place) -> Any:
    """Return what Arrow reads a file from."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, RemotePath) else path


def run_names(paths: Sequence[Place]) -> list[str]:
    """Return the folders' names, or their paths where two have the same name."""
    names = [path.name if isinstance(path, RemotePath) else path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def repair(run: Place) -> list[Place]:
    """Set broken parts aside, in `set-aside`, so that a search can go on; return where they are."""
    moved, study = [], cache(partial(_study, run))
    for path in part_files(run / "evaluations"):
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
    """Yield the evaluations of a table, in its order."""
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield from_row(row)


def find_evaluation(path: Place, study: Study, key: Key) -> Evaluation | None:
    """Return the evaluation of this key in one part, if it is there."""
    table = pq.read_table(source(path), filters=[("number", "=", key[0])])
    if version_of(table.schema, path) < VERSION:
        table = upgrade(table, study(), path)
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
        found = json.loads((table.schema.metadata or {}).get(b"evometa.provenance", b"[]"))
        for origin in found if isinstance(found, list) else [found]:
            if origin not in origins:
                origins.append(origin)
    return {"evometa.schema": str(VERSION), "evometa.provenance": json.dumps(origins)}
