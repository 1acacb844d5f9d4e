"""Read a run's table, also while it grows, also when a part of it is broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.records import Evaluation
from evometa.store.schema import from_row, make_schema

log = logging.getLogger(__name__)


def part_files(folder: Path) -> list[Path]:
    """Return the parts in the order of writing; hidden files are unfinished."""
    return sorted(path for path in folder.glob("part-*.parquet") if path.name[0] != ".")


def read_table(run: Path) -> pa.Table:
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
            tables.append(pq.read_table(path))
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


def repair(run: Path) -> list[Path]:
    """Set broken parts aside, in `set-aside`, so that a search can go on; return where they are."""
    moved = []
    for path in part_files(run / "evaluations"):
        try:
            pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            _require_torn(path, error)
            aside = run / "set-aside"
            aside.mkdir(exist_ok=True)
            target = aside / path.name
            while target.exists():
                target = target.with_name(f"again-{target.name}")
            path.replace(target)
            moved.append(target)
            log.warning("%s is torn (%s); it is set aside as %s", path, error, target)
    return moved


def _require_torn(path: Path, error: Exception) -> None:
    """Raise `StoreError` if it is the system that fails, not the part: no permission, say."""
    if isinstance(error, OSError) and error.errno is not None:
        raise StoreError(f"{path} cannot be read: {error}") from error


def evaluations(table: pa.Table) -> Iterator[Evaluation]:
    """Yield the evaluations of a table, in its order."""
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield from_row(row)


def read_rows(path: Path, number: int, rung: int) -> list[dict[str, Any]]:
    """Return the rows of one candidate at one rung in one part."""
    rows: list[dict[str, Any]] = pq.read_table(
        path, filters=[("number", "=", number), ("rung", "=", rung)]
    ).to_pylist()
    return rows


def _without_doubles(table: pa.Table) -> pa.Table:
    keys = table.select(["candidate_id", "rung"]).append_column(
        "index", pa.array(np.arange(len(table)))
    )
    first = keys.group_by(["candidate_id", "rung"]).aggregate([("index", "min")])
    if len(first) == len(table):
        return table
    return table.take(first["index_min"].sort())
