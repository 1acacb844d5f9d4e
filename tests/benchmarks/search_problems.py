"""What searchers are compared on: problems of known optimum, and real few-shot results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evometa.records import Genome, canonical_json
from evometa.space import Choice, Float, Int, List, Space, Struct
from tests.benchmarks import few_shot_table

TABLE = Path(__file__).with_name("few_shot.parquet")


@dataclass(frozen=True)
class Problem:
    """A problem.

    Attributes:
        name: what the table calls it.
        space: what may be proposed.
        losses: true objective values of a genome, to be minimised.
        best: the lowest value of a single objective.
        noise: standard deviation of what is seen of it.
        reference: reference point of the hypervolume, for several objectives.
        ideal: hypervolume of the best front known, for several objectives.
    """

    name: str
    space: Space
    losses: Callable[[Genome], tuple[float, ...]]
    best: float = 0.0
    noise: float = 0.0
    reference: tuple[float, ...] = ()
    ideal: float = 1.0


def separable() -> Problem:
    space = Struct(
        **{f"x{i}": Float(0.0, 1.0) for i in range(4)},
        **{f"k{i}": Choice("a", "b", "c") for i in range(3)},
        n=Int(1, 64, log=True),
    )
    good = (0.21, 0.73, 0.48, 0.9)

    def losses(g: Genome) -> tuple[float, ...]:
        numbers = sum((g[f"x{i}"] - good[i]) ** 2 for i in range(4))
        choices = sum(0.15 * "bca".index(g[f"k{i}"]) for i in range(3))
        return (numbers + choices + 0.2 * (np.log2(g["n"]) / 6 - 4 / 6) ** 2,)

    return Problem("separable", space, losses)


def noisy() -> Problem:
    plain = separable()
    return Problem("noisy", plain.space, plain.losses, noise=0.1)


def deceptive() -> Problem:
    """Traps of three choices: all wrong looks better than two right; one number beside."""
    space = Struct(
        **{f"b{i}": Choice("no", "yes") for i in range(9)}, x=Float(0.0, 1.0), y=Float(0.0, 1.0)
    )

    def losses(g: Genome) -> tuple[float, ...]:
        traps = 0.0
        for block in range(3):
            right = sum(g[f"b{3 * block + i}"] == "yes" for i in range(3))
            traps += (0.4, 0.6, 0.8, 0.0)[right]
        return (traps / 3 + 0.3 * (g["x"] - 0.6) ** 2 + 0.3 * (g["y"] - g["x"]) ** 2,)

    return Problem("deceptive", space, losses)


def conditional() -> Problem:
    """Three families, each with numbers of its own; the best family is bad by default."""
    space = Struct(
        family=Choice(
            conv=Struct(kernel=Int(1, 9, step=2), rate=Float(1e-4, 1.0, log=True)),
            dense=Struct(widths=List(Int(8, 128, step=8), 1, 3), rate=Float(1e-4, 1.0, log=True)),
            attention=Struct(heads=Choice(1, 2, 4, 8), rate=Float(1e-4, 1.0, log=True)),
        ),
        decay=Float(0.0, 1.0),
    )

    def losses(g: Genome) -> tuple[float, ...]:
        ((family, inner),) = g["family"].items()
        rate = np.log10(inner["rate"])
        if family == "conv":
            value = 0.25 + 0.03 * abs(inner["kernel"] - 5) + 0.05 * (rate + 2) ** 2
        elif family == "dense":
            widths = inner["widths"]
            spread = sum(abs(w - 64) for w in widths) / 200
            value = 0.15 + 0.1 * abs(len(widths) - 2) + spread + 0.08 * (rate + 1.5) ** 2
        else:
            value = 0.08 * (3 - np.log2(inner["heads"])) + 0.2 * min((rate + 3) ** 2, 2.0)
        return (value + 0.2 * (g["decay"] - 0.35) ** 2,)

    return Problem("conditional", space, losses)


def mixed() -> Problem:
    """Branin of two numbers that a choice bends, and a whole number that interacts with them."""
    space = Struct(
        x=Float(-5.0, 10.0),
        y=Float(0.0, 15.0),
        bend=Choice("none", "up", "down", "twice"),
        n=Int(1, 8),
        unused=Float(0.0, 1.0),
    )

    def losses(g: Genome) -> tuple[float, ...]:
        x, y = g["x"], g["y"]
        bend = {"none": (5.1, 6.0), "up": (5.6, 7.0), "down": (4.6, 5.0), "twice": (5.1, 9.0)}
        a, r = bend[g["bend"]]
        branin = (y - a / (4 * np.pi**2) * x**2 + 5 / np.pi * x - r) ** 2
        branin += 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10
        extra = {"none": 0.0, "up": 4.0, "down": 3.0, "twice": 6.0}[g["bend"]]
        return (branin - 0.397887 + extra + 0.7 * abs(g["n"] - 3) * (1 + 0.1 * abs(x)),)

    return Problem("mixed", space, losses)


def two_objectives() -> Problem:
    """Error against cost: width and depth pay with falling returns, choices shift the front."""
    space = Struct(
        width=Int(4, 256, log=True),
        depth=Int(1, 6),
        kind=Choice("plain", "skip", "dense"),
        rate=Float(1e-4, 1.0, log=True),
        share=Float(0.0, 1.0),
    )

    def losses(g: Genome) -> tuple[float, ...]:
        kind = {"plain": (1.0, 1.0), "skip": (0.8, 1.15), "dense": (0.7, 1.9)}[g["kind"]]
        cost = g["width"] ** 1.5 * g["depth"] * kind[1] * (0.3 + 0.7 * g["share"])
        power = np.log(1 + g["width"] * (0.2 + 0.8 * g["share"])) * g["depth"] ** 0.5
        error = kind[0] * 4 / (1 + power) + 0.06 * (np.log10(g["rate"]) + 2) ** 2
        return (float(error), float(np.log10(cost)))

    return Problem("two objectives", space, losses, reference=(3.0, 5.0), ideal=5.9)


@cache
def _rows() -> dict[str, dict]:
    table = pq.read_table(TABLE)
    return {row["genome"]: row for row in table.to_pylist()}


def real() -> Problem:
    """Sine waves from five points: the query loss after the whole training."""
    rows = _rows()
    name = f"loss_{few_shot_table.ITERATIONS[-1]}"
    best = min(row[name] for row in rows.values())
    return Problem(
        "few-shot",
        few_shot_table.SPACE,
        lambda genome: (rows[canonical_json(genome)][name],),
        best=best,
    )


def real_front() -> Problem:
    """The same, with the number of parameters as a second objective."""
    rows = _rows()
    name = f"loss_{few_shot_table.ITERATIONS[-1]}"

    def losses(genome: Genome) -> tuple[float, ...]:
        row = rows[canonical_json(genome)]
        return (min(row[name], 10.0), float(np.log10(row["params"])))

    return Problem("few-shot, loss and size", few_shot_table.SPACE, losses, reference=(4.0, 4.0))


SINGLE = (separable, noisy, deceptive, conditional, mixed, real)
FRONTS = (two_objectives, real_front)
