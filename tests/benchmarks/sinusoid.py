"""The methods on sine waves, at full length.

    python -m tests.benchmarks.sinusoid --shots 10 --rules maml meta-sgd --seeds 3

Protocol of Finn et al. (2017): amplitude 0.1 to 5 and phase 0 to pi, x in [-5, 5], a 1-40-40-1
ReLU network, 25 tasks a meta-batch, Adam 1e-3, 70,000 meta-iterations, one inner step of rate 0.01;
tested on 1,000 fixed tasks with 100 queries each, amplitudes 0.1 to 5 at test too. The best
predictor that does not adapt has a mean squared error of 3.01. The seeds of a rule are one pack.
"""

from __future__ import annotations

import argparse
import time

import torch

from evometa.evaluate import Outcome, Trainer, parse_plan, score
from evometa.evaluate.evaluator import choose_device
from evometa.evaluate.training import forked_random
from evometa.learner import make_learner
from evometa.network import Network, mlp
from evometa.records import derive_seed, mean_interval
from evometa.rule import PRESETS, preset
from evometa.study import Training
from evometa.task import Sinusoid

STEPS = (0, 1, 5, 10)
TEST_TASKS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--rules", nargs="+", default=["maml"], choices=[*PRESETS])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument("--plan", default="vmap", help="vmap+compile is faster beyond a minute")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"K={arguments.shots}, {arguments.iterations} meta-iterations, {arguments.seeds} seeds")
    print("| rule | seed | " + " | ".join(f"step {s}" for s in STEPS) + " | seconds |")
    print("|---" * (len(STEPS) + 3) + "|")
    for rule in arguments.rules:
        started = time.perf_counter()
        outcomes = reproduce(rule, arguments)
        seconds = (time.perf_counter() - started) / arguments.seeds
        for seed, outcome in enumerate(outcomes):
            cells = [mean_interval(outcome.line[step]["query_loss"]) for step in STEPS]
            shown = " | ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)
            print(f"| {rule} | {seed} | {shown} | {seconds:.0f} |", flush=True)


def reproduce(rule: str, arguments: argparse.Namespace) -> list[Outcome]:
    task, device = (
        Sinusoid(shots=arguments.shots, queries=arguments.shots),
        choose_device(arguments.device),
    )
    genome = preset(rule, rate=arguments.rate, steps=arguments.steps)
    learners = []
    for seed in range(arguments.seeds):
        with forked_random(seed):
            network = Network(mlp(1, [40, 40], 1))
        learners.append(make_learner(genome, network, task, "transductive"))
    training = Training(iterations=arguments.iterations, tasks=25)
    seeds = [derive_seed(seed, "meta-train") for seed in range(arguments.seeds)]
    plan = parse_plan(arguments.plan)
    trainer = Trainer(learners, task, training, seeds=seeds, plan=plan, device=device)
    trainer.run()
    generator = torch.Generator().manual_seed(derive_seed("meta-test"))
    test = task.episodes("meta-test", TEST_TASKS, generator)
    metas = [result.meta for result in trainer.results()]
    return score(learners, metas, task, test, plan=plan, device=device, steps=max(STEPS))


if __name__ == "__main__":
    main()
