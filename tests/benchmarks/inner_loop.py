"""The speed of meta-gradients, side by side with the peers.

    python -m tests.benchmarks.inner_loop                    # all rows that fit this machine
    python -m tests.benchmarks.inner_loop --only sinusoid    # or omniglot, family, cuda

Same weights, same episodes; all contenders run in one process and in turn, the median of the rounds
is quoted, and their losses must agree to four digits. Install `higher`, `torchopt` or `learn2learn`
to have them among the peers. `whole machine` runs one process a core for us, and for the peers the
better of one process with all cores and one process a core.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from evometa.evaluate import Plan, begin, parse_plan
from evometa.evaluate.evaluator import device_name
from evometa.evaluate.pack import Pack
from evometa.evaluate.program import Program
from evometa.evaluate.randomness import forked_random
from evometa.learner import Setting, make_learner, preset, stage_at
from evometa.network import ConvBlock, Network, conv_net, mlp
from evometa.task import Glyphs, Omniglot, Sinusoid
from evometa.task.episodes import over, to_device
from evometa.task.protocol import EpisodeBatch, Task
from tests.benchmarks.peers import Loss, peers

CPU = torch.device("cpu")
Contender = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """What is computed: the meta-gradient of a meta-batch."""

    module: nn.Module
    task: Task
    episodes: EpisodeBatch
    loss: Loss
    rate: float
    steps: int = 1


def sinusoid() -> Work:
    with forked_random(0):
        module = mlp(1, [40, 40], 1)
    task = Sinusoid(shots=10, queries=10)
    episodes = task.episodes("meta-train", 25, torch.Generator().manual_seed(0))
    return Work(module, task, episodes, F.mse_loss, 0.01)


def omniglot(data: Path | None, tasks: int = 32, steps: int = 1, queries: int = 15) -> Work:
    """conv4-64 of stride 2 (Finn et al., 2017); on drawn glyphs of the same size without data."""
    if data is not None:
        task: Any = Omniglot(ways=5, shots=1, queries=queries).load(data)
    else:
        task = Glyphs(ways=5, shots=1, queries=queries, drawings=queries + 1).load(None)
    episodes = task.episodes("meta-train", tasks, torch.Generator().manual_seed(0))
    with forked_random(0):
        blocks = [ConvBlock(1 if i == 0 else 64, 64, reduce="stride") for i in range(4)]
        module = conv_net(blocks, 5)
        module(episodes.support.inputs[0])
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):  # the peers would average over tasks in place
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return Work(module, task, episodes, F.cross_entropy, 0.4, steps)


def ours(
    work: Work, plan: Plan, members: int = 1, rule: str = "maml", device: torch.device = CPU
) -> Contender:
    """Our meta-gradient of a pack of equal candidates."""
    genome = preset(rule, steps=work.steps, rate=work.rate)
    learner = make_learner(genome, Setting(Network(work.module), work.task, "transductive"))
    pack = Pack.of([begin(learner, 0)] * members, [0.0] * members, device)
    stage = stage_at(learner, learner.traits, 1.0)
    program = Program(stage.learner, pack.layout, plan)
    packed = over(lambda t: t.expand(members, *t.shape).contiguous(), work.episodes)
    episodes = to_device(packed, device)
    return lambda: float(program(pack, {}, episodes).losses[0])


def theirs(work: Work, device: torch.device = CPU) -> dict[str, Contender]:
    """The meta-gradient of each peer."""
    found: dict[str, Contender] = {}
    for name, peer in peers().items():
        module = copy.deepcopy(work.module).to(device)
        episodes = to_device(work.episodes, device)

        def run(peer=peer, module=module, episodes=episodes):  # type: ignore[no-untyped-def]
            module.zero_grad()
            return peer(module, episodes, work.rate, work.steps, work.loss)

        found[name] = run
    return found


def in_turn(contenders: dict[str, Contender], rounds: int, least: float = 0.3) -> dict[str, float]:
    """Return the median seconds of each, and hold their losses together."""
    losses = {name: run() for name, run in contenders.items()}  # warms up, compiles
    some = next(iter(losses.values()))
    for name, loss in losses.items():
        if abs(loss - some) > 1e-4 * max(1.0, abs(some)):
            raise SystemExit(f"the losses disagree: {losses}; {name} is off")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            count, started = 0, time.perf_counter()
            while count == 0 or time.perf_counter() - started < least:
                run()
                count += 1
            times[name].append((time.perf_counter() - started) / count)
    return {name: statistics.median(values) for name, values in times.items()}


def print_rows(
    title: str, seconds: dict[str, float], peer_names: set[str], members: dict[str, int]
) -> None:
    """Print one table: milliseconds a candidate, and how often the best peer fits in."""
    best = min(seconds[name] for name in peer_names)
    print(f"\n{title}\n\n| | ms a candidate | times the best peer |\n|---|---|---|")
    for name, taken in seconds.items():
        each = taken / members.get(name, 1)
        print(f"| {name} | {each * 1e3:.3g} | {best / each:.1f} |", flush=True)


def bench_sinusoid(rounds: int) -> None:
    torch.set_num_threads(1)
    work = sinusoid()
    contenders = theirs(work)
    names = set(contenders)
    members = {}
    for count, plan in (
        (1, "vmap"),
        (1, "vmap+compile"),
        (32, "vmap"),
        (32, "vmap+compile"),
        (32, "vmap:8xall+compile"),
    ):
        name = f"evometa {plan}, pack of {count}"
        contenders[name] = ours(work, parse_plan(plan), count)
        members[name] = count
    seconds = in_turn(contenders, rounds)
    title = "Sinusoid 1-40-40-1, 25 tasks, K=10, 1 step, second order, one CPU core"
    print_rows(title, seconds, names, members)


def bench_family(rounds: int, data: Path | None) -> None:
    torch.set_num_threads(1)
    for steps, queries in ((5, 1), (5, 15)):
        work = omniglot(data, tasks=2, steps=steps, queries=queries)
        plan = parse_plan("loop")
        rules = ("maml", "anil", "fomaml")
        seconds = in_turn_unequal({rule: ours(work, plan, rule=rule) for rule in rules}, rounds)
        print(f"\nOur rules: conv4-64, 5-way 1-shot, {queries} queries, {steps} steps, one core")
        print("\n| | ms a task | times our MAML |\n|---|---|---|")
        for rule in rules:
            each = seconds[rule] / 2
            print(
                f"| {rule} | {each * 1e3:.3g} | {seconds['maml'] / seconds[rule]:.2f} |", flush=True
            )


def in_turn_unequal(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    """Like `in_turn`, for algorithms whose losses differ."""
    return in_turn({name: lambda r=run: (r(), 0.0)[1] for name, run in contenders.items()}, rounds)


def bench_omniglot(rounds: int, data: Path | None, tasks: int) -> None:
    """Each contender in processes of its own, which compute one meta-gradient at the same time."""
    cores = os.cpu_count() or 1
    setups = [(f"{name}, one process, all cores", name, 1) for name in peers()]
    setups += [(f"{name}, one process a core", name, cores) for name in peers()]
    setups += [
        (f"evometa {plan}, one process a core", plan, cores) for plan in ("loop", "loop+compile")
    ]
    pools = {
        label: [_Worker(job, data, tasks, cores // count) for _ in range(count)]
        for label, job, count in setups
    }
    seconds: dict[str, list[float]] = {label: [] for label in pools}
    memory: dict[str, int] = {}
    losses = {}
    for round_number in range(rounds + 2):
        for label, workers in pools.items():
            started = time.perf_counter()
            for worker in workers:
                worker.ask(measure=round_number == 1)
            answers = [worker.answer() for worker in workers]
            taken = (time.perf_counter() - started) / len(workers)
            losses[label] = answers[0][0]
            if round_number == 1:  # the first one warms up and compiles
                memory[label] = sum(answer[1] for answer in answers)
            elif round_number > 1:
                seconds[label].append(taken)
    for workers in pools.values():
        for worker in workers:
            worker.close()
    if max(losses.values()) - min(losses.values()) > 1e-4 * max(losses.values()):
        raise SystemExit(f"the losses disagree: {losses}")
    median = {label: statistics.median(values) for label, values in seconds.items()}
    ours_too = {label for label in median if label.startswith("evometa")}
    whole = min(median[label] for label in median if label.endswith("all cores"))
    best = min(median[label] for label in median if label not in ours_too)
    print(
        f"\nOmniglot conv4-64, 5-way 1-shot, 15 queries, {tasks} tasks, 1 step, second order, "
        f"{cores} cores\n\n| | meta-iterations a minute | times the best peer as one process "
        "| times the best peer run once a core | peak MiB of the work in a process |"
    )
    print("|---|---|---|---|---|")
    for label, value in median.items():
        size = memory[label] / len(pools[label]) / 2**20
        print(
            f"| {label} | {60 / value:.1f} | {whole / value:.2f} | {best / value:.2f} "
            f"| {size:.0f} |",
            flush=True,
        )


class _Worker:
    """A process that computes the meta-gradient of one contender when asked to."""

    def __init__(self, job: str, data: Path | None, tasks: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, job, data, tasks, threads))
        self._process.start()

    def ask(self, measure: bool) -> None:
        self._pipe.send("measure" if measure else "run")

    def answer(self) -> tuple[float, int]:
        return self._pipe.recv()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._pipe.send("")
        self._process.join()


def _serve(pipe: Any, job: str, data: Path | None, tasks: int, threads: int) -> None:
    torch.set_num_threads(threads)
    work = omniglot(data, tasks)
    contenders = theirs(work)
    run = contenders[job] if job in contenders else ours(work, parse_plan(job))
    while request := pipe.recv():
        start = _forget_peak() if request == "measure" else 0
        loss = run()
        pipe.send((loss, _peak_resident() - start))


def _forget_peak() -> int:
    """Give back what is free; return what is left: code, weights and episodes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_resident()


def _peak_resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def bench_cuda(rounds: int, data: Path | None) -> None:
    """One candidate against the peers, a pack of 8 against one, and the share of the limits."""
    device = torch.device("cuda")
    work = omniglot(data)
    contenders = theirs(work, device)
    names, members = set(contenders), {}
    for count, plan in ((1, "vmap"), (1, "vmap+compile"), (8, "vmap"), (8, "vmap+compile")):
        name = f"evometa {plan}, pack of {count}"
        contenders[name] = ours(work, parse_plan(plan), count, device=device)
        members[name] = count
    seconds = in_turn(contenders, rounds)
    title = f"Omniglot conv4-64, 5-way 1-shot, 15 queries, 32 tasks, {device_name(device)}"
    print_rows(title, seconds, names, members)
    rate = _matrix_rate(device)
    with FlopCounterMode(display=False) as counter:
        contenders["plain loop"]()
    with _Traffic() as traffic:
        contenders["evometa vmap, pack of 1"]()
    bandwidth = _bandwidth(device)
    print(
        f"\nmeasured: {rate / 1e12:.1f} TFLOP/s of matrix products, {bandwidth / 1e12:.2f} TB/s of "
        "copies; bytes are those of the operations one by one, which a compiled plan fuses\n\n"
        "| | share of the matrix rate | share of the bandwidth |\n|---|---|---|"
    )
    for name, taken in seconds.items():
        count = members.get(name, 1)
        flops, moved = counter.get_total_flops() * count, traffic.bytes * count
        print(f"| {name} | {flops / taken / rate:.1%} | {moved / taken / bandwidth:.1%} |")


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def _bandwidth(device: torch.device) -> float:
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * source.numel() * source.element_size() / statistics.median(times[1:])


def _matrix_rate(device: torch.device) -> float:
    side = 8192
    a = torch.randn(side, side, device=device)
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=["sinusoid", "omniglot", "family", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=32, help="Omniglot's meta-batch")
    parser.add_argument("--data", type=Path, help="Omniglot; default: drawn glyphs of its size")
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else ["sinusoid", "omniglot", "family"]
    if arguments.only is None and torch.cuda.is_available():
        wanted.append("cuda")
    print(f"torch {torch.__version__}, peers: {', '.join(peers())}")
    if "sinusoid" in wanted:
        bench_sinusoid(arguments.rounds)
    if "omniglot" in wanted:
        bench_omniglot(arguments.rounds, arguments.data, arguments.tasks)
    if "family" in wanted:
        bench_family(arguments.rounds, arguments.data)
    if "cuda" in wanted:
        bench_cuda(arguments.rounds, arguments.data)


if __name__ == "__main__":
    main()
