"""Make the table of real few-shot results that searchers are compared on.

Every genome of one finite joint space (network, numbers, rule) is meta-trained for real on sine
waves, from five points, and scored after each of five fidelities on the same meta-validation
waves:

    python -m tests.benchmarks.few_shot_table --out tests/benchmarks/few_shot.parquet

It takes about an hour of one core; `--part 0/2` and `--part 1/2` share it between two. The table
is shipped, so nobody needs to run this in order to run `tests.benchmarks.search`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import Evaluator, Trainer, admit, parse_plan, score
from evometa.learner import preset
from evometa.network import mlp
from evometa.records import canonical_json, derive_seed
from evometa.task import Sinusoid

ITERATIONS = (0, 15, 45, 135, 405)
RATES = (0.005, 0.0125, 0.03, 0.08, 0.2)
OUTER = (1e-3, 3e-3, 1e-2)
WORST = 1e3  # stands for a loss that is not finite

SPACE = s.Struct(
    hidden=s.List(s.Choice(12, 40, 80), min=1, max=2),
    activation=s.Choice("relu", "tanh", "silu"),
    rates=s.Choice("fixed", "layer-step", "parameter"),
    adapts=s.Choice("all", "head"),
    steps=s.Int(1, 2),
    rate=s.Int(0, len(RATES) - 1),
    outer=s.Int(0, len(OUTER) - 1),
)
"""The space; `rate` and `outer` are places in `RATES` and `OUTER`."""


def genomes() -> list[dict]:
    """Return all genomes; those of equal structure stand together."""
    widths = SPACE.fields["hidden"].item.values
    hidden = [list(w) for n in (1, 2) for w in itertools.product(widths, repeat=n)]
    choices = [SPACE.fields[name].values for name in ("activation", "rates", "adapts")]
    numbers = [range(1, 3), range(len(RATES)), range(len(OUTER))]
    names = list(SPACE.fields)
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(hidden, *choices, *numbers)
    ]


def joint(genome: dict) -> dict:
    """Return the genome as a study's: network and rule."""
    rule = preset(
        "maml",
        steps=genome["steps"],
        rate=RATES[genome["rate"]],
        rates=genome["rates"],
        adapts=genome["adapts"],
        outer={"adam": {"rate": OUTER[genome["outer"]], "schedule": "constant"}},
    )
    return {"hidden": genome["hidden"], "activation": genome["activation"], "rule": rule}


STUDY = Study(
    space=s.Struct(whole=s.Choice(0)),  # genomes are made by `joint`
    build=lambda genome: mlp(1, genome["hidden"], 1, genome["activation"]),
    task=Sinusoid(shots=5, queries=5),
    training=Training(iterations=ITERATIONS[-1], tasks=16, validation=200),
)


def measure(pack: list[dict], numbers: list[int]) -> list[dict]:
    """Meta-train genomes of equal structure together; return their rows."""
    device = torch.device("cpu")
    plans = {"dense": parse_plan("vmap")}
    started = time.perf_counter()
    seeds = [derive_seed(0, "candidate", number) for number in numbers]
    admitted = [
        admit(STUDY, joint(genome), seed, device, plans)
        for genome, seed in zip(pack, seeds, strict=True)
    ]
    learners = [admission.learner for admission in admitted]
    trainer = Trainer(
        learners,
        STUDY.task,
        STUDY.training,
        seeds=[derive_seed(seed, "meta-train") for seed in seeds],
        plan=admitted[0].plan,
        device=device,
    )
    rows = [
        {
            "genome": canonical_json(genome),
            "params": admission.cost.params,
            "macs": admission.cost.macs,
        }
        for genome, admission in zip(pack, admitted, strict=True)
    ]
    gate = time.perf_counter() - started
    episodes = Evaluator(STUDY, 0).episodes()
    for iterations in ITERATIONS:
        started = time.perf_counter()
        trainer.run(iterations)
        seconds = time.perf_counter() - started
        results = trainer.results()
        started = time.perf_counter()
        outcomes = score(
            learners,
            [result.meta for result in results],
            STUDY.task,
            episodes,
            plan=trainer.plan,
            device=device,
        )
        scoring = time.perf_counter() - started
        for row, outcome in zip(rows, outcomes, strict=True):
            loss = statistics.fmean(outcome.scores["query_loss"])
            row[f"loss_{iterations}"] = min(loss, WORST) if math.isfinite(loss) else WORST
            row[f"seconds_{iterations}"] = (seconds + scoring + (not iterations) * gate) / len(rows)
    for row, result in zip(rows, results, strict=True):
        row["diverged"] = bool(result.diverged)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th structure from K on")
    parser.add_argument("--limit", type=int, default=None, help="structures, to try it out")
    parser.add_argument("--join", type=Path, nargs="*", help="parts to put together instead")
    args = parser.parse_args()
    if args.join:
        table = pa.concat_tables([pq.read_table(path) for path in args.join])
        pq.write_table(table.sort_by("genome"), args.out, compression="zstd")
        return
    torch.set_num_threads(1)
    part, parts = map(int, args.part.split("/"))
    everything = genomes()
    size = len(RATES) * len(OUTER)
    packs = [(i, everything[i : i + size]) for i in range(0, len(everything), size)]
    rows = []
    started = time.perf_counter()
    for done, (first, pack) in enumerate(packs[part::parts][: args.limit], 1):
        rows += measure(pack, list(range(first, first + len(pack))))
        if done % 10 == 0:
            print(
                f"{done}/{len(packs[part::parts])} {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    metadata = {"torch": torch.__version__, "cpu": platform.processor() or platform.machine()}
    table = pa.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"evometa.table": json.dumps(metadata)})
    pq.write_table(table, args.out, compression="zstd")


if __name__ == "__main__":
    main()
