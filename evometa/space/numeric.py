"""Whole and real numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome
from evometa.space.protocol import Space, refuse

STEP = 0.2  # standard deviation of a mutation, as a share of the (log) range


@dataclass(frozen=True)
class Int:
    """Whole numbers `low, low + step, ..., <= high`.

    Args:
        low: smallest value.
        high: largest value; lowered to the last one that a step reaches.
        step: distance between values; 1 with `log`.
        log: draw and mutate on a logarithmic scale.

    Raises:
        SpaceError: if the range is empty or its arguments do not fit.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise SpaceError(f"`{name}` must be an int, but got ({name}={value!r})")
        _check_range(self.low, self.high, self.log)
        if self.step < 1 or (self.log and self.step != 1):
            raise SpaceError(
                f"`step >= 1` must hold, and `step == 1` with log, but got (step={self.step})"
            )
        object.__setattr__(self, "high", self.high - (self.high - self.low) % self.step)

    @property
    def type(self) -> type:
        """`int`."""
        return int

    def sample(self, rng: np.random.Generator) -> int:
        """Draw a value: uniformly, or log-uniformly."""
        return self.from_unit(rng.random())

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the value is one of the range's."""
        inside = isinstance(genome, int) and not isinstance(genome, bool)
        if not (inside and self.low <= genome <= self.high and not (genome - self.low) % self.step):
            step = f" in steps of {self.step}" if self.step > 1 else ""
            raise refuse(path, f"an int from {self.low} to {self.high}{step}", genome)

    def size(self) -> float:
        """Return the number of values."""
        return (self.high - self.low) // self.step + 1

    def mutate(self, genome: Genome, rng: np.random.Generator) -> int:
        """Return a nearby value that differs, if there is one."""
        if self.low == self.high:
            return self.low
        near = self.from_unit(min(1.0, max(0.0, self.to_unit(genome) + STEP * rng.normal())))
        if near != genome:
            return near
        moves: list[int] = [
            v for v in (genome - self.step, genome + self.step) if self.low <= v <= self.high
        ]
        return moves[int(rng.integers(len(moves)))]

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> int:
        """Return one of the two values."""
        return int(first if rng.random() < 0.5 else second)

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return itself."""
        return {path: self}

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"int": [self.low, self.high], "step": self.step, "log": self.log}

    def to_unit(self, value: int) -> float:
        """Return the middle of the value's share of [0, 1]."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(value) - low) / (high - low)
        return ((value - self.low) / self.step + 0.5) / self.size()

    def from_unit(self, unit: float) -> int:
        """Return the value whose share of [0, 1] holds `unit`."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(self.high, max(self.low, round(math.exp(low + unit * (high - low)))))
        return self.low + self.step * min(int(self.size()) - 1, int(unit * self.size()))


@dataclass(frozen=True)
class Float:
    """Real numbers from `low` to `high`.

    Args:
        low: smallest value.
        high: largest value.
        log: draw and mutate on a logarithmic scale; needs `low > 0`.

    Raises:
        SpaceError: if the range is empty or not finite.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SpaceError(f"`{name}` must be a number, but got ({name}={value!r})")
            if not math.isfinite(value):
                raise SpaceError(f"`{name}` must be finite, but got ({name}={value!r})")
            object.__setattr__(self, name, float(value))
        _check_range(self.low, self.high, self.log)

    @property
    def type(self) -> type:
        """`float`."""
        return float

    def sample(self, rng: np.random.Generator) -> float:
        """Draw a value: uniformly, or log-uniformly."""
        return self.from_unit(rng.random())

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the value is a float within the range."""
        if not (isinstance(genome, float) and self.low <= genome <= self.high):
            raise refuse(path, f"a float from {self.low:g} to {self.high:g}", genome)

    def size(self) -> float:
        """Return infinity, or 1 if there is one value."""
        return math.inf if self.low < self.high else 1

    def mutate(self, genome: Genome, rng: np.random.Generator) -> float:
        """Return a nearby value that differs, if there is one."""
        if self.low == self.high:
            return self.low
        near = self.from_unit(min(1.0, max(0.0, self.to_unit(genome) + STEP * rng.normal())))
        return near if near != genome else self.sample(rng)

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> float:
        """Return one of the two values."""
        return float(first if rng.random() < 0.5 else second)

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return itself."""
        return {path: self}

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"float": [self.low, self.high], "log": self.log}

    def to_unit(self, value: float) -> float:
        """Return the value's place in [0, 1], on the (log) range."""
        if self.low == self.high:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def from_unit(self, unit: float) -> float:
        """Return the value at a place in [0, 1]."""
        if self.log:
            value = self.low * math.exp(unit * math.log(self.high / self.low))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(self.high, max(self.low, value))


def _check_range(low: float, high: float, log: bool) -> None:
    if low > high:
        raise SpaceError(f"`low <= high` must hold, but got (low={low!r}, high={high!r})")
    if log and low <= 0:
        raise SpaceError(f"`low > 0` must hold with log, but got (low={low!r})")
