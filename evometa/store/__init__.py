"""What happened? Append-only Parquet parts in a run directory: the table is the truth.

One row an evaluation, one documented schema, no pickles. Parts are complete or absent; `read_table`
changes nothing, so it may read a run that is still going on.
"""

from evometa.store.checks import fitting
from evometa.store.confirmed import confirmed_row, read_confirmed, write_confirmed
from evometa.store.files import write_text
from evometa.store.lock import Lock, hold, is_held
from evometa.store.provenance import versions
from evometa.store.reader import (
    evaluations,
    load,
    read_search,
    read_table,
    repair,
    run_names,
)
from evometa.store.remote import Place, place
from evometa.store.run_directory import RunDirectory
from evometa.store.schema import TIME_AND_PLACE, VERSION, make_schema
from evometa.store.writer import Writer

__all__ = [
    "TIME_AND_PLACE",
    "VERSION",
    "Lock",
    "Place",
    "RunDirectory",
    "Writer",
    "confirmed_row",
    "evaluations",
    "fitting",
    "hold",
    "is_held",
    "load",
    "make_schema",
    "place",
    "read_confirmed",
    "read_search",
    "read_table",
    "repair",
    "run_names",
    "versions",
    "write_confirmed",
    "write_text",
]
