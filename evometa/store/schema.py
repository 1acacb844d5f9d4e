"""The columns of a run's table, and how an evaluation becomes a row and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import pyarrow as pa

from evometa.errors import StoreError
from evometa.records import Candidate, Evaluation, Genome, Status, canonical_json, genome_hash

VERSION = 2

TIME_AND_PLACE = (
    "seconds",
    "saved_seconds",
    "adapt_seconds",
    "peak_memory_bytes",
    "device",
    "node",
    "started_at",
)
"""Columns that differ between two runs of the same search; all others are equal."""

GeneValue: TypeAlias = Callable[[Genome, str], int | float | str | bool | None]

_WORD = pa.dictionary(pa.int32(), pa.string())
_CORE = [
    ("candidate_id", pa.string()),
    ("number", pa.int64()),
    ("rung", pa.int32()),
    ("told", pa.int64()),
    ("status", _WORD),
    ("error", pa.string()),
    ("parents", pa.list_(pa.string())),
    ("operator", _WORD),
    ("searcher", _WORD),
    ("genome", pa.string()),
    ("genome_hash", pa.string()),
    ("signature", pa.string()),
    ("seed", pa.int64()),
    ("network", pa.string()),
    ("norm", _WORD),
    ("plan", _WORD),
    ("note", pa.string()),
    ("copied_from", pa.string()),
    ("saved_seconds", pa.float64()),
    ("seconds", pa.float64()),
    ("peak_memory_bytes", pa.int64()),
    ("device", _WORD),
    ("node", _WORD),
    ("started_at", pa.timestamp("us", "UTC")),
    ("scores", pa.list_(pa.float64())),
    ("steps", pa.list_(pa.float64())),
    ("curve", pa.list_(pa.struct([("iteration", pa.int64()), ("loss", pa.float64())]))),
]
_ADDED_LATER: dict[str, Any] = {"note": "", "saved_seconds": 0.0, "steps": []}
"""Columns that runs of an older version may lack, and what their rows would hold."""

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


def make_schema(genes: Mapping[str, type], metrics: Sequence[str]) -> pa.Schema:
    """Return the columns of a study's table.

    Args:
        genes: path of every gene that all genomes have, to `int`, `float`, `str` or `bool`; they
            become columns `gene.PATH`.
        metrics: names of the metrics; one column each.

    Raises:
        StoreError: if a metric has the name of another column.
    """
    core = {name for name, _ in _CORE}
    for metric in metrics:
        if metric in core or metric.startswith("gene."):
            raise StoreError(f"a metric must not be named like the column {metric!r}; rename it")
    fields = [pa.field(name, kind) for name, kind in _CORE]
    fields += [pa.field(f"gene.{path}", _ARROW[kind]) for path, kind in genes.items()]
    fields += [pa.field(metric, pa.float64()) for metric in metrics]
    return pa.schema(fields, metadata={"evometa.schema": str(VERSION)})


def upgrade(table: pa.Table, place: object) -> pa.Table:
    """Return a part of any version with the core columns of this one; the others stay as they are.

    Args:
        table: as it was read.
        place: its file, for the message.

    Raises:
        StoreError: if a newer version of evometa wrote it.
    """
    wrote = int((table.schema.metadata or {}).get(b"evometa.schema", b"1"))
    if wrote > VERSION:
        raise StoreError(
            f"{place} has schema version {wrote}, this evometa reads versions up to {VERSION}; "
            "install the evometa that wrote it, or a newer one"
        )
    for name, kind in _CORE:
        if name in _ADDED_LATER and name not in table.column_names:
            column = pa.repeat(pa.scalar(_ADDED_LATER[name], kind), len(table))
            table = table.append_column(pa.field(name, kind), column)
    return table


def to_row(
    evaluation: Evaluation, told: int, schema: pa.Schema, gene_value: GeneValue
) -> dict[str, Any]:
    """Return an evaluation as a row of `schema`."""
    candidate = evaluation.candidate
    row: dict[str, Any] = {
        "candidate_id": candidate.id,
        "number": candidate.number,
        "rung": candidate.rung,
        "told": told,
        "status": evaluation.status.value,
        "error": clean(evaluation.error),
        "parents": list(candidate.parents),
        "operator": candidate.operator,
        "searcher": candidate.searcher,
        "genome": canonical_json(candidate.genome),
        "genome_hash": genome_hash(candidate.genome),
        "signature": evaluation.signature,
        "seed": candidate.seed,
        "network": clean(evaluation.network),
        "norm": evaluation.norm,
        "plan": evaluation.plan,
        "note": clean(evaluation.note),
        "copied_from": evaluation.copied_from,
        "saved_seconds": evaluation.saved_seconds,
        "seconds": evaluation.seconds,
        "peak_memory_bytes": evaluation.peak_memory_bytes,
        "device": evaluation.device,
        "node": evaluation.node,
        "started_at": datetime.fromtimestamp(evaluation.started_at, UTC),
        "scores": list(evaluation.scores),
        "steps": list(evaluation.steps),
        "curve": [{"iteration": step, "loss": loss} for step, loss in evaluation.curve],
    }
    for name in schema.names:
        if name.startswith("gene."):
            row[name] = _typed(
                gene_value(candidate.genome, name.removeprefix("gene.")), schema, name
            )
        elif name not in row:
            row[name] = evaluation.metrics.get(name)
    return row


def from_row(row: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that a row was made from."""
    core = {name for name, _ in _CORE}
    candidate = Candidate(
        number=row["number"],
        genome=json.loads(row["genome"]),
        seed=row["seed"],
        rung=row["rung"],
        parents=tuple(row["parents"]),
        operator=row["operator"],
        searcher=row["searcher"],
    )
    metrics = {
        name: value
        for name, value in row.items()
        if name not in core and not name.startswith("gene.") and value is not None
    }
    return Evaluation(
        candidate=candidate,
        status=Status(row["status"]),
        metrics=metrics,
        scores=tuple(row["scores"]),
        steps=tuple(row.get("steps") or ()),
        curve=tuple((point["iteration"], point["loss"]) for point in row["curve"]),
        error=row["error"],
        signature=row["signature"],
        network=row["network"],
        norm=row["norm"],
        plan=row["plan"],
        note=row.get("note") or "",
        seconds=row["seconds"],
        peak_memory_bytes=row["peak_memory_bytes"],
        device=row["device"],
        node=row["node"],
        started_at=row["started_at"].timestamp(),
        copied_from=row["copied_from"],
        saved_seconds=row["saved_seconds"],
    )


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
