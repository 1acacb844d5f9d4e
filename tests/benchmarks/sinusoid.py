"""The methods on sine waves, at full length.

    python -m tests.benchmarks.sinusoid --shots 10 --rules maml meta-sgd --seeds 5
    python -m tests.benchmarks.sinusoid --shots 5 --rules maml lslr meta-sgd evolved.json

Protocol of Finn et al. (2017): amplitude 0.1 to 5 and phase 0 to pi, x in [-5, 5], a 1-40-40-1
ReLU network, 25 tasks a meta-batch, Adam 1e-3, 70,000 meta-iterations, one inner step, of rate 0.01
for the presets; tested on 1,000 fixed tasks with 100 queries each, amplitudes 0.1 to 5 at test too.
The best predictor that does not adapt has a mean squared error of 3.01. The seeds of a rule are one
pack. Rules are presets, or files as `evometa show RUN ID --json` prints them.

The interval of a rule is that of its mean over the tasks, of which each counts with its mean over
the seeds; the seeds' own means are printed as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from evometa.evaluate import Outcome, Trainer, parse_plan, score
from evometa.evaluate.evaluator import choose_device
from evometa.evaluate.randomness import forked_random
from evometa.learner import Setting, make_learner, preset
from evometa.metrics import Metric
from evometa.network import Network, mlp
from evometa.records import Genome, derive_seed, mean_interval
from evometa.rule import formula, make_rule, read_rule
from evometa.study import Training
from evometa.task import Sinusoid

STEPS = (0, 1, 5, 10)
TEST_TASKS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--rules", nargs="+", default=["maml"], help="presets or rule files")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.01, help="of the presets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument("--plan", default="vmap+compile", help="vmap starts sooner")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"K={arguments.shots}, {arguments.iterations} meta-iterations, {arguments.seeds} seeds")
    print("| rule | " + " | ".join(f"step {s}" for s in STEPS) + " | seeds at step 1 | s a seed |")
    print("|---" * (len(STEPS) + 3) + "|", flush=True)
    for name in arguments.rules:
        rule = genome(name, arguments)
        started = time.perf_counter()
        outcomes = reproduce(rule, arguments)
        seconds = (time.perf_counter() - started) / arguments.seeds
        cells = " | ".join(cell(outcomes, step) for step in STEPS)
        means = (outcome.means("query_loss", Metric("min"))[1] for outcome in outcomes)
        each = " ".join(f"{mean:.3f}" for mean in means)
        print(f"| {Path(name).stem} | {cells} | {each} | {seconds:.0f} |", flush=True)
        if name.endswith(".json"):
            print(f"  {Path(name).stem}: {formula(make_rule(rule))}", flush=True)


def genome(name: str, arguments: argparse.Namespace) -> Genome:
    """Return the genome of a preset or of a file."""
    if name.endswith(".json"):
        return read_rule(name)
    return preset(name, rate=arguments.rate, steps=arguments.steps)


def cell(outcomes: list[Outcome], step: int) -> str:
    """Return mean and interval over the tasks after a step."""
    rows = zip(*(outcome.line[step]["query_loss"] for outcome in outcomes), strict=True)
    mean, half = mean_interval([statistics.fmean(row) for row in rows])
    return f"{mean:.3f} ± {half:.3f}"


def reproduce(rule: Genome, arguments: argparse.Namespace) -> list[Outcome]:
    """Train and test a rule, all seeds as one pack."""
    task = Sinusoid(shots=arguments.shots, queries=arguments.shots)
    device = choose_device(arguments.device)
    learners = []
    for seed in range(arguments.seeds):
        with forked_random(seed):
            network = Network(mlp(1, [40, 40], 1))
        learners.append(make_learner(rule, Setting(network, task, "transductive")))
    training = Training(iterations=arguments.iterations, tasks=25)
    seeds = [derive_seed(seed, "meta-train") for seed in range(arguments.seeds)]
    plan = parse_plan(arguments.plan)
    trainer = Trainer(learners, task, training, seeds=seeds, plan=plan, device=device)
    trainer.run()
    generator = torch.Generator().manual_seed(derive_seed("meta-test"))
    test = task.episodes("meta-test", TEST_TASKS, generator)
    metas = [result.meta for result in trainer.results()]
    return score(learners, metas, task, [test], plan=plan, device=device, steps=max(STEPS))


if __name__ == "__main__":
    main()
