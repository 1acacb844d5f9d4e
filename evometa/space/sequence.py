"""Lists of variable length."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome
from evometa.space.protocol import Space, refuse


@dataclass(frozen=True)
class List:
    """From `min` to `max` genomes of one space.

    Args:
        item: the space of each element.
        min: shortest length.
        max: longest length.

    Raises:
        SpaceError: if the lengths are not `0 <= min <= max`.
    """

    item: Space
    min: int
    max: int

    def __post_init__(self) -> None:
        if not isinstance(self.item, Space):
            raise SpaceError(f"the item of a List must be a space, got {self.item!r}")
        if not 0 <= self.min <= self.max:
            raise SpaceError(
                f"`0 <= min <= max` must hold, but got (min={self.min!r}, max={self.max!r})"
            )

    @property
    def type(self) -> type:
        """`str`."""
        return str

    def sample(self, rng: np.random.Generator) -> list[Genome]:
        """Draw a length, all equally likely, and the elements."""
        return [self.item.sample(rng) for _ in range(int(rng.integers(self.min, self.max + 1)))]

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless length and elements fit."""
        if not isinstance(genome, list):
            raise refuse(path, "a list", genome)
        if not self.min <= len(genome) <= self.max:
            raise refuse(path, f"a list of {self.min} to {self.max} items", genome)
        for index, item in enumerate(genome):
            self.item.validate(item, f"{path}[{index}]")

    def size(self) -> float:
        """Return the number of lists."""
        each = self.item.size()
        if each == float("inf"):
            return 1.0 if self.max == 0 else each
        try:
            return float(sum(int(each) ** n for n in range(self.min, self.max + 1)))
        except OverflowError:
            return float("inf")

    def mutate(self, genome: Genome, rng: np.random.Generator) -> list[Genome]:
        """Insert, delete or change one element."""
        moves = []
        if len(genome) < self.max:
            moves.append("insert")
        if len(genome) > self.min:
            moves.append("delete")
        if genome and self.item.size() > 1:
            moves += ["change"] * 2
        new = copy.deepcopy(genome)
        if not moves:
            return list(new)
        move = moves[int(rng.integers(len(moves)))]
        if move == "insert":
            new.insert(int(rng.integers(len(new) + 1)), self.item.sample(rng))
        elif move == "delete":
            del new[int(rng.integers(len(new)))]
        else:
            index = int(rng.integers(len(new)))
            new[index] = self.item.mutate(new[index], rng)
        return list(new)

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> list[Genome]:
        """Take the length of one parent; cross over the elements that both have."""
        if rng.random() < 0.5:
            first, second = second, first
        shared = min(len(first), len(second))
        new = [self.item.crossover(first[i], second[i], rng) for i in range(shared)]
        return [*new, *copy.deepcopy(first[shared:])]

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return the leaves of all elements."""
        found: dict[str, Space] = {}
        for index, item in enumerate(genome):
            found |= self.item.leaves(item, f"{path}[{index}]")
        return found

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return nothing: elements may be absent."""
        return {}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"list": self.item.describe(), "min": self.min, "max": self.max}
