"""What every space offers. Anything that follows `Space` nests anywhere."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from evometa.errors import GenomeError
from evometa.records import Genome


@runtime_checkable
class Space(Protocol):
    """A set of genomes.

    All methods return new plain data that shares nothing mutable with what came in. Genomes given
    to any method but `validate` must be valid. All randomness comes from `rng`.
    """

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw a genome.

        Raises:
            SpaceError: if no genome satisfies the constraints in many attempts.
        """
        ...

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError`, beginning with the offender's path, unless the genome is inside."""
        ...

    def size(self) -> float:
        """Return the number of genomes, constraints not counted; infinite with any `Float`."""
        ...

    def moves(self, genome: Genome) -> int:
        """Return in how many places the genome can be mutated: 0 just where `size()` is 1."""
        ...

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Return a genome changed in one place, all equally likely; a copy if there is no other.

        Raises:
            SpaceError: if no mutant satisfies the constraints in many attempts.
        """
        ...

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Return a genome made of parts of both."""
        ...

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return the spaces of the genome's numbers, by path; the numbers may be left out (None).

        Genomes of equal structure have equal ones.
        """
        ...

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return the genes that every genome has, by path: none inside a list or a branch."""
        ...

    def describe(self) -> Any:
        """Return the space as plain data, for a reader and for comparison."""
        ...


@runtime_checkable
class Leaf(Space, Protocol):
    """A space whose genome is one value of a table."""

    @property
    def type(self) -> type:
        """Type of the values in a table: `int`, `float`, `bool` or `str`; any may be None."""
        ...


@runtime_checkable
class Numeric(Leaf, Protocol):
    """A space of numbers that maps to the unit interval."""

    def to_unit(self, value: Any) -> float:
        """Return the place of a value in [0, 1]."""
        ...

    def from_unit(self, unit: float) -> Any:
        """Return the value at a place in [0, 1]; undoes `to_unit`."""
        ...


def is_space(value: object) -> TypeGuard[Space]:
    """Tell whether a value is a space; a class of spaces, such as `Int`, is none."""
    return isinstance(value, Space) and not isinstance(value, type)


def refuse(path: str, must: str, got: Any) -> GenomeError:
    """Return the error for a value at a path."""
    return GenomeError(f"{path or 'genome'}: must be {must}, got {shown(got)}")


def shown(value: Any) -> str:
    """Return a value as an error shows it: at most 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def pick(n: int, rng: np.random.Generator) -> int:
    """Draw one of `0, ..., n - 1`; several times faster than `rng.integers`."""
    return int(rng.random() * n)
