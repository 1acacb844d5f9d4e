"""MAML reproduces: sinusoid regression at full length.

    python -m tests.benchmarks.maml_sinusoid --shots 10 --seeds 1 --iterations 70000

Protocol of Finn et al. (2017): amplitude 0.1 to 5 and phase 0 to pi, x in [-5, 5], a 1-40-40-1
ReLU network, 25 tasks a meta-batch, Adam 1e-3, one inner step of rate 0.01, second order; tested on
1,000 fixed tasks with 100 queries each, amplitudes 0.1 to 5 at test too. The best predictor that
does not adapt has a mean squared error of 3.01.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.func import vmap

from evometa.evaluate.training import VMAP, forked_random, meta_train
from evometa.learner import GradientLearner
from evometa.network import Network, mlp
from evometa.records import derive_seed, mean_interval
from evometa.rule import make_rule, preset
from evometa.study import Training
from evometa.task import Sinusoid

STEPS = (0, 1, 5, 10)
TEST_TASKS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=70_000)
    parser.add_argument("--rule", default="maml", help="a preset")
    parser.add_argument("--rate", type=float, default=0.01)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"rule {arguments.rule}, K={arguments.shots}, {arguments.iterations} iterations")
    print("| seed | " + " | ".join(f"step {s}" for s in STEPS) + " | seconds |")
    print("|---" * (len(STEPS) + 2) + "|")
    for seed in range(arguments.seeds):
        started = time.perf_counter()
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in reproduce(arguments, seed)]
        seconds = time.perf_counter() - started
        print(f"| {seed} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)


def reproduce(arguments: argparse.Namespace, seed: int) -> list[tuple[float, float]]:
    task = Sinusoid(shots=arguments.shots, queries=arguments.shots)
    with forked_random(seed):
        network = Network(mlp(1, [40, 40], 1))
    rule = make_rule(preset(arguments.rule, rate=arguments.rate))
    learner = GradientLearner(network, rule, task.loss, task.scores)
    training = Training(iterations=arguments.iterations, tasks=25, rate=1e-3)
    cpu = torch.device("cpu")
    meta, _ = meta_train(
        learner, task, training, seed=derive_seed(seed, "meta-train"), plan=VMAP, device=cpu
    )
    generator = torch.Generator().manual_seed(derive_seed("meta-test"))
    support, query = task.episodes("meta-test", TEST_TASKS, generator)

    def errors(support, query):  # type: ignore[no-untyped-def]
        line = learner.trajectory(meta, support, max(STEPS))
        return torch.stack([task.loss(learner.predict(line[s], query[0]), query[1]) for s in STEPS])

    with torch.no_grad():
        table = vmap(errors)(tuple(support), tuple(query))
    return [mean_interval(table[:, column].tolist()) for column in range(len(STEPS))]


if __name__ == "__main__":
    main()
