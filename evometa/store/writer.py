"""The one writer of a run's table."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evometa.errors import StoreError
from evometa.records import Evaluation
from evometa.store.files import write_atomically
from evometa.store.provenance import provenance
from evometa.store.reader import find_evaluation, joined_metadata, part_files, read_part
from evometa.store.remote import Place, RemotePath
from evometa.store.run_directory import RunDirectory
from evometa.store.schema import GeneValue, to_row

log = logging.getLogger(__name__)

FLUSH_ROWS = 256
FLUSH_SECONDS = 1.0
MOST_PARTS = 64
PARTS_AT_REST = 8
RATIO = 4
LARGE = 1024


class Writer:
    """Appends rows in parts that are complete or absent.

    A part is written at every `FLUSH_ROWS` rows, or with the first row that comes `FLUSH_SECONDS`
    after the last part; while the writer is entered, a thread of its own writes what waits longer
    for a next row. A killed driver loses at most that, and evaluates it again.

    Where the run's lock can be lost, the names of parts carry its token and a count, so that no
    file is ever written twice, and a part that comes after the loss is withdrawn. Once there are
    `MOST_PARTS` parts, or `PARTS_AT_REST` at the end, the last ones become one: those that are not
    made of `RATIO` times as many as all after them, so that a row is written a few times in all and
    the number of parts grows with the logarithm of the table. A part made of `LARGE` is left as it
    is, and counts no more: to merge a million rows would hold up the search, and fill its memory.

    Args:
        directory: the run's folder, held.
        schema: the table's columns.
        gene_value: returns a gene of a genome by path.
    """

    def __init__(self, directory: RunDirectory, schema: pa.Schema, gene_value: GeneValue) -> None:
        self._lock, self._folder = directory.lock, directory.parts
        self._study = lambda: directory.study
        self._gene_value = gene_value
        origin = json.dumps(provenance(directory.study))
        self._schema = schema.with_metadata(
            {**(schema.metadata or {}), "evometa.provenance": origin}
        )
        self._rows: list[dict[str, Any]] = []
        self._parts = part_files(self._folder)
        self._next = 1 + max((_last_number(path) for path in self._parts), default=-1)
        self._flushed_at = time.monotonic()
        self._most_parts, self._marks = MOST_PARTS, itertools.count()
        self._alone, self._closed = threading.RLock(), threading.Event()

    def append(self, evaluation: Evaluation, told: int) -> None:
        """Keep an evaluation and its place in the order of telling.

        Raises:
            StoreError: if the disk is full or cannot be written.
        """
        row = to_row(evaluation, told, self._schema, self._gene_value)
        with self._alone:
            self._rows.append(row)
        late = time.monotonic() - self._flushed_at >= FLUSH_SECONDS
        if late or len(self._rows) >= FLUSH_ROWS:
            self.flush()

    def recall(self, number: int, rung: int, repeat: int) -> Evaluation:
        """Return a kept evaluation.

        Raises:
            StoreError: if there is none of this candidate at this rung with this seed.
        """
        with self._alone:
            self.flush()
            for path in reversed(self._parts):
                try:
                    found = find_evaluation(path, self._study, (number, rung, repeat))
                except FileNotFoundError:
                    self._parts = part_files(self._folder)
                    return self.recall(number, rung, repeat)
                if found is not None:
                    return found
        raise StoreError(
            f"the table has no evaluation of candidate {number} at rung {rung}, repeat {repeat}"
        )

    def flush(self) -> None:
        """Write the rows that are waiting; on an error they go on waiting.

        Raises:
            StoreError: if the disk is full or cannot be written.
        """
        with self._alone:
            if not self._rows:
                return
            path = self._named(f"{self._next:06d}")
            self._write(path, pa.Table.from_pylist(self._rows, self._schema))
            self._parts.append(path)
            self._next += 1
            self._rows = []
            self._flushed_at = time.monotonic()
            self._compact(self._most_parts)

    def close(self) -> None:
        """Write what is waiting, and leave few parts."""
        self._closed.set()
        self.flush()
        with self._alone:
            self._compact(PARTS_AT_REST)

    def __enter__(self) -> Writer:
        """Return itself, and from now on write in time though no row comes."""
        threading.Thread(target=self._keep_up, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is waiting; where that fails too, let the first error be seen."""
        try:
            self.close()
        except StoreError:
            if error is None:
                raise

    def _keep_up(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS):
            with contextlib.suppress(StoreError):  # the next row meets it again, and says so
                self.flush()

    def _compact(self, most: int) -> None:
        """Make one part of more than `most`; a crash leaves doubles, which the reader drops.

        Nothing is lost where it fails: every row is in a part already, so the search goes on.
        """
        sizes = [1 + _last_number(path) - _first_number(path) for path in self._parts]
        if small_parts(sizes) <= most:
            return
        try:
            self._merge(first_to_merge(sizes))
        except (StoreError, OSError, pa.ArrowException) as error:
            log.warning("The parts in %s stay as they are: %s", self._folder, error)
            self._most_parts *= 2

    def _merge(self, kept: int) -> None:
        parts = self._parts[kept:]
        if len(parts) == 1:
            return
        last = max(_last_number(path) for path in parts)
        merged = self._named(f"{_first_number(parts[0]):06d}-{last:06d}")
        try:
            tables = [read_part(path, self._study) for path in parts]
        except FileNotFoundError:  # merged by a driver that held the run before, and woke up late
            self._parts = part_files(self._folder)
            return
        table = pa.concat_tables(tables, promote_options="permissive")
        self._write(merged, table.replace_schema_metadata(joined_metadata(tables)))
        for path in parts:
            if path != merged:
                path.unlink(missing_ok=True)
        self._parts[kept:] = [merged]

    def _write(self, path: Place, table: pa.Table) -> None:
        self._lock.check()
        try:
            write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))
            self._lock.confirm(path)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error}. Everything up to the part before is safe; "
                f"{len(self._rows)} finished candidates are not yet on disk and will be evaluated "
                f"again. {_cure(path, error)}, then: evometa resume {self._folder.parent}"
            ) from error

    def _named(self, numbers: str) -> Place:
        holder = self._lock.token
        mark = f".{holder}-{next(self._marks)}" if holder else ""
        return self._folder / f"part-{numbers}{mark}.parquet"


def first_to_merge(sizes: Sequence[int]) -> int:
    """Return the place of the first part that becomes one with all after it."""
    kept = len(sizes) - 1
    while kept and sizes[kept - 1] <= min(LARGE, RATIO * sum(sizes[kept:])):
        kept -= 1
    return kept


def small_parts(sizes: Sequence[int]) -> int:
    """Return how many parts may still be merged."""
    return sum(size <= LARGE for size in sizes)


def _cure(path: Place, error: OSError) -> str:
    if isinstance(path, RemotePath):
        return "Mend the connection"
    locked = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return "Make the folder writable" if locked else "Free some space"


def _first_number(path: Place) -> int:
    return int(path.name.split(".")[0].split("-")[1])


def _last_number(path: Place) -> int:
    return int(path.name.split(".")[0].split("-")[-1])
