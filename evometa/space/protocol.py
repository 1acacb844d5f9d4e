"""What every space offers. Anything that follows it nests anywhere."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from evometa.errors import GenomeError
from evometa.records import Genome


@runtime_checkable
class Space(Protocol):
    """A set of genomes. All methods return new plain data and change nothing."""

    @property
    def type(self) -> type:
        """Python type of the value in a table: `int`, `float`, `str`, `bool`."""
        ...

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw a genome."""
        ...

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError`, beginning with the offender's path, unless the genome is inside."""
        ...

    def size(self) -> float:
        """Return the number of genomes, constraints not counted; infinite with any `Float`."""
        ...

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Return a genome that differs in one place, wherever there is another genome."""
        ...

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Return a genome with parts of both."""
        ...

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return the spaces of the genome's scalar values, by path."""
        ...

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return the genes that every genome has, by path: none inside a list or a branch."""
        ...

    def describe(self) -> Any:
        """Return the space as plain data."""
        ...


def refuse(path: str, must: str, got: Any) -> GenomeError:
    """Return the error for a value at a path."""
    return GenomeError(f"{path or 'genome'}: must be {must}, got {got!r}")


def join(path: str, field: str) -> str:
    """Return the path of a field."""
    return f"{path}.{field}" if path else field
