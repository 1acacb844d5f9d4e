"""A memory-augmented network on Omniglot, by both of its protocols.

    python -m tests.benchmarks.memory --data DIR --ways 5 --seconds 3600

Meta-trained on sequences of `--shots` + 1 drawings a class, with a small network on 14x14 pixels.
Two measures, each on meta-test: the accuracy when a class comes for the 1st, 2nd, 5th and 10th time
in one sequence of ten drawings a class (published for 5 classes: 36.4, 82.8, 94.9 and 98.1 %), and
the accuracy on queries after a support set (`--shots` a class). A loss that stays at the logarithm
of the number of classes is a memory that has not been found to be of use yet. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from evometa.evaluate import VMAP, Trainer, score
from evometa.evaluate.randomness import forked_random
from evometa.learner import Learner, Meta, Setting, make_learner, presentations, preset
from evometa.learner.order import shuffled
from evometa.network import Network
from evometa.study import Training
from evometa.task import ClassTask, Omniglot
from evometa.task.episodes import part_of

TIMES = (1, 2, 5, 10)
CPU = torch.device("cpu")


def sequences(learner: Learner, meta: Meta, task: ClassTask, count: int) -> list[float]:
    """Return the accuracy at each of `TIMES`, mean of some sequences."""
    drawn = replace(task, shots=max(TIMES), queries=1)
    episodes = drawn.episodes("meta-test", count, torch.Generator().manual_seed(1))
    rows = []
    for row in range(count):
        side = shuffled(part_of(episodes.support, row))
        found = presentations(learner.adapt(meta, side).state, side)
        rows.append([float(found[each - 1]) for each in TIMES])
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--points", type=int, default=6, help="of the curve")
    parser.add_argument("--genes", type=json.loads, default={}, help="changes of the preset")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = Omniglot(ways=arguments.ways, shots=arguments.shots, queries=1).load(arguments.data)
    with forked_random(0):
        module = nn.Sequential(
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 128), nn.ReLU(), nn.Linear(128, 64)
        )
    setting = Setting(Network(module), task, "inductive", torch.empty(1, 64, device="meta"))
    learner = make_learner(preset("mann", **arguments.genes), setting)
    training = Training(iterations=10**6, tasks=arguments.tasks)
    trainer = Trainer([learner], task, training, seeds=[0], plan=VMAP, device=CPU)
    test = replace(task, queries=min(10, 20 - arguments.shots))
    drawn = [test.episodes("meta-test", 200, torch.Generator().manual_seed(2))]
    columns = " | ".join(f"presentation {each} %" for each in TIMES)
    print(f"ln {arguments.ways} = {math.log(arguments.ways):.3f}")
    print(f"| seconds | meta-iterations | query loss | {columns} | queries % |")
    print("|---" * (len(TIMES) + 4) + "|", flush=True)
    spent = 0.0
    for point in range(1, arguments.points + 1):
        while spent < arguments.seconds * point / arguments.points:
            started = time.perf_counter()
            trainer.run(trainer.iteration + 10)
            spent += time.perf_counter() - started
        meta = trainer.results()[0].meta
        (outcome,) = score([learner], [meta], task, drawn, plan=VMAP, device=CPU)
        loss = statistics.fmean(outcome.scores["query_loss"])
        found = [*sequences(learner, meta, task, 40), statistics.fmean(outcome.scores["accuracy"])]
        cells = " | ".join(f"{100 * each:.1f}" for each in found)
        print(f"| {spent:.0f} | {trainer.iteration} | {loss:.3f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
