"""The table of a confirmation: `confirm.parquet`, one row a candidate and new seed.

Its key is that of a run's table; `repeat` counts the new seeds, from 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.records import Evaluation
from evometa.store.checks import check_part
from evometa.store.files import require_file, write_atomically
from evometa.store.older import version_of
from evometa.store.provenance import provenance
from evometa.store.reader import as_now, source
from evometa.store.remote import Place
from evometa.store.run_directory import RunDirectory
from evometa.store.schema import make_schema, to_row

FILE = "confirm.parquet"
_OWN = [
    ("iterations", pa.int64()),
    ("validation_scores", pa.list_(pa.float64())),
    ("search_scores", pa.list_(pa.float64())),
    ("pack", pa.list_(pa.int64())),
]
"""Columns besides those of a run's table, whose `scores` are here those of meta-test."""


def read_confirmed(run: Place) -> pa.Table | None:
    """Return the run's confirmation on meta-test; None if there is none.

    Raises:
        StoreError: if it cannot be read.
    """
    path = run / FILE
    require_file(path)
    if not path.is_file():
        return None
    try:
        table = pq.ParquetFile(source(path)).read()
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read: {error}; confirm again") from error
    if "pack" not in names:  # in confirmations of 0.1
        table = table.append_column("pack", pa.array([[]] * len(table), pa.list_(pa.int64())))
    for name, kind in _OWN:
        if name not in table.column_names or table.schema.field(name).type != kind:
            raise StoreError(f"{path} must have a column {name!r} of type {kind}; confirm again")
    table = check_part(table, path, version_of(table.schema, path), whole=True)
    return as_now(table, lambda: RunDirectory.read(run), path)


def confirmed_row(
    evaluation: Evaluation,
    metrics: Sequence[str],
    *,
    iterations: int,
    search_scores: Sequence[float],
    pack: Sequence[int],
) -> dict[str, Any]:
    """Return a new training as a row.

    Args:
        evaluation: scored on meta-test, and further on meta-validation.
        metrics: names of the study's metrics.
        iterations: meta-iterations.
        search_scores: what the search has found, one value a meta-validation episode.
        pack: the repeats that were trained together.
    """
    row = to_row(evaluation, 0, make_schema({}, metrics), lambda genome, path: None)
    return {
        **row,
        "iterations": iterations,
        "validation_scores": list(evaluation.further.get("meta-validation", ())),
        "search_scores": list(search_scores),
        "pack": list(pack),
    }


def write_confirmed(
    run: Place, study: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> pa.Table:
    """Write the confirmation of a run anew, at once or not at all; return it.

    Args:
        run: the run directory.
        study: study.json.
        rows: all of them.

    Raises:
        StoreError: if it cannot be written.
    """
    schema = make_schema({}, study["metrics"])
    for name, kind in _OWN:
        schema = schema.append(pa.field(name, kind))
    origin = json.dumps(provenance(study))
    metadata = {**(schema.metadata or {}), "evometa.provenance": origin}
    table = pa.Table.from_pylist(list(rows), schema.with_metadata(metadata))
    try:
        write_atomically(run / FILE, lambda file: pq.write_table(table, file, compression="zstd"))
    except OSError as error:
        raise StoreError(f"{run / FILE} cannot be written: {error}") from error
    return table
