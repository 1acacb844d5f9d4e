"""The groups of a table: its rows, sorted, split and encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.task.arrays import dealt
from evometa.task.folder import SPLIT_FOLDERS
from evometa.task.groups import Groups, refuse_small
from evometa.task.protocol import SPLITS
from evometa.task.reading import Reading, listed
from evometa.task.table import TableSource
from evometa.task.table_columns import is_number, is_text, labels_of, numbers_of
from evometa.task.table_files import Part, column_of, parts_of
from evometa.task.table_rows import Rows, Wanted, read_rows
from evometa.task.table_rules import Rule, apply_rules, fit_rules

FEW = 100  # labels at most
WIDE = 100.0  # a mean or spread of targets that networks do not begin near
Numbers = npt.NDArray[np.int64]
Splits = Mapping[str, Numbers]


def kind_of(source: TableSource) -> str:
    """Return `"classes"` where the target is of texts or truth values, else `"values"`."""
    first = _parts(source, None)[0]
    kind = column_of(first.schema, source.target, "the target", first.name)
    named = is_text(getattr(kind, "value_type", kind)) or str(kind) == "bool"
    return "classes" if named else "values"


def read_groups(source: TableSource, data: Path | None, *, skip_broken: bool, least: int) -> Groups:
    """Read a table once, fit the rules, and encode the rows that are kept.

    Args:
        source: what to read.
        data: a path in the place of the source's.
        skip_broken: whether to leave out rows that cannot be used, and tasks that are too small.
        least: rows that a task must have.

    Raises:
        TaskError: if the table is missing or broken, or holds what cannot be learned from.
    """
    parts = _parts(source, data)
    inputs = _inputs(source, parts[0])
    split = source.splits if isinstance(source.splits, str) else None
    rows = read_rows(
        parts,
        Wanted(
            source.task, source.target, inputs, split, source.time, source.most, source.seed,
            skip_broken,
        ),
    )  # fmt: skip
    if not rows.names:
        raise TaskError(f"{_place(parts)} holds no rows")
    small = {n: int(c) for n, c in zip(rows.names, rows.counts, strict=True) if c < least}
    skip = skip_broken or source.skip_small
    refuse_small({} if skip else small, least, " or skip_small=True")
    own = _sorted(source, rows, least)
    if not len(own.splits["meta-train"]):
        raise TaskError(f"meta-train needs at least one task of {least} rows, but has none")
    table = rows.table.take(own.order)
    train = np.isin(own.owners, own.splits["meta-train"])
    rules, warnings = fit_rules(table.filter(train), inputs, source.categorical, source.categories)
    target = table.column(source.target).combine_chunks()
    find = _labels if source.kind == "classes" else _values
    targets, labels, said = find(target, source.target, train)
    found = "values" if labels is None else f"classes {listed([*map(str, labels)], 10)}"
    reading = Reading(
        _place(parts),
        len(own.names),
        len(targets),
        changes=_left_out(rows, source.most),
        ignored=_ignored(rows, own, small),
        warnings=[*warnings, *said],
        what="rows",
        owners="tasks",
        details=[
            ("splits", ", ".join(f"{k} {len(each)} tasks" for k, each in own.splits.items())),
            ("target", f"{source.target}: {found}{', by its type' if source.by_type else ''}"),
            ("inputs", f"{sum(rule.width for rule in rules)} features"),
            *[(f"  {rule.column}", told(rule)) for rule in rules],
        ],
    )
    reading.log()
    return Groups(
        apply_rules(rules, table), targets, own.starts, own.names, own.splits, labels,
        source.time is not None, tuple(rule.plain() for rule in rules), reading,
    )  # fmt: skip


def told(rule: Rule) -> str:
    """Return a rule in words."""
    rest = ", one for missing ones" if rule.missing else ""
    if rule.kind in ("number", "vector"):
        size = f" of {rule.size}" if rule.kind == "vector" else ""
        return f"{rule.kind}{size}, less {rule.mean:.4g}, over {rule.spread:.4g}{rest}"
    if rule.kind == "hashed":
        return f"hashed to {rule.size} features"
    return f"{len(rule.values)} categories, one for others: {listed(rule.values)}"


def _parts(source: TableSource, data: Path | None) -> list[Part]:
    if data is not None and not isinstance(source.source, str | Path):
        raise TaskError(f"the table is in memory, but got --data {data}; leave it out")
    texts = [source.task, *source.categorical]
    texts += [source.splits] if isinstance(source.splits, str) else []
    return parts_of(source.source if data is None else data, texts)


def _inputs(source: TableSource, part: Part) -> tuple[str, ...]:
    """Return the columns of inputs, once all columns are known to be there."""
    roles = {"the task": source.task, "the target": source.target}
    if isinstance(source.splits, str):
        roles["the split"] = source.splits
    if source.time is not None:
        roles["the time"] = source.time
    for role, name in roles.items():
        found = column_of(part.schema, name, role, part.name)
        if role == "the time" and not is_number(found):
            raise TaskError(f"the time column {name!r} must hold moments or numbers, got {found}")
    for name in (*(source.inputs or ()), *source.categorical):
        column_of(part.schema, name, "the inputs", part.name)
    if source.inputs is not None:
        return source.inputs
    taken = {*roles.values()}  # and what pandas makes of an index
    names = [n for n in part.schema.names if not n.startswith("__index_level_")]
    return tuple(name for name in names if name not in taken)


@dataclass(frozen=True)
class _Sorted:
    """Rows by task.

    Attributes:
        order: of the rows that are kept, those that are used.
        owners: the task of each of these.
        starts: as in `Groups`.
        names: of the tasks.
        splits: split name to task numbers.
    """

    order: Numbers
    owners: Numbers
    starts: Numbers
    names: tuple[str, ...]
    splits: Splits


def _sorted(source: TableSource, rows: Rows, least: int) -> _Sorted:
    """Sort the rows of tasks that are large enough by task and time."""
    enough = np.flatnonzero(rows.counts >= least)
    enough = enough[np.argsort([rows.names[each] for each in enough], kind="stable")]
    place = np.full(len(rows.names), -1)
    place[enough] = np.arange(len(enough))
    owners, when = place[rows.owners], np.zeros(len(rows.owners))
    if source.time is not None:
        when = numbers_of(rows.table.column(source.time).combine_chunks())
    order = np.lexsort((when, owners))
    order = order[owners[order] >= 0]
    owners = owners[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(enough)))])
    names = tuple(rows.names[each] for each in enough)
    return _Sorted(order, owners, starts, names, _splits(source, rows, enough, names))


def _splits(source: TableSource, rows: Rows, enough: Numbers, names: tuple[str, ...]) -> Splits:
    """Return which tasks belong to which split."""
    if isinstance(source.splits, str):
        split_of = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}
        said = [rows.splits[each] for each in enough]
        odd = sorted({each for each in said if each.lower() not in split_of})
        if odd:
            raise TaskError(
                f"the split column {source.splits!r} must say train, validation or test, but says "
                f"{listed([*map(repr, odd)])}"
            )
        own = np.array([split_of[each.lower()] for each in said])
        return {split: np.flatnonzero(own == split) for split in SPLITS}
    if isinstance(source.splits, Mapping):
        small = {*rows.names} - {*names}
        chosen = {
            split: [str(each) for each in own if str(each) not in small]
            for split, own in source.splits.items()
        }
        return dealt(chosen, np.array(names), source.seed)
    found = dealt(source.splits, np.array(names), source.seed)
    if source.time is None:
        return found
    shuffled = np.concatenate([found[split] for split in SPLITS])
    by_time = shuffled[np.argsort(rows.begins[enough][shuffled], kind="stable")]
    ends = np.cumsum([len(found[split]) for split in SPLITS])[:2]
    return {s: np.sort(own) for s, own in zip(SPLITS, np.split(by_time, ends), strict=True)}


def _labels(column: Any, name: str, train: Any) -> tuple[Any, tuple[Any, ...] | None, list[str]]:
    """Return the numbers of labels, the labels, and what looks wrong."""
    labels, found = labels_of(column, name, FEW)
    new = sorted({*range(len(labels))} - {*found[train].tolist()})
    names = listed([str(labels[number]) for number in new])
    return found, labels, [f"labels that meta-train does not have: {names}"] if new else []


def _values(column: Any, name: str, train: Any) -> tuple[Any, tuple[Any, ...] | None, list[str]]:
    """Return values, no labels, and what looks wrong."""
    if not is_number(column.type):
        raise TaskError(
            f"the target {name!r} must hold numbers to be values, got {column.type}; say "
            "kind='classes' if these are labels"
        )
    exact = numbers_of(column)
    with np.errstate(over="ignore"):
        values = exact.astype(np.float32).reshape(-1, 1)
    if not np.isfinite(values).all():
        raise TaskError(f"the target {name!r} must be within float32, but is not")
    mean, spread = float(exact[train].mean()), float(exact[train].std())
    if not spread > 0:
        raise TaskError(f"the target {name!r} is {mean:g} in all rows of meta-train")
    said = []
    if max(abs(mean), spread) > WIDE:
        said.append(
            f"the target {name!r} has mean {mean:.3g} and spread {spread:.3g}; networks begin near "
            "0 and 1: scale it first, and scale predictions back"
        )
    return values, None, said


def _ignored(rows: Rows, own: _Sorted, small: Mapping[str, int]) -> dict[str, Sequence[str]]:
    placed = {int(each) for numbers in own.splits.values() for each in numbers}
    found = {
        "tasks of too few rows": [f"{name} ({count})" for name, count in small.items()],
        "tasks of no split": [n for each, n in enumerate(own.names) if each not in placed],
    }
    return {why: entries for why, entries in found.items() if entries}


def _left_out(rows: Rows, most: int) -> dict[str, int]:
    found = {f"{what} left out, as {bad.first}": bad.count for what, bad in rows.bad.items()}
    beyond = int(np.maximum(rows.counts - most, 0).sum())
    return found | ({f"rows left out, beyond {most} of a task": beyond} if beyond else {})


def _place(parts: Sequence[Part]) -> str:
    more = f" and {len(parts) - 1} more parts" if len(parts) > 1 else ""
    return f"{parts[0].name}{more}"
