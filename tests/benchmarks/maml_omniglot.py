"""MAML on Omniglot: the learning curve of the published network.

    python -m tests.benchmarks.maml_omniglot --data DIR --iterations 300 --tasks 8     # a CPU
    python -m tests.benchmarks.maml_omniglot --data DIR                                # a GPU

Protocol of Finn et al. (2017): conv4-64 of stride 2 with batch norm (transductive), one inner step
of rate 0.4 in training and three at test, Adam 1e-3, meta-batch 32, 40,000 meta-iterations, the
random 1,200/423 split with rotations; the paper reports 98.7 +- 0.4 % for 5-way 1-shot. One query
drawing a class and 600 test episodes, as published.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from evometa.evaluate.evaluator import choose_device, device_name
from evometa.evaluate.training import LOOP, VMAP, forked_random, meta_train, validate
from evometa.learner import GradientLearner
from evometa.network import ConvBlock, Network, conv_net
from evometa.records import derive_seed, mean_interval
from evometa.rule import make_rule, preset
from evometa.study import Training
from evometa.task import Omniglot


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1, help="a class, in meta-training")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=40_000)
    parser.add_argument("--tasks", type=int, default=32, help="meta-batch")
    parser.add_argument("--points", type=int, default=5, help="of the curve")
    parser.add_argument("--episodes", type=int, default=600, help="for each point")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    task = Omniglot(ways=arguments.ways, queries=arguments.queries).load(arguments.data)
    generator = torch.Generator().manual_seed(derive_seed("meta-test"))
    test = task.episodes("meta-test", arguments.episodes, generator)
    print(f"{device_name(device)}, conv4-{arguments.width}, {arguments.ways}-way 1-shot, "
          f"meta-batch {arguments.tasks}")  # fmt: skip
    print("| meta-iterations | meta-test accuracy % | seconds |")
    print("|---|---|---|", flush=True)
    for point in range(1, arguments.points + 1):
        iterations = arguments.iterations * point // arguments.points
        started = time.perf_counter()
        mean, half = train_and_test(arguments, task, test, iterations, device)
        seconds = time.perf_counter() - started
        print(f"| {iterations} | {mean:.2f} ± {half:.2f} | {seconds:.0f} |", flush=True)


def train_and_test(arguments, task, test, iterations, device):  # type: ignore[no-untyped-def]
    blocks = [
        ConvBlock(1 if index == 0 else arguments.width, arguments.width, reduce="stride")
        for index in range(4)
    ]
    with forked_random(0):
        module = conv_net(blocks, arguments.ways)
        module(test.support.inputs[0])
        network = Network(module)
    plan = VMAP if device.type == "cuda" else LOOP
    training = Training(iterations=iterations, tasks=arguments.tasks)
    learner = GradientLearner(network, make_rule(preset("maml", rate=0.4)), task.loss, task.scores)
    meta, _ = meta_train(learner, task, training, seed=0, plan=plan, device=device)
    tester = GradientLearner(
        network, make_rule(preset("maml", rate=0.4, steps=3)), task.loss, task.scores
    )
    outcome = validate(tester, meta, test, metrics=("accuracy",), plan=plan, device=device)
    return mean_interval([100 * score for score in outcome.scores["accuracy"]])


if __name__ == "__main__":
    main()
