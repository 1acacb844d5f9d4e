"""Tables of any size, read once: some rows of each task, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from evometa.errors import TaskError
from evometa.task.reading import listed
from evometa.task.table_columns import infinite, numbers_of, plain, present, texts_of
from evometa.task.table_files import BATCH, Part, column_of, named

SPARE = 1 << 20  # rows that may wait to be thinned out
Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass
class Bad:
    """Rows that cannot be used: the first, and how many they are."""

    first: str
    count: int = 0


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a table.

    Attributes:
        task: the column that names the task of a row.
        target: the column to be predicted.
        inputs: the columns to predict it from.
        split: the column that names the split of a task, if there is one.
        time: the column that says when, if there is one.
        most: rows to keep of each task.
        seed: draws them.
        skip: whether to leave out rows that cannot be used.
    """

    task: str
    target: str
    inputs: tuple[str, ...]
    split: str | None
    time: str | None
    most: int
    seed: int
    skip: bool

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        others = [name for name in (self.split, self.time) if name is not None]
        return list(dict.fromkeys([self.task, self.target, *self.inputs, *others]))


@dataclass
class Rows:
    """The rows that are kept, and what is known of all of them.

    Attributes:
        table: target, inputs and time of each row that is kept.
        owners: the task of each.
        names: of the tasks.
        counts: rows of each task that can be used.
        splits: what the split column says of each task; empty without one.
        begins: when each task begins; empty without a time.
        bad: rows that cannot be used, by what is wrong with them.
        total: rows of the table.
    """

    table: Any = None
    owners: Numbers = field(default_factory=lambda: np.array([], np.int64))
    names: list[str] = field(default_factory=list)
    counts: Numbers = field(default_factory=lambda: np.array([], np.int64))
    splits: list[str] = field(default_factory=list)
    begins: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([], np.float64))
    bad: dict[str, Bad] = field(default_factory=dict)
    total: int = 0


def read_rows(parts: Sequence[Part], wanted: Wanted) -> Rows:
    """Read a table once, batch by batch, and keep at most `most` rows of each task, drawn evenly.

    Raises:
        TaskError: if a row cannot be used, and is not to be skipped, or a task is in two splits.
    """
    reader = _Reader(wanted)
    for part in parts:
        kinds = [parts[0].schema.field(name).type for name in wanted.columns]
        for name in wanted.columns:
            column_of(part.schema, name, "the table", part.name)
        first = 0
        with named(part.name):
            for batch in part.read(wanted.columns):
                columns = {
                    name: plain(batch.column(name), kind)
                    for name, kind in zip(wanted.columns, kinds, strict=True)
                }
                for start in range(0, batch.num_rows, BATCH):
                    some = {n: column.slice(start, BATCH) for n, column in columns.items()}
                    reader.add(some, part.name, first + start)
                first += batch.num_rows
    return reader.finished()


class _Reader:
    """Keeps of each task the rows with the smallest random keys: an even sample of all so far."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted, self._rows = wanted, Rows()
        self._numbers: dict[str, int] = {}
        self._rng = np.random.default_rng(wanted.seed)
        self._bars = np.array([], np.float64)  # keys above are of no use
        self._tables: list[Any] = []
        self._owners: list[Numbers] = []
        self._keys: list[npt.NDArray[np.float64]] = []
        self._waiting = self._kept = 0

    def add(self, columns: Mapping[str, Any], part: str, first: int) -> None:
        """Look at some rows; `first` is the number of the first within its part."""
        wanted, rows = self._wanted, self._rows
        count = len(columns[wanted.task])
        keys = self._rng.random(count)
        rows.total += count
        good = self._usable(columns, part, first)
        if not good.all():
            columns = {name: column.filter(pa.array(good)) for name, column in columns.items()}
            keys = keys[good]
        if not len(keys):
            return
        owners = self._owned(columns[wanted.task])
        rows.counts += np.bincount(owners, minlength=len(rows.names))
        if wanted.split is not None:
            self._note_splits(owners, columns[wanted.split], part)
        if wanted.time is not None:
            np.minimum.at(rows.begins, owners, numbers_of(columns[wanted.time]))
        low = keys <= self._bars[owners]
        held = dict.fromkeys([wanted.target, *wanted.inputs])
        if wanted.time is not None:
            held[wanted.time] = None
        self._tables.append(pa.table({name: columns[name].filter(pa.array(low)) for name in held}))
        self._owners.append(owners[low])
        self._keys.append(keys[low])
        self._waiting += int(low.sum())
        if self._waiting > SPARE + self._kept:
            self._thin()

    def finished(self) -> Rows:
        """Return what was kept, in the order of the table."""
        if not self._tables:
            return self._rows
        self._thin()
        rows = self._rows
        rows.table, rows.owners = self._tables[0], self._owners[0]
        return rows

    def _usable(self, columns: Mapping[str, Any], part: str, first: int) -> npt.NDArray[np.bool_]:
        """Return which rows can be used: inputs may be missing, and nothing else."""
        wanted = self._wanted
        good = np.ones(len(columns[wanted.task]), bool)
        roles = [each for each in (wanted.task, wanted.target, wanted.split, wanted.time) if each]
        for name in dict.fromkeys([*roles, *wanted.inputs]):
            here = present(columns[name]) if name in roles else ~infinite(columns[name])
            if here.all():
                continue
            lost = [f"row {first + row} of {part}" for row in np.flatnonzero(~here)]
            what = "no finite" if name in roles else "an infinite"
            if not wanted.skip:
                raise TaskError(
                    f"{len(lost)} rows or more have {what} {name!r}, as {listed(lost)} (counted "
                    "from 0); mend them, or leave them out with --skip-broken"
                )
            bad = self._rows.bad.setdefault(f"rows with {what} {name!r}", Bad(lost[0]))
            bad.count += len(lost)
            good &= here
        return good

    def _owned(self, column: Any) -> Numbers:
        """Return the numbers of tasks, new ones among them."""
        coded = texts_of(column).dictionary_encode()
        found = np.array(
            [self._numbers.setdefault(n, len(self._numbers)) for n in coded.dictionary.to_pylist()]
        )
        rows, new = self._rows, len(self._numbers) - len(self._rows.names)
        if new:
            rows.names = list(self._numbers)
            rows.counts = np.concatenate([rows.counts, np.zeros(new, np.int64)])
            rows.begins = np.concatenate([rows.begins, np.full(new, np.inf)])
            rows.splits += [""] * new
            self._bars = np.concatenate([self._bars, np.full(new, np.inf)])
        owners: Numbers = found[coded.indices.to_numpy(zero_copy_only=False)].astype(np.int64)
        return owners

    def _note_splits(self, owners: Numbers, column: Any, part: str) -> None:
        coded = texts_of(column).dictionary_encode()
        names = coded.dictionary.to_pylist()
        pairs = np.stack([owners, coded.indices.to_numpy(zero_copy_only=False)])
        for owner, name in np.unique(pairs, axis=1).T.tolist():
            before = self._rows.splits[owner]
            if before and before != names[name]:
                raise TaskError(
                    f"each task must be in one split, but {self._rows.names[owner]!r} is in "
                    f"{before!r} and in {names[name]!r} ({part})"
                )
            self._rows.splits[owner] = names[name]

    def _thin(self) -> None:
        """Put what waits together, and keep the smallest keys of each task."""
        table = pa.concat_tables(self._tables).combine_chunks()
        owners, keys = np.concatenate(self._owners), np.concatenate(self._keys)
        order = np.lexsort((keys, owners))
        starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
        lengths = np.diff(np.append(starts, len(order)))
        rank = np.arange(len(order)) - np.repeat(starts, lengths)
        last = order[rank == self._wanted.most - 1]
        self._bars[owners[last]] = keys[last]
        kept = np.sort(order[rank < self._wanted.most])
        if len(kept) < len(order):
            table = table.take(pa.array(kept))
        self._tables, self._owners, self._keys = [table], [owners[kept]], [keys[kept]]
        self._kept = self._waiting = len(kept)
