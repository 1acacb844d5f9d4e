"""Device-seconds to a given regret, with rungs and without, on the real few-shot table.

Every training time is the one that was measured when the table was made; a promotion costs what
the rungs below it do not have yet. The clock is simulated, with eight workers.
"""

from __future__ import annotations

import statistics

import numpy as np

from evometa.budget import Budget, Meter
from evometa.execute import Simulated
from evometa.records import Candidate, Evaluation, Status, canonical_json
from evometa.run import Schedule, Search
from evometa.search import RungRole, Wishes, make_searcher
from tests.benchmarks.few_shot_table import ITERATIONS, SPACE
from tests.benchmarks.search_problems import _rows

OBJECTIVES = {"loss": "min"}
GOALS = (0.2, 0.1, 0.05)
SLOTS = 8
VARIANTS = {
    "full length": ((ITERATIONS[-1],), (RungRole(),)),
    "two rungs: 135, 405": ((135, 405), (RungRole(), RungRole())),
    "three rungs: 45, 135, 405": ((45, 135, 405), (RungRole(), RungRole(), RungRole())),
    "look ahead, then two": ((0, 135, 405), (RungRole(look_ahead=True), RungRole(), RungRole())),
}


class _Nobody:
    def recorded(self, evaluation: Evaluation) -> None:
        """Do nothing."""

    found = recorded

    def tick(self) -> None:
        """Do nothing."""


class _Line:
    """Keeps the best loss at full length after so many device-seconds."""

    def __init__(self, top: int) -> None:
        self._top, self.seconds, self.best = top, 0.0, np.inf
        self.points: list[tuple[float, float]] = []

    def append(self, evaluation: Evaluation, told: int) -> None:
        self.seconds += evaluation.seconds
        if evaluation.candidate.rung == self._top:
            self.best = min(self.best, evaluation.metrics["loss"])
            self.points.append((self.seconds, self.best))

    def recall(self, number: int, rung: int, repeat: int) -> Evaluation:
        raise KeyError((number, rung, repeat))


def seconds_of(row: dict, begin: int | None, end: int) -> float:
    """Return the seconds from one rung to another: the gate, training, and one scoring.

    The table was made by scoring at each of its fidelities; the time of one scoring is what the
    shortest training took at most.
    """
    scoring = min(row["seconds_0"], row[f"seconds_{ITERATIONS[1]}"])
    gate = row["seconds_0"] if begin is None else 0.0  # with a scoring
    lengths = [k for k in ITERATIONS[1:] if (begin or 0) < k <= end]
    training = sum(max(0.0, row[f"seconds_{k}"] - scoring) for k in lengths)
    return float(gate + training + (0.0 if begin is None else scoring))


def seconds_to(goals: list[float], variant: str, name: str, seed: int, most: float) -> list[float]:
    """Return the device-seconds until the best loss at full length is below each goal."""
    lengths, levels = VARIANTS[variant]
    rows = _rows()

    def cost(candidate: Candidate) -> float:
        begin = lengths[candidate.rung - 1] if candidate.rung else None
        return seconds_of(rows[canonical_json(candidate.genome)], begin, lengths[candidate.rung])

    def evaluate(pack: list[Candidate]) -> list[Evaluation]:
        found = []
        for candidate in pack:
            row = rows[canonical_json(candidate.genome)]
            loss = row[f"loss_{lengths[candidate.rung]}"]
            metrics = {"loss": loss}
            found.append(
                Evaluation(candidate, Status.OK, metrics, (loss,), seconds=cost(candidate))
            )
        return found

    line = _Line(len(levels) - 1)
    searcher = make_searcher(name, SPACE, OBJECTIVES, seed, Wishes(5000, levels=levels))
    meter = Meter(Budget(device_seconds=most), OBJECTIVES)
    executor = Simulated(evaluate, cost, SLOTS)
    Search(searcher, executor, line, _Nobody(), meter, Schedule(2 * SLOTS, "arrival")).run()
    return [next((s for s, best in line.points if best <= goal), most) for goal in goals]


def bench(seeds: int) -> None:
    """Print medians over seeds."""
    best = min(row[f"loss_{ITERATIONS[-1]}"] for row in _rows().values())
    goals = [best + goal for goal in GOALS]
    most = 150.0  # some 240 candidates at full length
    for name in ("hybrid", "evolution", "random"):
        heads = " | ".join(f"regret {goal}" for goal in GOALS)
        print(f"\n| {name}, device-seconds to | {heads} |\n|---|---|---|---|")
        base: list[float] = []
        for variant in VARIANTS:
            found = [seconds_to(goals, variant, name, seed, most) for seed in range(seeds)]
            medians = [statistics.median(column) for column in zip(*found, strict=True)]
            base = base or medians
            cells = [
                f"{'> ' if value >= most else ''}{value:.0f} s ({value / full:.2f})"
                for value, full in zip(medians, base, strict=True)
            ]
            print(f"| {variant} | {' | '.join(cells)} |", flush=True)
    print(f"\nMedians over {seeds} seeds; in brackets as a share of full length.")
