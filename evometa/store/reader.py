"""Read a run's table, also while it grows, also when a part of it is broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.records import Evaluation
from evometa.store.remote import Place, RemotePath, UnreachableError
from evometa.store.schema import from_row, make_schema

log = logging.getLogger(__name__)


def part_files(folder: Place) -> list[Place]:
    """Return the parts in the order of writing; hidden files are unfinished."""
    return sorted(path for path in folder.glob("part-*.parquet") if path.name[0] != ".")


def read_table(run: Place) -> pa.Table:
    """Return a run's table in the order of telling, one row for each candidate and rung.

    Nothing is changed: broken parts are left out, with a warning.

    Raises:
        StoreError: if there is no run at `run`.
    """
    folder = run / "evaluations"
    if not folder.is_dir():
        raise StoreError(f"{run} must be a run directory, but it has no folder evaluations")
    tables = []
    for path in part_files(folder):
        try:
            tables.append(read_part(path))
        except FileNotFoundError:  # a writer has just merged it into another part
            return read_table(run)
        except (pa.ArrowInvalid, OSError) as error:
            _require_torn(path, error)
            log.warning("%s is left out: it is torn (%s)", path, error)
    if not tables:
        return make_schema({}, []).empty_table()
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    order = pc.sort_indices(table, [("told", "ascending"), ("rung", "ascending")])
    return _without_doubles(table.take(order))


def repair(run: Place) -> list[Place]:
    """Set broken parts aside, in `set-aside`, so that a search can go on; return where they are."""
    moved = []
    for path in part_files(run / "evaluations"):
        try:
            read_part(path)
        except (pa.ArrowInvalid, OSError) as error:
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


def read_part(path: Place, filters: list[tuple[str, str, str]] | None = None) -> pa.Table:
    """Return one part.

    Raises:
        ArrowInvalid: if it is torn.
        FileNotFoundError: if it is gone.
        StoreError: if the store cannot be reached.
    """
    source = pa.BufferReader(path.read_bytes()) if isinstance(path, RemotePath) else path
    return pq.read_table(source, filters=filters)


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


def read_rows(path: Place, candidate_id: str) -> list[dict[str, Any]]:
    """Return the rows of one candidate in one part."""
    found = read_part(path, filters=[("candidate_id", "=", candidate_id)])
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def _without_doubles(table: pa.Table) -> pa.Table:
    keys = table.select(["candidate_id", "rung"]).append_column(
        "index", pa.array(np.arange(len(table)))
    )
    first = keys.group_by(["candidate_id", "rung"]).aggregate([("index", "min")])
    if len(first) == len(table):
        return table
    return table.take(first["index_min"].sort())
