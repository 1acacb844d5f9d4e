"""Updates as expressions: what they cost, how many an hour, and what evolution finds.

    python -m tests.benchmarks.rules                     # cost and throughput
    python -m tests.benchmarks.rules --only efficiency   # evolution against random trees, ~10 min

All on sine waves of five points, one inner step, 25 tasks, a 1-40-40-1 network, one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import Evaluator, begin, parse_plan
from evometa.evaluate.pack import Pack
from evometa.evaluate.program import Program
from evometa.learner import Setting, make_learner, preset, stage_at
from evometa.network import Network, mlp
from evometa.records import Candidate, Genome, Status, mean_interval
from evometa.rule import KNOWN, check_update, make_rule, rule_space, update_space
from evometa.search import make_searcher
from evometa.task import Sinusoid
from evometa.task.episodes import over
from tests.benchmarks.inner_loop import in_turn_unequal

POINTS = (24, 48, 96)


def bench_cost(rounds: int) -> None:
    """The time of a meta-gradient, by rule, against plain gradient descent."""
    task = Sinusoid(shots=5, queries=5)
    drawn = task.episodes("meta-train", 25, torch.Generator().manual_seed(0))
    episodes = over(lambda tensor: tensor.unsqueeze(0), drawn)
    evolved = {"twelve operations": random_updates(1, 12)[0]}
    print("\n| update, 1 step, rates for each weight | vmap | vmap+compile |\n|---|---|---|")
    columns = []
    for plan in ("vmap", "vmap+compile"):
        contenders = {}
        for name, tokens in {**KNOWN, **evolved}.items():
            rule = preset("meta-sgd", update=tokens)
            setting = Setting(Network(mlp(1, [40, 40], 1)), task, "inductive")
            learner = make_learner(rule, setting)
            pack = Pack.of([begin(learner, 0)], [0.0], torch.device("cpu"))
            stage = stage_at(learner, learner.traits, 1.0)
            program = Program(stage.learner, pack.layout, parse_plan(plan))
            contenders[name] = lambda p=program, k=pack: float(p(k, {}, episodes).losses[0])
        columns.append(in_turn_unequal(contenders, rounds))
    for name in columns[0]:
        cells = " | ".join(f"{column[name] / column['sgd']:.2f}" for column in columns)
        print(f"| {name} | {cells} |", flush=True)
    print("Times the time of gradient descent.")


def bench_throughput(rounds: int, iterations: int, size: int) -> None:
    """Different rules, evaluated one by one and as one pack."""
    study = study_of(iterations)
    evaluate = Evaluator(study, plans={"dense": "vmap"})
    updates = random_updates(size, 8)
    pack = [
        Candidate(number, {"rule": preset("meta-sgd", update=tokens)}, seed=number)
        for number, tokens in enumerate(updates)
    ]
    seconds: dict[str, list[float]] = {"one by one": [], f"packs of {size}": []}
    for _ in range(rounds):
        for name, packs in zip(seconds, ([[c] for c in pack], [pack]), strict=True):
            started = time.perf_counter()
            for each in packs:
                evaluate(each)
            seconds[name].append((time.perf_counter() - started) / size)
    print(f"\n| {iterations} meta-iterations, validated on 200 waves | rules an hour and core |")
    print("|---|---|")
    for name, values in seconds.items():
        print(f"| {name} | {3600 / statistics.median(values):.0f} |", flush=True)


def bench_efficiency(runs: int, iterations: int) -> None:
    """Best loss after one step, against the number of evaluations."""
    study = study_of(iterations)
    objectives = {"query_loss": "min"}
    print(f"\n| {iterations} meta-iterations, {runs} runs | ", end="")
    print(" | ".join(f"{n} evaluations" for n in POINTS) + " |\n|---" + "|---" * len(POINTS) + "|")
    for name in ("random", "evolution"):
        lines = [best_so_far(study, name, seed, objectives) for seed in range(runs)]
        cells = [mean_interval([line[n - 1] for line in lines]) for n in POINTS]
        shown = " | ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)
        print(f"| {name} | {shown} |", flush=True)


def best_so_far(study: Study, name: str, seed: int, objectives: Any) -> list[float]:
    """Return the best loss after each evaluation of a search, from nothing but random rules."""
    searcher = make_searcher(name, study.space, objectives, seed)
    evaluate = Evaluator(study, plans={"dense": "vmap"})
    best, line = float("inf"), []
    while len(line) < max(POINTS):
        results = evaluate(searcher.ask(8))
        searcher.tell(results)
        for result in results:
            if result.status is Status.OK:
                best = min(best, result.metrics["query_loss"])
            line.append(best)
    return line


def study_of(iterations: int) -> Study:
    """Rules of one step for the published network; trained fast, since trainings are short."""
    adam = s.Struct(rate=s.Choice(5e-3), schedule=s.Choice("constant"))
    rule = rule_space(
        steps=s.Choice(1),
        order=s.Choice(2),
        rates=s.Choice("fixed", "layer", "parameter"),
        adapts=s.Choice("all"),
        multi_step=s.Choice(0.0),
        anneal=s.Choice(0.0),
        affine=s.Choice("shared"),
        outer=s.Choice(adam=adam),
        update=update_space(size=20),
    )
    return Study(
        space=s.Struct(rule=rule),
        build=lambda genome: mlp(1, [40, 40], 1),
        task=Sinusoid(shots=5, queries=5),
        training=Training(iterations=iterations, tasks=25, validation=200),
    )


def random_updates(count: int, least: int) -> list[Genome]:
    """Return expressions that can learn, of at least so many tokens."""
    space, rng, found = update_space(size=20), np.random.default_rng(0), []
    while len(found) < count:
        tokens = space.sample(rng)
        try:
            check_update(make_rule(preset("meta-sgd", update=tokens)))
        except ValueError:
            continue
        if len(tokens) >= least:
            found.append(tokens)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=["cost", "throughput", "efficiency"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--pack", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only in (None, "cost"):
        bench_cost(arguments.rounds)
    if arguments.only in (None, "throughput"):
        bench_throughput(arguments.rounds, arguments.iterations, arguments.pack)
    if arguments.only == "efficiency":
        bench_efficiency(arguments.runs, arguments.iterations)


if __name__ == "__main__":
    main()
