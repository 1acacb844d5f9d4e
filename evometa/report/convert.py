"""A run's table for other tools: Optuna's dashboard, TensorBoard, CSV, JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from pyarrow import csv
from tensorboardX import FileWriter, SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from evometa.errors import EvometaError
from evometa.files import is_stream, private_folder
from evometa.metrics import scored_metric
from evometa.records import Objectives, Status
from evometa.report.optuna_study import study_of
from evometa.report.ranking import rank
from evometa.report.standing import outcomes

BATCH = 1024
CURVES = 10  # of the best candidates


def write(kind: str, file: Path, name: str, study: Mapping[str, Any], table: pa.Table) -> None:
    """Write a run for another tool.

    Args:
        kind: `"optuna"`, a journal file; `"tensorboard"`, a folder; `"csv"` or `"json"`.
        file: where; must not exist, but that CSV and JSON may go into a device or pipe.
        name: of the run.
        study: study.json.
        table: the run's table.

    Raises:
        EvometaError: if there is no such kind, or something is at `file` already.
    """
    if kind not in WRITERS:
        raise EvometaError(f"`--to` must be one of {', '.join(WRITERS)}, got {kind!r}")
    stream = kind in ("csv", "json") and is_stream(file)
    if not stream and (file.exists() or file.is_symlink()):
        raise EvometaError(f"{file} must not exist, but it does; remove it or name another")
    try:
        if stream:
            WRITERS[kind](file, name, study, table)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with private_folder(file) as folder:
            WRITERS[kind](folder / "made", name, study, table)
            (folder / "made").replace(file)
    except BrokenPipeError:
        return  # who reads it has seen enough
    except OSError as error:
        raise EvometaError(f"{file} cannot be written: {error}") from error


def to_optuna(file: Path, name: str, study: Mapping[str, Any], table: pa.Table) -> None:
    """Write a journal file with one study, as `optuna-dashboard FILE` opens it."""
    logs = _Logs()
    rows = outcomes(_filled(table, study))
    study_of(name, rows, study["objectives"], storage=JournalStorage(logs))
    JournalFileBackend(str(file)).append_logs(logs.kept)


def to_tensorboard(file: Path, name: str, study: Mapping[str, Any], table: pa.Table) -> None:
    """Write a folder of event files: objectives by candidate, and the curves of the best.

    The step of `objective/...`, `best/...` and `seconds` is the candidate's number, that of the
    curves the meta-iteration.
    """
    objectives: Objectives = study["objectives"]
    ok = outcomes(_filled(table, study))
    ok = ok.filter(pc.equal(pc.cast(ok["status"], pa.string()), Status.OK.value))
    steps = ok["number"].to_pylist()
    times = (pc.cast(ok["started_at"], pa.int64()).to_numpy() / 1e6).tolist()
    series = {"seconds": ok["seconds"].to_pylist()}
    for objective, direction in objectives.items():
        values = ok[objective].to_numpy()
        best = np.minimum if direction == "min" else np.maximum
        series[f"objective/{objective}"] = values.tolist()
        series[f"best/{objective}"] = best.accumulate(values).tolist()
    with contextlib.closing(FileWriter(str(file), max_queue=BATCH, flush_secs=3600)) as writer:
        # one event for all values of a candidate: an event costs more than what is in it
        for step, moment, *point in zip(steps, times, *series.values(), strict=True):
            named = zip(series, point, strict=True)
            parts = [Summary.Value(tag=tag, simple_value=value) for tag, value in named]
            writer.add_summary(Summary(value=parts), step, moment)
    for row in rank(ok, objectives, scored=scored_metric(study), n=CURVES):
        mine = ok.filter(pc.equal(ok["candidate_id"], row.id)).select(["number", "curve"])
        number, points = mine.to_pylist()[0].values()
        # named by its number: an id is text of the run, and might be a path
        with SummaryWriter(str(file / f"c{number:06d}")) as writer:
            for point in points or []:
                writer.add_scalar("meta_train_loss", point["loss"], point["iteration"])


def to_csv(file: Path, name: str, study: Mapping[str, Any], table: pa.Table) -> None:
    """Write a CSV file; lists are JSON within their cells."""
    with csv.CSVWriter(str(file), _plain(table.slice(0, 0)).schema) as writer:
        for start in range(0, len(table), BATCH):
            writer.write_table(_plain(table.slice(start, BATCH)))


def to_json(file: Path, name: str, study: Mapping[str, Any], table: pa.Table) -> None:
    """Write one JSON document: what was searched, and a record for each row."""
    with file.open("w", encoding="utf-8") as out:
        out.write(f'{{"run":{json.dumps(name)},"study":{json.dumps(study)},"evaluations":[')
        separator = "\n"
        for batch in table.to_batches(BATCH):
            for row in batch.to_pylist():
                row["genome"] = json.loads(row["genome"])
                out.write(separator + json.dumps(_finite(row), default=_text, allow_nan=False))
                separator = ",\n"
        out.write("\n]}\n")


class _Logs(BaseJournalBackend):
    """Keeps a journal in memory: Optuna's file would sync to disk after each trial."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self.kept[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.kept += logs


def _filled(table: pa.Table, study: Mapping[str, Any]) -> pa.Table:
    """Return the table with the columns that one without rows lacks."""
    for name in study["objectives"]:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    return table


def _plain(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [json.dumps(_finite(value)) for value in table[field.name].to_pylist()]
            table = table.set_column(place, field.name, pa.array(texts, pa.string()))
        elif pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
    return table


def _finite(value: Any) -> Any:
    """Return plain data with null for what JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return str(value.isoformat())


WRITERS: dict[str, Callable[[Path, str, Mapping[str, Any], pa.Table], None]] = {
    "optuna": to_optuna,
    "tensorboard": to_tensorboard,
    "csv": to_csv,
    "json": to_json,
}
