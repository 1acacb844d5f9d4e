"""Runs to report: synthetic tables, changed where a test needs it."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from evometa.store import RunDirectory
from tests.benchmarks.report import STUDY, synthetic

HOSTILE = (
    "</script><script>console.error('run')</script><img src='http://hostile.invalid/x' "
    "onerror=\"console.error('run')\"> %{x} [bold]\u2028 \"'&lt;"
)


@dataclass
class Run:
    """What a report is made from."""

    study: dict
    table: pa.Table
    name: str = "run"


def changed(table, **columns):
    """Return a table with some columns replaced by lists."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(place, field, pa.array(values, pa.string()).cast(field.type)
                                 if pa.types.is_dictionary(field.type)
                                 else pa.array(values, field.type))  # fmt: skip
    return table


def ordinary(rows=60, objectives=2, **study):
    names = {"query_loss": "min", "params": "min", "macs": "min"}
    chosen = dict(list(names.items())[:objectives])
    table = synthetic(rows, 12)
    ok = ["OK", *table["status"].to_pylist()[1:]]  # the baseline
    table = changed(table, status=ok, query_loss=_known(table, "query_loss"),
                    params=_known(table, "params"), macs=_known(table, "macs"))  # fmt: skip
    return Run({**STUDY, "objectives": chosen, **study}, table)


def _known(table, name):
    values = table[name].to_pylist()
    return [values[0] if values[0] is not None else 1.0, *values[1:]]


def failures(rows=9):
    run = ordinary(rows)
    nothing = [None] * rows
    run.table = changed(
        run.table,
        status=["ERROR", "DIVERGED", "OOM"] * (rows // 3),
        error=["Traceback\nValueError: <b>no</b>"] * rows,
        query_loss=nothing,
        params=nothing,
        macs=nothing,
        scores=[[]] * rows,
        steps=[[]] * rows,
        curve=[[]] * rows,
    )
    return run


def rungs(rows=60):
    """Return a run where every other candidate went on to a second rung, and scored better."""
    run = ordinary(rows)
    again = run.table.filter(pa.array([n % 2 == 0 for n in range(rows)]))
    losses = [None if v is None else v / 2 for v in again["query_loss"].to_pylist()]
    longer = [scores * 2 for scores in again["scores"].to_pylist()]  # on more episodes
    again = changed(
        again,
        rung=[1] * len(again),
        told=[rows + n for n in range(len(again))],
        query_loss=losses,
        scores=longer,
    )
    run.table = pa.concat_tables([run.table, again])
    return run


def hostile(rows=40):
    """Return a run whose every text wants to be run."""
    run = ordinary(rows)
    genome = '{"hidden":[1,2],"rule":{"update":["mul","rate","gradient"]},"%s":"%s"}'
    text = HOSTILE.replace("\\", "\\\\").replace('"', '\\"')
    ids = [f"{HOSTILE}{n}" for n in range(rows)]
    run.table = changed(
        run.table,
        candidate_id=ids,
        parents=[[ids[n // 2]] if n > 20 else [] for n in range(rows)],
        genome=[genome % (text, f"{text}{n % 3}") for n in range(rows)],
        error=[HOSTILE] * rows,
        operator=["baseline", *[HOSTILE] * (rows - 1)],
        name=[HOSTILE] * rows,
        node=[HOSTILE] * rows,
        status=["OK", *[["OK", "OK", "OK", HOSTILE][n % 4] for n in range(1, rows)]],
        query_loss=[float(n % 7) for n in range(rows)],
        params=[float(n % 5) for n in range(rows)],
    )
    run.table = run.table.append_column(f"gene.{HOSTILE}x", pa.array([n % 3 for n in range(rows)]))
    run.study = {
        **run.study,
        "task": {"name": HOSTILE, HOSTILE: HOSTILE},
        "space": {"struct": {HOSTILE: {"choice": [HOSTILE], "branches": {}}}},
        "file": HOSTILE,
        "settings": {"searcher": HOSTILE, "seed": HOSTILE},
        "training": {"iterations": HOSTILE},
        "versions": {HOSTILE: HOSTILE},
    }
    run.name = HOSTILE
    return run


def empty():
    run = ordinary(1)
    return Run(run.study, run.table.slice(0, 0))


KINDS = {
    "empty": empty,
    "no columns": lambda: Run(empty().study, empty().table.drop_columns(["query_loss", "params"])),
    "failures": failures,
    "one row": lambda: ordinary(1),
    "few rows": lambda: ordinary(4),
    "one objective": lambda: ordinary(objectives=1),
    "two objectives": ordinary,
    "three objectives": lambda: ordinary(objectives=3),
    "no baseline": lambda: Run(STUDY, ordinary().table.slice(1)),
    "two rungs": rungs,
    "hostile": hostile,
}


def write(path, run):
    """Write a run where the command line finds it."""
    with RunDirectory.create(path, run.study, "raise SystemExit('nothing may run this')\n") as made:
        if len(run.table):
            pq.write_table(run.table, made.parts / "part-000000.parquet")
    return path


def confirmed(*names, seeds=2, episodes=5, status="OK"):
    """Return a confirmation of candidates; those with a name are baselines."""
    rows = [
        {
            "candidate_id": f"c{place:06d}",
            "operator": "baseline" if name else "mutate",
            "name": name,
            "status": status,
            "error": HOSTILE,
            "genome": '{"width": 3}',
            "repeat": repeat,
            "iterations": STUDY["training"]["iterations"],
            "scores": [2.0 + place + 0.1 * repeat + 0.01 * e for e in range(episodes)],
            "validation_scores": [1.5 + place + 0.1 * repeat] * episodes,
            "search_scores": [1.0 + place] * episodes,
            **dict.fromkeys(STUDY["metrics"], 1.0 + place),
        }
        for place, name in enumerate(names)
        for repeat in range(seeds)
    ]
    return pa.Table.from_pylist(rows)
