"""How the columns of a table become numbers: rules fitted on some rows, kept as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import TaskError
from evometa.task.reading import listed
from evometa.task.table_columns import is_list, is_number, is_text, numbers_of, plain, texts_of

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """How one column becomes features.

    Attributes:
        column: its name.
        kind: `"number"`, standardised; `"vector"`, lists of numbers of one length, standardised as
            a whole; `"category"`, one feature for each of `values` and one for all others, of a
            text or of each in a list; `"hashed"`, `size` features of which the hash of a text
            chooses one.
        mean: of the numbers that it was fitted on; stands for those that are missing.
        spread: their standard deviation.
        missing: whether a last feature says which numbers are missing.
        values: the categories.
        size: features of a vector, without the last; or those that hashes choose from.
    """

    column: str
    kind: str
    mean: float = 0.0
    spread: float = 1.0
    missing: bool = False
    values: tuple[str, ...] = ()
    size: int = 1

    @property
    def width(self) -> int:
        """How many features there are."""
        if self.kind == "category":
            return len(self.values) + 1
        return self.size + self.missing

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, without what its kind does not need."""
        numbers = ("mean", "spread", "missing")
        needs = {"number": numbers, "vector": (*numbers, "size"), "category": ("values",)}
        own = asdict(self) | {"values": [*self.values]}
        return {n: own[n] for n in ("column", "kind", *needs.get(self.kind, ("size",)))}

    def apply(self, column: Any) -> npt.NDArray[np.float32]:
        """Return the features of a column, shape `(rows, width)`.

        Raises:
            TaskError: if it is of another type, or holds infinity.
        """
        try:
            if self.kind in ("number", "vector"):
                return self._numbers(column)
            return self._categories(column)
        except pa.ArrowException as error:
            raise TaskError(
                f"column {self.column!r} must be one of kind {self.kind!r}, got {column.type}: "
                f"{error}"
            ) from error

    def _numbers(self, column: Any) -> npt.NDArray[np.float32]:
        values = (
            numbers_of(column).reshape(-1, 1) if self.kind == "number"
            else vectors_of(column, self.column, self.size)
        )  # fmt: skip
        lost = np.isnan(values)
        with np.errstate(over="ignore"):
            scaled = (np.where(lost, self.mean, values) - self.mean) / self.spread
            found = scaled.astype(np.float32)
        odd = np.flatnonzero(~np.isfinite(found).all(1))
        if len(odd):
            raise TaskError(
                f"column {self.column!r} must hold finite numbers within float32, but {len(odd)} "
                f"rows do not, the first with {values[odd[0]][~np.isfinite(found[odd[0]])][0]:g}"
            )
        if self.missing:
            found = np.concatenate([found, lost.any(1, keepdims=True)], 1, dtype=np.float32)
        return found

    def _categories(self, column: Any) -> npt.NDArray[np.float32]:
        found = np.zeros((len(column), self.width), np.float32)
        rows, texts = entries_of(column)
        if self.kind == "category":
            places = pc.index_in(texts, pa.array(self.values, texts.type))
            which = pc.fill_null(places, len(self.values)).to_numpy(zero_copy_only=False)
        else:
            coded = texts.dictionary_encode()
            hashes = [_hashed(each, self.size) for each in coded.dictionary.to_pylist()]
            which = np.array(hashes, np.int64)[coded.indices.to_numpy(zero_copy_only=False)]
        found[rows, which] = 1
        return found


def _hashed(text: str, size: int) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % size


def entries_of(column: Any) -> tuple[npt.NDArray[np.int64], Any]:
    """Return the rows that hold a text, once for each that they hold, and the texts."""
    if not is_list(column.type):
        valid = pc.is_valid(column).to_numpy(zero_copy_only=False)
        return np.flatnonzero(valid), texts_of(column.drop_null())
    rows, texts = pc.list_parent_indices(column), pc.list_flatten(column)
    there = pc.is_valid(texts)
    rows = np.asarray(rows.filter(there).to_numpy(zero_copy_only=False), np.int64)
    return rows, texts_of(texts.filter(there))


def vectors_of(column: Any, name: str, size: int | None = None) -> Floats:
    """Return lists of numbers as rows, NaN for what is missing.

    Raises:
        TaskError: if they are not of one length.
    """
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    there = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False), bool)
    known = sorted({*np.asarray(lengths[there], np.int64).tolist(), *[size] * (size is not None)})
    if len(known) > 1:
        raise TaskError(
            f"column {name!r} must hold lists of one length{f', {size},' if size else ''} to be "
            f"vectors, but some have {listed([*map(str, known)])} numbers; name it in "
            "`categorical` if they are categories"
        )
    found = np.full((len(column), known[0] if known else 0), np.nan)
    found[there] = numbers_of(pc.list_flatten(column)).reshape(int(there.sum()), -1)
    return found


def fit_rules(
    table: Any, columns: Sequence[str], categorical: Sequence[str], most: int
) -> tuple[list[Rule], list[str]]:
    """Return the rules of columns, and what looks wrong.

    Args:
        table: the rows of meta-train.
        columns: to be encoded.
        categorical: those of numbers that are names of something.
        most: categories of a column that have a feature each.

    Raises:
        TaskError: if a column cannot be encoded.
    """
    rules, warnings = [], []
    for name in columns:
        column = table.column(name).combine_chunks()
        kind = column.type
        inner = kind.value_type if is_list(kind) else kind
        if pa.types.is_null(kind):
            rule = None
        elif is_text(inner) or name in categorical:
            rule, said = _fit_texts(name, column, most)
            warnings += said
        elif is_number(inner):
            rule = _fit_numbers(name, column)
        else:
            raise TaskError(
                f"column {name!r} of type {kind} cannot be encoded: inputs are numbers, truth "
                "values, moments, texts, or lists of numbers or texts; leave it out of `inputs`"
            )
        if rule is None:
            warnings.append(f"column {name!r} is left out: all rows of meta-train are alike in it")
        else:
            rules.append(rule)
    if not rules:
        raise TaskError("no input is left: all columns are constant in meta-train")
    return rules, warnings


def _fit_numbers(name: str, column: Any) -> Rule | None:
    lists = is_list(column.type)
    values = vectors_of(column, name) if lists else numbers_of(column).reshape(-1, 1)
    lost = np.isnan(values)
    known = values[~lost]
    if not len(known):
        return None
    if not np.isfinite(known).all():
        raise TaskError(
            f"column {name!r} must hold finite numbers, but {int((~np.isfinite(known)).sum())} in "
            "meta-train are infinite; mend them, or make them missing"
        )
    mean, missing = float(known.mean()), bool(lost.any())
    spread = float(known.std())
    alike = (values == values[:1]).all() if lists else float(known.min()) == float(known.max())
    if alike and not missing:
        return None
    spread = 1.0 if alike or not spread > 0 else spread
    kind = "vector" if lists else "number"
    return Rule(name, kind, mean, spread, missing, size=values.shape[1])


def _fit_texts(name: str, column: Any, most: int) -> tuple[Rule | None, list[str]]:
    rows, texts = entries_of(column)
    counted = pc.value_counts(texts)
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
    everywhere = len(column) > 0 and bool((counts == len(column)).all())
    if len(values) == 0 or (everywhere and len(rows) == len(column) * len(values)):
        return None, []
    if len(values) <= most:
        return Rule(name, "category", values=tuple(sorted(values))), []
    said = [
        f"column {name!r} has {len(values)} categories in meta-train, more than {most}: they are "
        f"hashed to {most} features, which different ones share; raise `categories`, or leave it "
        "out"
    ]
    if not is_list(column.type) and 2 * len(values) > len(column):
        said[-1] += " (most rows have one of their own: is it an identifier, or a free text?)"
    return Rule(name, "hashed", size=most), said


def apply_rules(rules: Sequence[Rule], table: Any) -> npt.NDArray[np.float32]:
    """Return the features of all rows, shape `(rows, features)`.

    Raises:
        TaskError: if a column is missing, or not of the kind that the rule was fitted for.
    """
    missing = [rule.column for rule in rules if rule.column not in table.column_names]
    if missing:
        raise TaskError(
            f"rows must have the columns {', '.join(rule.column for rule in rules)}, but "
            f"{listed([*map(repr, missing)])} is not there"
        )
    found = np.empty((len(table), sum(rule.width for rule in rules)), np.float32)
    start = 0
    for rule in rules:
        column = plain(table.column(rule.column)).combine_chunks()
        found[:, start : start + rule.width] = rule.apply(column)
        start += rule.width
    return found


def encode_rows(rules: Sequence[Mapping[str, Any]], rows: Any) -> npt.NDArray[np.float32]:
    """Return new rows as features; see `evometa.task.encode`."""
    if isinstance(rows, Mapping):
        rows = pa.table(dict(rows))
    elif isinstance(rows, list | tuple):
        rows = pa.Table.from_pylist([*rows])
    try:
        table = pa.table(rows)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise TaskError(
            "rows must be a list of dicts, a dict of lists, or a table that Arrow can read, got a "
            f"{type(rows).__name__}: {error}"
        ) from error
    named = [{**rule, "values": tuple(rule.get("values", ()))} for rule in rules]
    return apply_rules([Rule(**rule) for rule in named], table)
