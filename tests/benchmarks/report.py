"""How long reading, summarising and reporting take on large tables.

    python -m tests.benchmarks.report --rows 1000000 --report-rows 100000

The tables are synthetic, in parts as the store writes them, with the columns of a real study.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import evometa
from evometa.report.convert import WRITERS, write
from evometa.report.page import render
from evometa.store import RunDirectory, make_schema

STUDY = {
    "schema": 3,
    "file": "/studies/synthetic.py",
    "file_sha256": "0" * 64,
    "space": {
        "struct": {
            "hidden": {"list": {"int": [8, 80], "step": 1}, "min": 2, "max": 2},
            "rule": {
                "struct": {
                    "rate": {"float": [0.001, 1.0], "log": True},
                    "steps": {"int": [1, 3], "step": 1},
                    "order": {"choice": [1, 2], "branches": {}},
                }
            },
        }
    },
    "task": {"name": "Sinusoid", "shots": 10},
    "objectives": {"query_loss": "min", "params": "min"},
    "metrics": ["query_loss", "params", "macs"],
    "baselines": {},
    "training": {"iterations": 300, "tasks": 25, "validation": 200, "norm": "transductive"},
    "settings": {"candidates": 0, "seed": 0, "searcher": "nsga2"},
    "versions": {"evometa": evometa.__version__},
}


def synthetic(rows: int, episodes: int, seed: int = 0) -> pa.Table:
    """Return a table of `rows` candidates, 3 % of them failed, with parents and genes."""
    rng = np.random.default_rng(seed)
    number = np.arange(rows)
    width, steps = rng.integers(8, 80, rows), rng.integers(1, 4, rows)
    rate, order = 10 ** rng.uniform(-3, 0, rows), rng.integers(1, 3, rows)
    loss = 0.3 + (np.log10(rate) + 1.3) ** 2 / 3 + 4 / width + rng.gamma(2, 0.05, rows)
    ok = rng.random(rows) > 0.03
    scores = np.abs(loss[:, None] + rng.normal(0, 0.3, (rows, episodes)))
    offsets = np.arange(rows + 1)
    ids = [f"c{n:06d}" for n in number]
    parent = (number * rng.random(rows)).astype(int)
    genomes = [
        json.dumps({"hidden": [int(w), 16], "rule": {"steps": int(s), "rate": float(r)}})
        for w, s, r in zip(width, steps, rate, strict=True)
    ]
    columns = {
        "candidate_id": ids,
        "number": number,
        "rung": np.zeros(rows, int),
        "repeat": np.zeros(rows, int),
        "told": number,
        "status": np.where(ok, "OK", rng.choice(["DIVERGED", "ERROR", "INVALID"], rows)),
        "error": np.where(ok, "", "Traceback\nValueError: <b>no</b>"),
        "parents": [[ids[p]] if n > 20 else [] for n, p in zip(number, parent, strict=True)],
        "violation": np.zeros(rows),
        "interval": np.zeros(rows),
        "name": np.where(number < 1, "MAML", ""),
        "operator": np.where(number < 1, "baseline", rng.choice(["mutate", "crossover"], rows)),
        "searcher": ["nsga2"] * rows,
        "genome": genomes,
        "genome_hash": ids,
        "signature": [""] * rows,
        "seed": number,
        "network": ["Linear(1, 40)"] * rows,
        "norm": ["transductive"] * rows,
        "plan": ["vmap"] * rows,
        "note": [""] * rows,
        "copied_from": [""] * rows,
        "saved_seconds": np.zeros(rows),
        "seconds": rng.lognormal(0, 0.4, rows),
        "peak_memory_bytes": number,
        "device": ["cpu"] * rows,
        "node": rng.choice(["alpha", "beta"], rows),
        "started_at": (1.7e15 + number * 5e5).astype("datetime64[us]"),
        "scores": pa.ListArray.from_arrays(
            pa.array(offsets * episodes, pa.int32()), pa.array(scores.ravel())
        ),
        "steps": [[2.0, 1.0]] * rows,
        "curve": [[{"iteration": 100, "loss": 2.0}, {"iteration": 300, "loss": 1.0}]] * rows,
        "gene.rule.rate": rate,
        "gene.rule.steps": steps,
        "gene.rule.order": order,
        "query_loss": pa.array(loss, mask=~ok),
        "params": pa.array(width * 17.0 + 32, mask=~ok),
        "macs": pa.array(width * steps * 100.0, mask=~ok),
    }
    genes = {"rule.rate": float, "rule.steps": int, "rule.order": int}
    schema = make_schema(genes, STUDY["metrics"])
    arrays = [pa.array(columns[name]).cast(schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_run(path: Path, rows: int, episodes: int) -> None:
    """Write a synthetic run."""
    with RunDirectory.create(path, STUDY, "study = None\n") as run:
        for part, start in enumerate(range(0, rows, 100_000)):
            table = synthetic(min(100_000, rows - start), episodes, part)
            if start:
                ids = [f"c{n:06d}" for n in range(start, start + len(table))]
                for name, values in (
                    ("candidate_id", ids), ("number", range(start, start + len(table))),
                    ("told", range(start, start + len(table))),
                ):  # fmt: skip
                    place = table.schema.get_field_index(name)
                    field = table.schema.field(name)
                    table = table.set_column(place, field, pa.array(values, field.type))
            pq.write_table(table, run.parts / f"part-{part:06d}.parquet", compression="zstd")


def summary(run: Path) -> pa.Table:
    """Return counts, the best, the mean and the time by operator and status."""
    names = ["operator", "status", "query_loss", "params", "seconds"]
    table = evometa.load(run, columns=names)
    assert len(pc.unique(table["status"])) > 1
    return table.group_by(["operator", "status"]).aggregate(
        [("seconds", "count"), ("query_loss", "min"), ("query_loss", "mean"), ("seconds", "sum")]
    )


def timed(what: str, call, *arguments):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    result = call(*arguments)
    print(f"{what}: {time.perf_counter() - started:.2f} s", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--report-rows", type=int, default=100_000)
    parser.add_argument("--episodes", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, wide = Path(folder) / "large", Path(folder) / "wide"
        write_run(large, arguments.rows, 10)
        for _ in range(3):
            timed(f"load and summarise {arguments.rows:,} rows", summary, large)
        write_run(wide, arguments.report_rows, arguments.episodes)
        table = timed(f"read {arguments.report_rows:,} rows, all columns", evometa.load, wide)
        text = timed(f"report {arguments.report_rows:,} rows", render, "wide", STUDY, table)
        print(f"the report has {len(text) / 2**20:.1f} MiB")
        for kind in WRITERS:
            file = Path(folder) / kind
            timed(f"convert to {kind}", write, kind, file, "wide", STUDY, table)


if __name__ == "__main__":
    main()
