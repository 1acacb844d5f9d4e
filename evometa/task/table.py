"""A table is a family of few-shot tasks: one column names the task that a row belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evometa.errors import TaskError
from evometa.task.arrays import Splits, as_plain
from evometa.task.groups import KINDS, Groups, GroupTask


def Table(
    source: Any,
    *,
    task: str,
    target: str,
    inputs: Sequence[str] | None = None,
    kind: str | None = None,
    categorical: Sequence[str] = (),
    shots: int = 5,
    queries: int = 10,
    splits: Splits | str = (0.64, 0.16, 0.2),
    time: str | None = None,
    most: int = 1000,
    categories: int = 64,
    skip_small: bool = False,
    seed: int = 0,
) -> GroupTask:
    """Return few-shot tasks of the rows of a table: learn from some rows of a task, predict others.

    Columns become features by rules that are fitted on meta-train alone, told with the results, and
    applied to new rows by `task.encode(rows)`. Numbers, truth values and moments are standardised;
    a missing one becomes the mean, with a feature that says so. Texts have a feature for each
    category of meta-train and one for all others; beyond `categories`, their hashes choose from so
    many. Lists of numbers of one length are vectors, lists of texts have the features of all texts
    in them. Columns in which all rows of meta-train are alike are left out, with a warning.

    Args:
        source: a Parquet, CSV or Arrow (Feather) file, or a folder of such parts; or a table of
            pandas, Polars, DuckDB or PyArrow. Files are read in pieces, and of them the columns
            that are needed. `--data` takes the place of a path.
        task: the column that says which task a row belongs to.
        target: the column to be predicted.
        inputs: columns to predict it from; default all others.
        kind: `"values"`, regression; `"classes"`, labels that mean the same in all tasks; default
            by the type of the target: numbers are values, texts and truth values classes.
        categorical: columns of whole numbers that are names of something.
        shots: support rows of an episode.
        queries: query rows of an episode.
        splits: shares of the tasks in the three splits, which `seed` deals; or the tasks of each;
            or the column that says `train`, `validation` or `test` of each row.
        time: the column of moments or numbers that says when. Support rows then come before the
            queries, or at the same moment; and shares of tasks go by their first moments: those
            that begin first are for meta-training, those that begin last for the test.
        most: rows that are kept of each task, drawn evenly by `seed`.
        categories: most features for the texts of one column.
        skip_small: leave out tasks of fewer than `shots + queries` rows.
        seed: deals tasks and draws rows.

    Raises:
        TaskError: if an argument has no such value, a column is missing, or the target is among
            the inputs.
    """
    for name, names in (("inputs", inputs), ("categorical", categorical)):
        if isinstance(names, str):
            raise TaskError(f"`{name}` must be a list of columns, got the text {names!r}")
    for name, value in (("most", most), ("categories", categories)):
        if not isinstance(value, int) or value < 1:
            raise TaskError(f"`{name} >= 1` must hold, but got ({name}={value!r})")
    if kind not in (None, *KINDS):
        raise TaskError(f"`kind` must be 'values', 'classes' or None, got {kind!r}")
    if most < shots + queries:
        raise TaskError(
            f"`most` must be at least shots + queries = {shots + queries}, but got (most={most})"
        )
    columns = None if inputs is None else tuple(dict.fromkeys(inputs))
    found = TableSource(
        source, task, target, columns, kind or "", tuple(categorical), splits, time, most,
        categories, skip_small, seed,
    )  # fmt: skip
    found.check_roles()
    if kind is None:
        found = found.with_kind_by_type()
    return GroupTask(None, shots, queries, found.describe(), found.kind, found)


def encode(rules: Sequence[Mapping[str, Any]], rows: Any) -> npt.NDArray[np.float32]:
    """Return new rows of a table as networks take them, shape `(rows, features)`.

    Args:
        rules: of `task.describe()["rules"]`, which is kept with a run.
        rows: a list of dicts, a dict of lists, or a table of pandas, Polars, DuckDB or PyArrow.

    Raises:
        TaskError: if a column is missing, or not of the kind that its rule was fitted for.
    """
    from evometa.task.table_rules import encode_rows

    return encode_rows(rules, rows)


@dataclass(frozen=True, eq=False, repr=False)
class TableSource:
    """Where the groups of a `Table` come from; the arguments are described there."""

    source: Any
    task: str
    target: str
    inputs: tuple[str, ...] | None
    kind: str
    categorical: tuple[str, ...]
    splits: Splits | str
    time: str | None
    most: int
    categories: int
    skip_small: bool
    seed: int
    by_type: bool = False  # whether the target's type says the kind

    def check_roles(self) -> None:
        """Raise `TaskError` if a column has two roles that leak what is to be predicted."""
        roles = {"target": self.target, "task": self.task}
        if self.target == self.task:
            raise TaskError(f"`task` and `target` must be two columns, got {self.task!r} for both")
        if isinstance(self.splits, str):
            roles["split"] = self.splits
        for role, name in roles.items():
            if name in (self.inputs or ()):
                raise TaskError(
                    f"the {role} column {name!r} must not be among the inputs: it says what is to "
                    "be found out; if that is meant, add a copy of it under another name"
                )

    def with_kind_by_type(self) -> TableSource:
        """Return the same with the kind that the target's type says."""
        from evometa.task.table_groups import kind_of

        return replace(self, kind=kind_of(self), by_type=True)

    def read(self, data: Path | None, *, skip_broken: bool, least: int) -> Groups:
        """Read the table once, fit the rules, and encode the rows that are kept.

        Raises:
            TaskError: if it is missing or broken, or holds what cannot be learned from.
        """
        from evometa.task.table_groups import read_groups  # Arrow is not wanted before

        return read_groups(self, data, skip_broken=skip_broken, least=least)

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the table itself is known by its hash."""
        splits = self.splits if isinstance(self.splits, str) else as_plain(self.splits)
        inputs = None if self.inputs is None else [*self.inputs]
        own = {
            "name": "Table", "task": self.task, "target": self.target, "inputs": inputs,
            "kind": self.kind, "categorical": [*self.categorical], "splits": splits,
            "most": self.most, "categories": self.categories, "seed": self.seed,
        }  # fmt: skip
        return own if self.time is None else {**own, "time": self.time}
