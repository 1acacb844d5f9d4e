"""Tables of any size, read once: some rows of each task, and what is wrong with the others."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from evometa.errors import TaskError
from evometa.files import local
from evometa.task.folder import foreign, shown
from evometa.task.reading import listed

BATCH = 1 << 16  # rows that are looked at together
FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "csv",
    ".feather": "arrow", ".arrow": "arrow", ".ipc": "arrow", ".arrows": "arrow",
}  # fmt: skip
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
SPARE = 1 << 20  # rows that may wait to be thinned out
Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A file of a table, or a table in memory.

    Attributes:
        name: for people.
        schema: Arrow's, of all its columns.
        read: gives batches of the columns named.
    """

    name: str
    schema: Any
    read: Callable[[list[str]], Iterator[Any]]


def parts_of(source: Any, texts: Sequence[str] = ()) -> list[Part]:
    """Return the parts of a table.

    Args:
        source: a path, or an object with Arrow's stream interface.
        texts: columns of CSV files that are texts, whatever they look like.

    Raises:
        TaskError: if there is no table, or it cannot be opened.
    """
    if not isinstance(source, str | Path):
        return [_in_memory(source)]
    path = local(source)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(foreign(each) or each.startswith("_") for each in _below(file, path))
        )
        known = [file for file in files if file.suffix.lower() in FORMATS]
        if not known:
            raise TaskError(
                f"{shown(path)} holds no table: {len(files)} files, none of which ends in "
                f"{', '.join(FORMATS)}"
            )
        if len({FORMATS[file.suffix.lower()] for file in known}) > 1:
            raise TaskError(
                f"the parts of a table must be of one format, but {shown(path)} holds "
                f"{listed([file.name for file in known])}"
            )
        return [_opened(file, texts) for file in known]
    if not path.is_file():
        near = difflib.get_close_matches(path.name, _beside(path), 3)
        there = f"; there is {' and '.join(near)}" if near else ""
        raise TaskError(f"a table must exist, but there is none at {shown(path)}{there}")
    return [_opened(path, texts)]


def _below(file: Path, folder: Path) -> tuple[str, ...]:
    return file.relative_to(folder).parts


def _beside(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []


def _in_memory(source: Any) -> Part:
    if isinstance(source, Mapping):
        source = pa.table(dict(source))
    if not hasattr(source, "__arrow_c_stream__"):
        hint = "; call `.collect()` first" if hasattr(source, "collect") else ""
        raise TaskError(
            "a table must be a path, or something that Arrow can read (of pandas, Polars, DuckDB, "
            f"PyArrow), got a {type(source).__module__}.{type(source).__name__}{hint}"
        )
    schema = pa.RecordBatchReader.from_stream(source).schema

    def read(columns: list[str]) -> Iterator[Any]:
        for batch in pa.RecordBatchReader.from_stream(source):
            yield batch.select(columns)

    kind = type(source)
    return Part(f"{kind.__module__.partition('.')[0]}'s {kind.__name__}", schema, read)


def _opened(path: Path, texts: Sequence[str]) -> Part:
    name, kind = shown(path), FORMATS.get(path.suffix.lower())
    if kind is None:
        raise TaskError(f"a table must end in {', '.join(FORMATS)}, got {name}")
    if not path.stat().st_size:
        raise TaskError(f"{name} is empty")
    with _named(name):
        if kind == "csv":
            return _csv(path, name, texts)
        return _arrow(path, name) if kind == "arrow" else _parquet(path, name)


def _parquet(path: Path, name: str) -> Part:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow

    def read(columns: list[str]) -> Iterator[Any]:
        with _named(name), pq.ParquetFile(path) as file:  # a row group at a time
            yield from file.iter_batches(BATCH, columns=columns, use_threads=False)

    return Part(name, schema, read)


def _arrow(path: Path, name: str) -> Part:
    def read(columns: list[str]) -> Iterator[Any]:
        with _named(name), pa.memory_map(str(path)) as mapped:
            file = _ipc(mapped)
            if isinstance(file, pa.RecordBatchStreamReader):
                yield from (batch.select(columns) for batch in file)
            else:
                for place in range(file.num_record_batches):
                    yield file.get_batch(place).select(columns)

    with pa.memory_map(str(path)) as mapped:
        return Part(name, _ipc(mapped).schema, read)


def _ipc(mapped: Any) -> Any:
    try:
        return pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        return pa.ipc.open_stream(mapped)


def _csv(path: Path, name: str, texts: Sequence[str]) -> Part:
    with path.open("rb") as file:
        head = file.readline()
    parse = pa.csv.ParseOptions(
        delimiter="\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=_counted(head)),
        newlines_in_values=True,
    )
    reading = pa.csv.ReadOptions(block_size=1 << 22, use_threads=False)

    def opened(columns: list[str] | None, types: Mapping[str, Any]) -> Any:
        convert = pa.csv.ConvertOptions(
            include_columns=columns, column_types=types, strings_can_be_null=True
        )
        return pa.csv.open_csv(path, reading, parse, convert)

    found = opened(None, {text: pa.string() for text in texts}).schema
    doubled = sorted({each for each in found.names if found.names.count(each) > 1})
    if doubled:
        raise TaskError(f"{name} has columns of one name: {listed(doubled)}")
    # whole numbers in the first block may have fractions later
    schema = pa.schema(
        [(f.name, pa.float64() if pa.types.is_integer(f.type) else f.type) for f in found]
    )

    def read(columns: list[str]) -> Iterator[Any]:
        odd = [each for each in columns if pa.types.is_binary(schema.field(each).type)]
        if odd:
            raise TaskError(f"{name}: column {odd[0]!r} is not UTF-8; save the file as UTF-8")
        loose = [each for each in columns if each not in texts]
        with _named(name):
            first = 0
            for batch in opened(columns, {each: schema.field(each).type for each in columns}):
                for each in loose:
                    _check_unmixed(batch.column(each), each, name, first)
                first += batch.num_rows
                yield batch

    return Part(name, schema, read)


def _check_unmixed(column: Any, column_name: str, file: str, first: int) -> None:
    """Raise `TaskError` if a column would be one of numbers, but for a few texts."""
    if not is_text(column.type) or column.null_count == len(column):
        return
    words = pc.invert(pc.match_substring_regex(column, NUMBER))
    count = pc.sum(words).as_py()
    if 0 < 2 * count < len(column) - column.null_count:
        row = pc.index(words, True).as_py()
        raise TaskError(
            f"{file}: column {column_name!r} mixes numbers and texts: row {first + row} (counted "
            f"from 0) holds {column[row].as_py()!r}; mend it, or name the column in `categorical`"
        )


def _counted(head: bytes) -> Callable[[str], int]:
    return lambda delimiter: head.count(delimiter.encode())


class _named:
    """Has Arrow's errors name the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowException | OSError) and not isinstance(error, TaskError):
            raise TaskError(f"{self._name} cannot be read: {error}") from error


def column_of(schema: Any, name: str, what: str, where: str) -> Any:
    """Return the type of a column.

    Args:
        schema: of the table.
        name: of the column.
        what: it is for, for people.
        where: the table is, for people.

    Raises:
        TaskError: if there is none.
    """
    if name not in schema.names:
        near = difflib.get_close_matches(name, schema.names, 3, 0.5)
        there = f"did you mean {' or '.join(map(repr, near))}?" if near else (
            f"there are {listed(schema.names, 10)}"
        )  # fmt: skip
        raise TaskError(f"{where} has no column {name!r} for {what}; {there}")
    return schema.field(name).type


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
        places: the number of each within the whole table, from 0.
        names: of the tasks.
        counts: rows of each task that can be used.
        splits: what the split column says of each task; empty without one.
        begins: when each task begins; empty without a time.
        bad: rows that cannot be used, by what is wrong with them.
        total: rows of the table.
    """

    table: Any = None
    owners: Numbers = field(default_factory=lambda: np.array([], np.int64))
    places: Numbers = field(default_factory=lambda: np.array([], np.int64))
    names: list[str] = field(default_factory=list)
    counts: Numbers = field(default_factory=lambda: np.array([], np.int64))
    splits: list[str] = field(default_factory=list)
    begins: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([], np.float64))
    bad: dict[str, list[str]] = field(default_factory=dict)
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
        with _named(part.name):
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


def plain(column: Any, kind: Any = None) -> Any:
    """Return a column without dictionaries and views, texts with large offsets."""
    if kind is not None and column.type != kind:
        column = column.cast(kind)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        column = column.cast(pa.large_string())
    if is_list(column.type):
        column = column.cast(pa.large_list(column.type.value_type))
    return column


def is_text(kind: Any) -> bool:
    """Return whether a type is one of texts."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_string_view(kind))


def is_number(kind: Any) -> bool:
    """Return whether a type is one of numbers, truth values or moments."""
    types = pa.types
    whole = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(whole or types.is_boolean(kind) or types.is_temporal(kind))


def is_list(kind: Any) -> bool:
    """Return whether a type is one of lists."""
    whole = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(whole or pa.types.is_fixed_size_list(kind))


def texts_of(column: Any) -> Any:
    """Return a column as texts, whole floats without a point, as whole numbers are."""
    text = column.cast(pa.large_string())
    if pa.types.is_floating(column.type):
        return pc.replace_substring_regex(text, r"\.0$", "")
    return text


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
        self._places: list[Numbers] = []
        self._waiting = self._kept = 0

    def add(self, columns: Mapping[str, Any], part: str, first: int) -> None:
        """Look at some rows; `first` is the number of the first within its part."""
        wanted, rows = self._wanted, self._rows
        count = len(columns[wanted.task])
        keys, places = self._rng.random(count), rows.total + np.arange(count)
        rows.total += count
        good = self._usable(columns, part, first)
        if not good.all():
            columns = {name: column.filter(pa.array(good)) for name, column in columns.items()}
            keys, places = keys[good], places[good]
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
        self._places.append(places[low])
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
        rows.places = self._places[0]
        return rows

    def _usable(self, columns: Mapping[str, Any], part: str, first: int) -> npt.NDArray[np.bool_]:
        wanted = self._wanted
        good = np.ones(len(columns[wanted.task]), bool)
        for name in (wanted.task, wanted.target, wanted.split, wanted.time):
            if name is None:
                continue
            here = present(columns[name])
            if here.all():
                continue
            lost = [f"row {first + row} of {part}" for row in np.flatnonzero(~here)]
            what = f"rows without a finite {name!r}"
            if not wanted.skip:
                raise TaskError(
                    f"each row must have a {name!r}, but {len(lost)} or more have none, as "
                    f"{listed(lost)} (counted from 0); mend them, or leave them out with "
                    "--skip-broken"
                )
            self._rows.bad.setdefault(what, []).extend(lost)
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
        places = np.concatenate(self._places)[kept]
        self._tables, self._owners, self._keys = [table], [owners[kept]], [keys[kept]]
        self._places, self._kept, self._waiting = [places], len(kept), len(kept)


def present(column: Any) -> npt.NDArray[np.bool_]:
    """Return which entries are there: neither null, nor a number that is not finite."""
    here = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        here = pc.and_(here, pc.fill_null(pc.is_finite(column), False))
    return np.asarray(here.to_numpy(zero_copy_only=False), bool)


def numbers_of(column: Any) -> npt.NDArray[np.float64]:
    """Return numbers, truth values or moments as float64; NaN for what is missing.

    Raises:
        pyarrow.ArrowException: if they are none.
    """
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_date32(kind) or pa.types.is_time32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.int64())
    found = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(found, np.float64)


def labels_of(column: Any, name: str, most: int) -> tuple[tuple[Any, ...], Numbers]:
    """Return the different labels, sorted, and the number of the label of each row.

    Raises:
        TaskError: if they are no texts, truth values or whole numbers, are too many, or all alike.
    """
    if pa.types.is_floating(column.type):
        whole = pc.equal(column, pc.floor(column))
        if not pc.all(whole).as_py():
            odd = column.filter(pc.invert(whole))[0].as_py()
            raise TaskError(f"the labels {name!r} must be no fractions, but one is {odd:g}")
        column = column.cast(pa.int64())
    kind = column.type
    if not (is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
        raise TaskError(
            f"the labels {name!r} must be texts, truth values or whole numbers, got {kind}"
        )
    coded = column.dictionary_encode()
    found = coded.dictionary.to_pylist()
    if not 2 <= len(found) <= most:
        raise TaskError(
            f"the labels {name!r} must be from 2 to {most} different ones, but are {len(found)}, "
            f"as {listed([repr(each) for each in found])}"
        )
    labels = tuple(sorted(found))
    place: Numbers = np.array([labels.index(each) for each in found], np.int64)
    numbers: Numbers = place[coded.indices.to_numpy(zero_copy_only=False)]
    return labels, numbers
