"""Columns of Arrow tables as numbers, texts and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import TaskError
from evometa.task.reading import listed


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


def present(column: Any) -> npt.NDArray[np.bool_]:
    """Return which entries are there: neither null, nor a number that is not finite."""
    here = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        here = pc.and_(here, pc.fill_null(pc.is_finite(column), False))
    return np.asarray(here.to_numpy(zero_copy_only=False), bool)


def infinite(column: Any) -> npt.NDArray[np.bool_]:
    """Return which entries are infinite."""
    if not pa.types.is_floating(column.type):
        return np.zeros(len(column), bool)
    found = pc.fill_null(pc.is_inf(column), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


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


def labels_of(column: Any, name: str, most: int) -> tuple[tuple[Any, ...], npt.NDArray[np.int64]]:
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
    place: npt.NDArray[np.int64] = np.array([labels.index(each) for each in found], np.int64)
    numbers: npt.NDArray[np.int64] = place[coded.indices.to_numpy(zero_copy_only=False)]
    return labels, numbers
