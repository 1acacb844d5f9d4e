"""Whole and real numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome
from evometa.space.protocol import Leaf, Numeric, refuse

SPREAD = 0.2  # standard deviation of a mutation, as a share of the (log) range
AFRESH = 0.1  # share of mutations that draw a new value, so that no value is far from any other
LARGEST = 2**40  # whole numbers up to here keep apart in the unit interval, also with log
HUGE = 1e300  # real numbers are rounded, which must not overflow
DIGITS = 10  # real numbers are made with so many, so that they survive the unit interval exactly


@final
@dataclass(frozen=True)
class Int:
    """Whole numbers `low, low + step, ..., <= high`.

    Args:
        low: smallest value.
        high: largest value; lowered to the last one that a step reaches.
        step: distance between values; 1 with `log`.
        log: draw and mutate on a logarithmic scale; needs `low > 0`.

    Raises:
        SpaceError: if the range is empty or the arguments do not fit together.
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
        if max(-self.low, self.high) > LARGEST:
            raise SpaceError(
                f"whole numbers must lie within 2**40 of 0, but got (low={self.low}, "
                f"high={self.high}); use a Float for larger ones"
            )
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
        inside = type(genome) is int and self.low <= genome <= self.high
        if not inside or (genome - self.low) % self.step:
            step = f" in steps of {self.step}" if self.step > 1 else ""
            raise refuse(path, f"an int from {self.low} to {self.high}{step}", genome)

    def size(self) -> float:
        """Return the number of values."""
        return float(self._count())

    def moves(self, genome: Genome) -> int:
        """Return 1, or 0 if there is one value."""
        return int(self.low < self.high)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> int:
        """Return another value, mostly a near one."""
        if self.low == self.high:
            return self.low
        near = self.from_unit(_nearby(self.to_unit(genome), rng))
        if near != genome:
            return near
        up = genome == self.low or (genome != self.high and rng.random() < 0.5)
        return int(genome + self.step if up else genome - self.step)

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> int:
        """Return one of the two values."""
        return int(first if rng.random() < 0.5 else second)

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return itself."""
        return {path: self}

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"int": [self.low, self.high], "step": self.step, "log": self.log}

    def to_unit(self, value: int) -> float:
        """Return the middle of the value's share of [0, 1]."""
        if self.log:
            low, high = self._log_ends()
            return (math.log(value) - low) / (high - low)
        return ((value - self.low) // self.step + 0.5) / self._count()

    def from_unit(self, unit: float) -> int:
        """Return the value whose share of [0, 1] holds `unit`."""
        if self.log:
            low, high = self._log_ends()
            return min(self.high, max(self.low, round(math.exp(low + unit * (high - low)))))
        return self.low + self.step * min(self._count() - 1, int(unit * self._count()))

    def _count(self) -> int:
        return (self.high - self.low) // self.step + 1

    def _log_ends(self) -> tuple[float, float]:
        # half a value beyond the ends: the first and the last get a full share
        return math.log(self.low - 0.5), math.log(self.high + 0.5)


@final
@dataclass(frozen=True)
class Float:
    """Real numbers from `low` to `high`.

    Values made here have at most ten digits (of the range, and with `log` of the value), which
    keeps tables readable and lets `encode` and `decode` undo each other exactly. The canonical form
    is a float; a genome written by hand may hold an int in range.

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
            if not abs(value) <= HUGE:
                raise SpaceError(
                    f"`{name}` must be finite and within 1e300 of 0, but got ({name}={value!r})"
                )
            object.__setattr__(self, name, float(value) + 0.0)  # no negative zero
        _check_range(self.low, self.high, self.log)
        width = self.high - self.low
        if not math.isfinite(width / self.low if self.log else width):
            raise SpaceError(
                f"`high {'/' if self.log else '-'} low` must be finite, "
                f"but got (low={self.low}, high={self.high})"
            )

    @property
    def type(self) -> type:
        """`float`."""
        return float

    def sample(self, rng: np.random.Generator) -> float:
        """Draw a value: uniformly, or log-uniformly."""
        return self.from_unit(rng.random())

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the value is a number within the range."""
        if type(genome) not in (int, float) or not self.low <= genome <= self.high:
            raise refuse(path, f"a float from {self.low!r} to {self.high!r}", genome)

    def size(self) -> float:
        """Return infinity, or 1 if there is one value."""
        return math.inf if self.low < self.high else 1.0

    def moves(self, genome: Genome) -> int:
        """Return 1, or 0 if there is one value."""
        return int(self.low < self.high)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> float:
        """Return another value, mostly a near one."""
        if self.low == self.high:
            return self.low
        near = self.from_unit(_nearby(self.to_unit(genome), rng))
        if near != genome:
            return near
        return self.high if genome == self.low else self.low  # the range holds very few floats

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> float:
        """Return one of the two values."""
        return float(first if rng.random() < 0.5 else second)

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return itself."""
        return {path: self}

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        return {"float": [self.low, self.high], "log": self.log}

    def to_unit(self, value: float) -> float:
        """Return the value's place in [0, 1], on the (log) range."""
        if self.low == self.high:
            return 0.0
        above, width = value - self.low, self.high - self.low
        if self.log:  # log1p and expm1 keep their digits where high is close to low
            return math.log1p(above / self.low) / math.log1p(width / self.low)
        return above / width

    def from_unit(self, unit: float) -> float:
        """Return the value at a place in [0, 1], with ten digits."""
        width = self.high - self.low
        if unit <= 0 or width == 0:
            return self.low
        if unit >= 1:
            return self.high
        if self.log:
            value = self.low + self.low * math.expm1(unit * math.log1p(width / self.low))
            scale = min(value, width)
        else:
            value = self.low + unit * width
            scale = width
        value = round(value, DIGITS - 1 - math.floor(math.log10(scale))) + 0.0
        return min(self.high, max(self.low, value))


def _nearby(unit: float, rng: np.random.Generator) -> float:
    """Draw a place near another one; what would leave [0, 1] is reflected at its ends."""
    if rng.random() < AFRESH:
        return rng.random()
    return 1.0 - abs(1.0 - abs(unit + SPREAD * rng.standard_normal()) % 2.0)


def _check_range(low: float, high: float, log: bool) -> None:
    if not isinstance(log, bool):
        raise SpaceError(f"`log` must be True or False, but got (log={log!r})")
    if low > high:
        raise SpaceError(f"`low <= high` must hold, but got (low={low!r}, high={high!r})")
    if log and low <= 0:
        raise SpaceError(f"`low > 0` must hold with log, but got (low={low!r})")
