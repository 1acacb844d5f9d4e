"""Tables in files and in memory, read in batches of the columns that are wanted."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from evometa.errors import TaskError
from evometa.files import local
from evometa.task.folder import foreign, shown
from evometa.task.reading import listed
from evometa.task.table_columns import is_text

BATCH = 1 << 16  # rows that are looked at together
FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "csv",
    ".feather": "arrow", ".arrow": "arrow", ".ipc": "arrow", ".arrows": "arrow",
}  # fmt: skip
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


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
    with named(name):
        if kind == "csv":
            return _csv(path, name, texts)
        return _arrow(path, name) if kind == "arrow" else _parquet(path, name)


def _parquet(path: Path, name: str) -> Part:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow

    def read(columns: list[str]) -> Iterator[Any]:
        with named(name), pq.ParquetFile(path) as file:  # a row group at a time
            yield from file.iter_batches(BATCH, columns=columns, use_threads=False)

    return Part(name, schema, read)


def _arrow(path: Path, name: str) -> Part:
    def read(columns: list[str]) -> Iterator[Any]:
        with named(name), pa.memory_map(str(path)) as mapped:
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
        with named(name):
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


class named:
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
