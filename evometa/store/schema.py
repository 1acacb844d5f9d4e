"""The columns of a run's table, and how an evaluation becomes a row and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pyarrow as pa

from evometa.errors import StoreError
from evometa.plain import LONGEST_GENOME
from evometa.records import Candidate, Evaluation, Genome, Status, canonical_json, genome_hash

VERSION = 3

GeneValue: TypeAlias = Callable[[Genome, str], int | float | str | bool | None]


@dataclass(frozen=True)
class Column:
    """A column that every table has.

    Attributes:
        name: its name.
        type: Arrow's type.
        text: what it is, in a sentence.
        take: takes it from an evaluation; default the attribute of this name of the candidate, or
            of the evaluation.
        varies: whether it differs between two runs of the same search.
        since: the schema version that brought it.
        absent: what rows of older versions hold.
    """

    name: str
    type: pa.DataType
    text: str
    take: Callable[[Evaluation], Any] | None = None
    varies: bool = False
    since: int = 1
    absent: Any = None

    def of(self, evaluation: Evaluation) -> Any:
        """Return what an evaluation's row holds."""
        if self.take is not None:
            return self.take(evaluation)
        owner = evaluation.candidate if self.name in _CANDIDATE else evaluation
        value = getattr(owner, self.name)
        return clean(value) if isinstance(value, str) else value


_CANDIDATE = {field.name for field in fields(Candidate)}
_EVALUATION = {field.name for field in fields(Evaluation)}
_STRING, _INT, _REAL, _REALS = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.float64())
_WORD = pa.dictionary(pa.int32(), pa.string())
_CURVE = pa.list_(pa.struct([("iteration", _INT), ("loss", _REAL)]))

COLUMNS = (
    Column("candidate_id", _STRING, "`c000042`; unique within a run", lambda e: e.candidate.id),
    Column("number", _INT, "place in the logical order of the study, from 0"),
    Column("rung", pa.int32(), "fidelity level, from 0; a candidate counts with its highest"),
    Column(
        "repeat",
        pa.int32(),
        "0 for the candidate's own seed, 1, 2, ... for further ones at the full rung",
        since=3,
        absent=0,
    ),
    Column("told", _INT, "place in the order in which the searcher was told", lambda e: None),
    Column("status", _WORD, "`OK`, or how it failed: `INVALID DIVERGED OOM TIMEOUT ERROR LOST`"),
    Column("error", _STRING, "what went wrong; empty when `OK`"),
    Column(
        "violation",
        _REAL,
        "by how much the study's constraints are broken, as shares of their bounds; 0 if none is",
        since=3,
        absent=0.0,
    ),
    Column("parents", pa.list_(_STRING), "ids of the candidates it was made from"),
    Column(
        "operator",
        _WORD,
        "what made it: `baseline`, `earlier` for a design of an earlier run, `random`, `mutate`, "
        "...",
    ),
    Column("searcher", _WORD, "who proposed it"),
    Column(
        "name",
        _WORD,
        "a baseline's, or `RUN/ID` of a design from an earlier run; else empty",
        since=3,
        absent="",
    ),
    Column("genome", _STRING, "canonical JSON", lambda e: canonical_json(e.candidate.genome)),
    Column("genome_hash", _STRING, "its sha256", lambda e: genome_hash(e.candidate.genome)),
    Column("signature", _STRING, "hash of the program's structure; equal ones can share a pack"),
    Column("seed", _INT, "seeds everything random in the evaluation"),
    Column("network", _STRING, "the layers, as PyTorch prints them"),
    Column("norm", _WORD, "batch-norm protocol of the scores"),
    Column("plan", _WORD, "how the inner loops were executed"),
    Column(
        "note",
        _STRING,
        "what the gate changed so that the candidate could work",
        since=2,
        absent="",
    ),
    Column("copied_from", _STRING, "id of the equal candidate whose result was reused, or empty"),
    Column("saved_seconds", _REAL, "what that evaluation took", varies=True, since=2, absent=0.0),
    Column("seconds", _REAL, "wall time of the evaluation", varies=True),
    Column("peak_memory_bytes", _INT, "of the device (CUDA) or the process (CPU)", varies=True),
    Column("device", _WORD, "name of the device", varies=True),
    Column("node", _WORD, "host that ran it", varies=True),
    Column(
        "started_at",
        pa.timestamp("us", "UTC"),
        "when the evaluation began",
        lambda e: datetime.fromtimestamp(e.started_at, UTC),
        varies=True,
    ),
    Column(
        "scores",
        _REALS,
        "the task's first metric for each meta-validation episode, in episode order, the same "
        "episodes for all candidates",
    ),
    Column("steps", _REALS, "its means after 0, 1, ... inner steps", since=2, absent=[]),
    Column(
        "interval",
        _REAL,
        "half-width of that metric's 95 % interval over the episodes",
        since=3,
        absent=0.0,
    ),
    Column(
        "curve",
        _CURVE,
        "meta-train loss along the training",
        lambda e: [{"iteration": step, "loss": loss} for step, loss in e.curve],
    ),
)
"""All but those of genes, `gene.PATH`, and of metrics; README.md beside this lists them too."""

TIME_AND_PLACE = (*(column.name for column in COLUMNS if column.varies), "adapt_seconds")
"""Columns that differ between two runs of the same search; all others are equal."""

_CORE = {column.name: column for column in COLUMNS}
_ARROW = {int: _INT, float: _REAL, str: _STRING, bool: pa.bool_()}


def make_schema(genes: Mapping[str, type], metrics: Sequence[str]) -> pa.Schema:
    """Return the columns of a study's table.

    Args:
        genes: path of every gene that all genomes have, to `int`, `float`, `str` or `bool`; they
            become columns `gene.PATH`.
        metrics: names of the metrics; one column each.

    Raises:
        StoreError: if a metric has the name of another column.
    """
    for metric in metrics:
        if metric in _CORE or metric.startswith("gene."):
            raise StoreError(f"a metric must not be named like the column {metric!r}; rename it")
    columns = [pa.field(column.name, column.type) for column in COLUMNS]
    columns += [pa.field(f"gene.{path}", _ARROW[kind]) for path, kind in genes.items()]
    columns += [pa.field(metric, pa.float64()) for metric in metrics]
    return pa.schema(columns, metadata={"evometa.schema": str(VERSION)})


def to_row(
    evaluation: Evaluation, told: int, schema: pa.Schema, gene_value: GeneValue
) -> dict[str, Any]:
    """Return an evaluation as a row of `schema`."""
    row = {column.name: column.of(evaluation) for column in COLUMNS} | {"told": told}
    if len(row["genome"]) > LONGEST_GENOME:
        raise StoreError(
            f"a genome must have at most {LONGEST_GENOME:,} characters as JSON, but that of "
            f"{row['candidate_id']} has {len(row['genome']):,}; let `build` make large arrays from "
            "a seed"
        )
    for name in schema.names:
        if name.startswith("gene."):
            value = gene_value(evaluation.candidate.genome, name.removeprefix("gene."))
            row[name] = _typed(value, schema, name)
        elif name not in row:
            row[name] = evaluation.metrics.get(name)
    return row


def from_row(row: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that a row of this version was made from."""
    values = {
        **{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()},
        "genome": json.loads(row["genome"]),
        "status": Status(row["status"]),
        "curve": tuple((point["iteration"], point["loss"]) for point in row["curve"]),
        "started_at": row["started_at"].timestamp(),
    }
    candidate = Candidate(**{name: values[name] for name in _CANDIDATE})
    metrics = {
        name: value
        for name, value in row.items()
        if name not in _CORE and not name.startswith("gene.") and value is not None
    }
    own = {name: values[name] for name in _EVALUATION & _CORE.keys()}
    return Evaluation(candidate=candidate, metrics=metrics, **own)


def clean(text: str) -> str:
    """Return text that UTF-8 can hold: one odd character must not keep other rows off the disk."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _typed(value: Any, schema: pa.Schema, name: str) -> Any:
    """Fit a gene to its column: a choice of mixed values is kept as text, of numbers as floats."""
    kind = schema.field(name).type
    if value is None:
        return None
    if kind == pa.string():
        return clean(str(value))
    if kind == pa.int64() and not -(2**63) <= value < 2**63:
        return None  # the genome's JSON holds it
    return float(value) if kind == pa.float64() else value
