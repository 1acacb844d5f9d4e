"""What a searcher costs its driver, and how busy it keeps simulated workers."""

from __future__ import annotations

import heapq
import resource
import time
from collections import deque
from pathlib import Path

import numpy as np

from evometa.budget import Budget, Meter
from evometa.execute import Simulated
from evometa.records import Candidate, Evaluation, Status, derive_seed
from evometa.run import Schedule, Search
from evometa.search import RungRole, Wishes, make_searcher
from evometa.space import Choice, Float, Int, List, Struct
from tests.benchmarks.search_rungs import _Nobody

SPACE = Struct(
    hidden=List(Int(8, 80, step=8), 1, 3),
    activation=Choice("relu", "tanh", "silu"),
    rate=Float(0.001, 1, log=True),
    decay=Float(0.0, 1.0),
    steps=Int(1, 5),
)
NUMBERS = Struct(**{f"x{i}": Float(0.0, 1.0) for i in range(10)})
OBJECTIVES = {"loss": "min", "params": "min"}
TOLD = 10_000
LAST = 500
WAITING = 64


def outcome(candidate: Candidate) -> Evaluation:
    """Return a cheap result of a genome of either space."""
    genome = candidate.genome
    if "x0" in genome:
        loss = sum((genome[name] - 0.3) ** 2 for name in genome)
        return Evaluation(candidate, Status.OK, {"loss": loss, "params": 1.0})
    size = float(sum(genome["hidden"]))
    loss = abs(np.log10(genome["rate"]) + 2) + 10 / size + (genome["activation"] != "silu")
    return Evaluation(candidate, Status.OK, {"loss": float(loss), "params": size})


def megabytes() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def bench_cost() -> None:
    """The time of an ask and a tell at 10,000 told with 64 waiting, and the memory it took."""
    print(
        f"\n| ms an ask + tell, {WAITING} waiting | at 1,000 told | at {TOLD:,} told | MB grown |"
    )
    print("|---|---|---|---|")
    for name in ("hybrid", "evolution", "mu+lambda", "nsga2", "nsga3", "local", "cma-es", "random"):
        space = NUMBERS if name == "cma-es" else SPACE
        levels = (RungRole(), RungRole(), RungRole())
        for wishes, label in ((Wishes(), name), (Wishes(levels=levels), f"{name}, three rungs")):
            if len(wishes.levels) > 1 and name != "hybrid":
                continue
            searcher = make_searcher(name, space, OBJECTIVES, 0, wishes)
            waiting = deque(searcher.ask(WAITING))
            marks, memory = {}, 0.0
            for told in range(WAITING, TOLD + LAST + 1):
                if told in (1000, 1000 + LAST, TOLD, TOLD + LAST):
                    marks[told] = time.perf_counter()
                    memory = memory or megabytes()
                searcher.tell([outcome(waiting.popleft())])
                waiting += searcher.ask(1)
            early = (marks[1000 + LAST] - marks[1000]) / LAST * 1e3
            late = (marks[TOLD + LAST] - marks[TOLD]) / LAST * 1e3
            grown = megabytes() - memory
            print(f"| {label} | {early:.2f} | {late:.2f} | {grown:.0f} |", flush=True)


def free_running(slots: int, sigma: float, count: int) -> float:
    """Return the utilisation of workers that take the next candidate whenever they are free."""
    ends = [0.0] * slots
    busy = 0.0
    for number in range(count):
        seconds = run_time(number, sigma)
        busy += seconds
        heapq.heapreplace(ends, ends[0] + seconds)
    return busy / (max(ends) * slots)


def run_time(number: int, sigma: float) -> float:
    """Return a log-normal run time of mean 1, the same for a candidate's number every time."""
    rng = np.random.default_rng(derive_seed("run time", number))
    return float(np.exp(sigma * rng.standard_normal() - sigma**2 / 2))


def busy_share(order: str, slots: int, sigma: float, count: int, window: int) -> float:
    """Return the utilisation of simulated workers in a search by evolution."""
    executor = Simulated(
        lambda pack: [outcome(c) for c in pack], lambda c: run_time(c.number, sigma), slots
    )
    searcher = make_searcher("evolution", SPACE, OBJECTIVES, 0, Wishes(count))
    meter = Meter(Budget(), OBJECTIVES)
    schedule = Schedule(window, order)  # type: ignore[arg-type]
    Search(searcher, executor, _Forgetful(), _Nobody(), meter, schedule).run()
    return executor.utilisation


class _Forgetful:
    """Keeps nothing."""

    def append(self, evaluation: Evaluation, told: int) -> None:
        """Do nothing."""

    def recall(self, number: int, rung: int, repeat: int) -> Evaluation:
        raise KeyError((number, rung, repeat))


def bench_utilisation() -> None:
    """Busy shares of simulated workers for both orders, next to the free-running bound."""
    print("\n| slots | sigma | bound | logical, window 2x | logical, 4x | arrival |")
    print("|---|---|---|---|---|---|")
    for slots in (4, 16, 64, 1000):
        count = max(1000, 12 * slots)
        for sigma in (0.3, 0.6, 1.0):
            cells = [free_running(slots, sigma, count)]
            for order, window in (("logical", 2), ("logical", 4), ("arrival", 2)):
                cells.append(busy_share(order, slots, sigma, count, window * slots))
            texts = " | ".join(f"{cell:.0%}" for cell in cells)
            print(f"| {slots:,} | {sigma} | {texts} |", flush=True)


def bench_scale(count: int = 100_000, slots: int = 1000) -> None:
    """The whole loop at 100,000 candidates on 1,000 simulated workers."""
    print(f"\n| {count:,} candidates, {slots:,} slots | minutes | ms a candidate | MB grown |")
    print("|---|---|---|---|")
    for name in ("evolution", "hybrid"):
        memory, started = megabytes(), time.perf_counter()
        executor = Simulated(
            lambda pack: [outcome(c) for c in pack], lambda c: run_time(c.number, 0.6), slots
        )
        searcher = make_searcher(name, SPACE, OBJECTIVES, 0, Wishes(count))
        meter, schedule = Meter(Budget(), OBJECTIVES), Schedule(2 * slots, "arrival")
        Search(searcher, executor, _Forgetful(), _Nobody(), meter, schedule).run()
        seconds = time.perf_counter() - started
        grown = megabytes() - memory
        print(
            f"| {name} | {seconds / 60:.1f} | {seconds / count * 1e3:.2f} | {grown:.0f} |",
            flush=True,
        )
