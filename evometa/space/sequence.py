"""Lists of variable length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome
from evometa.space.paths import copied
from evometa.space.protocol import Leaf, Numeric, Space, is_space, pick, refuse, shown


@final
@dataclass(frozen=True)
class List:
    """From `min` to `max` genomes of one space.

    Args:
        item: the space of each element.
        min: shortest length.
        max: longest length.

    Raises:
        SpaceError: if `item` is not a space, or the lengths are not `0 <= min <= max`.
    """

    item: Space
    min: int
    max: int

    def __post_init__(self) -> None:
        if not is_space(self.item):
            raise SpaceError(f"the item of a List must be a space, but got {shown(self.item)}")
        for name, value in (("min", self.min), ("max", self.max)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpaceError(f"`{name}` must be an int, but got ({name}={value!r})")
        if not 0 <= self.min <= self.max:
            raise SpaceError(
                f"`0 <= min <= max` must hold, but got (min={self.min}, max={self.max})"
            )

    def sample(self, rng: np.random.Generator) -> list[Genome]:
        """Draw a length, all equally likely, and the elements."""
        length = self.min + pick(self.max - self.min + 1, rng)
        return [self.item.sample(rng) for _ in range(length)]

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless length and elements fit."""
        length = f"{self.min} to {self.max}" if self.min < self.max else f"{self.min}"
        if not isinstance(genome, list):
            raise refuse(path, f"a list of {length} items", genome)
        if not self.min <= len(genome) <= self.max:
            raise refuse(path, f"a list of {length} items", genome)
        for index, item in enumerate(genome):
            self.item.validate(item, f"{path}[{index}]")

    def size(self) -> float:
        """Return the number of lists."""
        each = self.item.size()
        try:
            return math.fsum(each**length for length in range(self.min, self.max + 1))
        except OverflowError:
            return math.inf

    def moves(self, genome: Genome) -> int:
        """Return how many of insert, delete and swap are possible, and the moves within items."""
        return len(self._reshapings(genome)) + sum(self.item.moves(item) for item in genome)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> list[Genome]:
        """Insert, delete or change an item, or swap two neighbours that differ."""
        new = [copied(item) for item in genome]
        reshapings = self._reshapings(genome)
        weights = [self.item.moves(item) for item in genome]
        move = pick(len(reshapings) + sum(weights), rng)
        if move < len(reshapings):
            self._reshape(new, reshapings[move], rng)
            return new
        move -= len(reshapings)
        for index, weight in enumerate(weights):
            if move < weight:
                new[index] = self.item.mutate(new[index], rng)
                break
            move -= weight
        return new

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> list[Genome]:
        """Join the head of one and the tail of the other, or cross over item by item.

        Items keep their index; the length is that of one parent.
        """
        if rng.random() < 0.5:
            first, second = second, first
        shared = min(len(first), len(second))
        if rng.random() < 0.5:
            cut = pick(shared + 1, rng)
            return [copied(item) for item in (*first[:cut], *second[cut:])]
        new = [self.item.crossover(first[i], second[i], rng) for i in range(shared)]
        return [*new, *map(copied, first[shared:])]

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return the numbers of all items."""
        found: dict[str, Numeric] = {}
        for index, item in enumerate(genome):
            found |= self.item.numeric(item, f"{path}[{index}]")
        return found

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return nothing: items may be absent."""
        return {}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"list": self.item.describe(), "min": self.min, "max": self.max}

    def _reshapings(self, genome: Genome) -> list[str]:
        found = []
        if len(genome) < self.max:
            found.append("insert")
        if len(genome) > self.min:
            found.append("delete")
        if _unequal_neighbours(genome):
            found.append("swap")
        return found

    def _reshape(self, new: list[Genome], how: str, rng: np.random.Generator) -> None:
        if how == "insert":
            new.insert(pick(len(new) + 1, rng), self.item.sample(rng))
        elif how == "delete":
            del new[pick(len(new), rng)]
        else:
            indices = _unequal_neighbours(new)
            index = indices[pick(len(indices), rng)]
            new[index], new[index + 1] = new[index + 1], new[index]


def _unequal_neighbours(genome: Genome) -> list[int]:
    """Return the indices of items that differ from the next one."""
    return [index for index in range(len(genome) - 1) if genome[index] != genome[index + 1]]
