"""The methods on Omniglot, each by its published protocol.

    python -m tests.benchmarks.omniglot --data DIR --methods maml protonet --ways 20        # a GPU
    python -m tests.benchmarks.omniglot --data DIR --width 32 --iterations 300 --tasks 4    # a CPU

1-shot, the random 1,200/423 split with rotations, 600 meta-test episodes with 15 queries a class.
Published, 5-way and 20-way accuracy: MAML 98.7 and 95.8 (honest repetitions 92 to 95.2), ANIL 96.2
(20-way), MAML++ 99.47 and 97.65, prototypes 98.8 and 96.0, Reptile 97.68 and 89.43 (transductive).

MAML, FOMAML, ANIL, BOIL (Finn et al., 2017): stride-2 conv4-64; 5-way: 1 step of rate 0.4 in
training and 3 at test, meta-batch 32; 20-way: 5 steps of 0.1, meta-batch 16; 40,000 iterations.
MAML++ (Antoniou et al., 2019): max-pool conv4-64, 5 steps, meta-batch 16, 75,000 iterations.
Prototypes (Snell et al., 2017): max-pool conv4-64 embedding, 60-way episodes, 5 queries, 20,000.
All are trained with `--queries` queries a class, and Adam 1e-3.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from evometa.evaluate import Trainer, parse_plan, score
from evometa.evaluate.evaluator import choose_device, device_name
from evometa.evaluate.plan import default_plan
from evometa.evaluate.randomness import forked_random
from evometa.evaluate.settings import numerics
from evometa.learner import Setting, make_learner, preset
from evometa.network import ConvBlock, Network, conv_net
from evometa.records import Genome, derive_seed, mean_interval
from evometa.rule import read_rule
from evometa.study import Training
from evometa.task import Omniglot


@dataclass(frozen=True)
class Protocol:
    """How a method was published."""

    rule: Genome
    reduce: str
    tasks: int
    iterations: int
    test_steps: int
    head: bool = True


def protocol(method: str, ways: int) -> Protocol:
    if method.endswith(".json"):  # a rule found elsewhere, as it is
        return Protocol(read_rule(method), "stride", 32 if ways < 20 else 16, 40_000, 3)
    if method == "protonet":
        return Protocol(preset("protonet"), "pool", 1, 20_000, 0, head=False)
    if method == "maml++":
        return Protocol(preset("maml++", rate=0.4), "pool", 16, 75_000, 5)
    if method == "reptile":
        return Protocol(preset("reptile", rate=0.1), "stride", 5, 100_000, 20)
    if ways >= 20:
        return Protocol(preset(method, rate=0.1, steps=5), "stride", 16, 40_000, 5)
    return Protocol(preset(method, rate=0.4), "stride", 32, 40_000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["maml"], help="presets or rule files")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5, help="a class, in meta-training")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--iterations", type=int, help="default: as published")
    parser.add_argument("--tasks", type=int, help="meta-batch; default: as published")
    parser.add_argument("--proto-ways", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1, help="trained as one pack")
    parser.add_argument("--points", type=int, default=5, help="of the curve")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--plan", help="default: the usual one of the device")
    parser.add_argument("--norm", default="transductive", help="default: as published with MAML")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    print(f"{device_name(device)}, conv4-{arguments.width}, {arguments.ways}-way 1-shot")
    print("| method | seed | meta-iterations | meta-test accuracy % | seconds |")
    print("|---|---|---|---|---|", flush=True)
    for method in arguments.methods:
        train_and_test(method, protocol(method, arguments.ways), arguments, device)


def train_and_test(
    method: str, published: Protocol, arguments: argparse.Namespace, device: torch.device
) -> None:
    task = Omniglot(ways=arguments.ways, queries=arguments.queries).load(arguments.data)
    test_task = replace(task, queries=15)
    generator = torch.Generator().manual_seed(derive_seed("meta-test"))
    test = test_task.episodes("meta-test", arguments.episodes, generator)
    rule = published.rule
    if "prototypes" in rule:
        rule["prototypes"]["ways"] = arguments.proto_ways
    networks = [network(published, arguments, seed) for seed in range(arguments.seeds)]
    learners = [make_learner(rule, Setting(each, task, arguments.norm)) for each in networks]
    training = Training(
        iterations=arguments.iterations or published.iterations,
        tasks=arguments.tasks or published.tasks,
        precision=arguments.precision,
    )
    plan = parse_plan(arguments.plan) if arguments.plan else default_plan("convolution", device)
    seeds = [derive_seed(seed, "meta-train") for seed in range(arguments.seeds)]
    started = time.perf_counter()
    with numerics(training, device):
        trainer = Trainer(learners, task, training, seeds=seeds, plan=plan, device=device)
        for point in range(1, arguments.points + 1):
            trainer.run(training.iterations * point // arguments.points)
            metas = [result.meta for result in trainer.results()]
            seconds = time.perf_counter() - started
            outcomes = score(
                learners,
                metas,
                test_task,
                [test],
                plan=plan,
                device=device,
                steps=published.test_steps,
            )
            for seed, outcome in enumerate(outcomes):
                mean, half = mean_interval([100 * each for each in outcome.line[-1]["accuracy"]])
                print(
                    f"| {method} | {seed} | {trainer.iteration} | {mean:.2f} ± {half:.2f} "
                    f"| {seconds:.0f} |",
                    flush=True,
                )


def network(published: Protocol, arguments: argparse.Namespace, seed: int) -> Network:
    with forked_random(seed):
        blocks: list[nn.Module] = [
            ConvBlock(1 if i == 0 else arguments.width, arguments.width, reduce=published.reduce)
            for i in range(4)
        ]
        outputs = arguments.ways if published.head else None
        module = conv_net(blocks, outputs, head="mean" if published.head else "flatten")
        module(torch.zeros(1, 1, 28, 28))
    return Network(module)


if __name__ == "__main__":
    main()
