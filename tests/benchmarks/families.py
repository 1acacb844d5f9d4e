"""All ways of learning on Omniglot, each with the same seconds of meta-training.

    python -m tests.benchmarks.families --data DIR --seconds 600 --families protonet matching maml

One table: accuracy on meta-test, 5-way and 20-way 1-shot, where queries are scored by the
batch-norm statistics of the support set alone (`inductive`); 1,100/100/423 characters, rotations as
classes; conv4-64 with max-pooling, its maps the features of those who need no head of a fixed size.
Families and presets are those that are registered, so a new one is a row. A way of learning that
sets its own number of ways is trained once and tested at both; all others are trained at 5 and at
20 ways, each with all the seconds. Parameters and multiply-accumulates are of the 20-way learner:
all that is trained, and what it takes to adapt to an episode and to predict one query. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evometa.evaluate import Trainer, begin, score
from evometa.evaluate.evaluator import choose_device, device_name
from evometa.evaluate.plan import default_plan
from evometa.evaluate.randomness import forked_random
from evometa.evaluate.training import training_task
from evometa.learner import FAMILIES, PRESETS, Learner, Meta, Setting, make_learner, preset
from evometa.network import ConvBlock, Network
from evometa.records import derive_seed
from evometa.study import Training
from evometa.task import ClassTask, Omniglot
from evometa.task.episodes import over, part_of, to_device
from evometa.task.sampler import bounds_of

WAYS = (5, 20)
TRIAL = 4  # meta-iterations that say how many fit into the seconds


@dataclass(frozen=True)
class Row:
    """What was measured of one way of learning, one entry a seed."""

    accuracy: dict[int, list[float]]
    params: int
    macs: int
    iterations: list[int]
    train_seconds: list[float]
    adapt_seconds: list[float]


@dataclass(frozen=True)
class Bench:
    """Data and budget, the same for all."""

    task: ClassTask
    seconds: float
    width: int
    episodes: int
    device: torch.device

    def measure(self, name: str, seeds: int) -> Row:
        """Meta-train and test a preset."""
        row = Row({ways: [] for ways in WAYS}, 0, 0, [], [], [])
        for seed in range(seeds):
            trained: dict[object, tuple[Learner, Meta]] = {}
            for ways in WAYS:
                learner = self.learner(name, ways, seed)
                own = learner.traits.ways if learner.traits.any_ways else None
                if (own or ways) not in trained:
                    meta, iterations, seconds = self.trained(learner, ways, seed)
                    trained[own or ways] = learner, meta
                    row.iterations.append(iterations)
                    row.train_seconds.append(seconds)
                learner, meta = trained[own or ways]
                test = replace(self.task, ways=ways, queries=15)
                generator = torch.Generator().manual_seed(derive_seed("meta-test"))
                drawn = [test.episodes("meta-test", self.episodes, generator)]
                (outcome,) = score(
                    [learner], [meta], test, drawn, plan=self.plan, device=self.device
                )
                row.accuracy[ways].append(100 * statistics.fmean(outcome.scores["accuracy"]))
            row.adapt_seconds.append(outcome.adapt_seconds)
            params = sum(v.numel() for part in ("params", "learned") for v in meta[part].values())
            support, query = to_device(part_of(drawn[0], 0), self.device)
            row = replace(row, params=params, macs=macs_of(learner, meta, support, query.inputs))
        return row

    def learner(self, name: str, ways: int, seed: int) -> Learner:
        """Make a preset's learner: on maps if it needs no more, else with a linear head."""
        task = replace(self.task, ways=ways)
        for outputs in (None, ways):
            with forked_random(seed):
                blocks = [
                    ConvBlock(1 if i == 0 else self.width, self.width, reduce="pool")
                    for i in range(4)
                ]
                head = [] if outputs is None else [nn.Flatten(), nn.LazyLinear(outputs)]
                module = nn.Sequential(*blocks, *head)
                features = module(torch.zeros(2, 1, 28, 28)).to("meta")
            setting = Setting(Network(module), task, "inductive", features)
            learner = make_learner(preset(name), setting)
            if learner.traits.any_ways:
                return learner
        return learner

    def trained(self, learner: Learner, ways: int, seed: int) -> tuple[Meta, int, float]:
        """Meta-train for the seconds there are; return iterations and seconds as well."""
        task = replace(self.task, ways=ways)
        most = bounds_of(training_task(task, learner.traits).ways)[1]
        tasks, count = max(1, WAYS[-1] // most), 2 * TRIAL
        begun = 0.0
        while True:
            training = Training(iterations=count, tasks=tasks, validation=1)
            trainer = Trainer(
                [learner],
                task,
                training,
                seeds=[derive_seed(seed, "meta-train")],
                plan=self.plan,
                device=self.device,
                metas=[begin(learner, seed)],
            )
            trainer.run(TRIAL)
            started = time.perf_counter()
            trainer.run()
            seconds = time.perf_counter() - started
            if begun:
                return trainer.results()[0].meta, count, seconds
            begun, count = seconds, max(2 * TRIAL, int(self.seconds / seconds * TRIAL))

    @property
    def plan(self):
        return default_plan("convolution", self.device)


def macs_of(learner: Learner, meta: Meta, support: object, inputs: object) -> int:
    """Return multiply-accumulates to adapt to an episode and to predict one query."""
    with FlopCounterMode(display=False) as counter:
        adapted = learner.adapt(meta, support)
        learner.predict(adapted, over(lambda leaf: leaf[:1], inputs))
    return counter.get_total_flops() // 2


def chosen(names: list[str] | None) -> Iterator[str]:
    """Yield presets by their names and by those of their families; all by default."""
    for family in FAMILIES.values():
        for name in family.presets:
            if names is None or name in names or family.name in names:
                yield name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600, help="to meta-train, each")
    parser.add_argument("--families", nargs="+", help=f"of {', '.join((*FAMILIES, *PRESETS))}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=5, help="a class, in meta-training")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=200, help="of meta-test")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    unknown = set(arguments.families or ()) - {*FAMILIES, *PRESETS}
    if unknown:
        parser.error(f"no such family or preset: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    device = choose_device(arguments.device)
    task = Omniglot(ways=5, queries=arguments.queries).load(arguments.data)
    bench = Bench(task, arguments.seconds, arguments.width, arguments.episodes, device)
    print(
        f"{device_name(device)}, conv4-{arguments.width}, {arguments.seconds:.0f} s each, "
        f"{arguments.seeds} seeds, mean ± standard deviation over them, "
        f"{arguments.episodes} episodes"
    )
    print(
        "| preset | 5-way % | 20-way % | parameters | MACs | meta-iterations "
        "| seconds to meta-train | ms to adapt, 20-way |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in chosen(arguments.families):
        try:
            row = bench.measure(name, arguments.seeds)
        except Exception as error:  # one way of learning does not cost the others their rows
            print(f"| {name} | {type(error).__name__}: {error} |", flush=True)
            continue
        five, twenty = (spread(values) for values in row.accuracy.values())
        print(
            f"| {name} | {five} | {twenty} | {row.params:,} | {row.macs / 1e6:,.1f} M "
            f"| {statistics.fmean(row.iterations):.0f} | {statistics.fmean(row.train_seconds):.0f} "
            f"| {1000 * statistics.fmean(row.adapt_seconds):.1f} |",
            flush=True,
        )


def spread(values: list[float]) -> str:
    """Return the mean over seeds, with their standard deviation where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
