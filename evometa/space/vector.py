"""The fixed numeric sub-space of a genome: what a numeric sampler may move.

A genome's *structure* is all that is not an `Int` or `Float`; the rest is a vector in the unit
cube. Genomes of equal structure share one numeric sub-space.
"""

from __future__ import annotations

from collections.abc import Sequence

from evometa.records import Genome
from evometa.space.numeric import Float, Int
from evometa.space.paths import get, replace
from evometa.space.protocol import Space


def numeric(genome: Genome, space: Space) -> dict[str, Int | Float]:
    """Return the numeric genes of a genome, by path."""
    leaves = space.leaves(genome)
    return {path: leaf for path, leaf in leaves.items() if isinstance(leaf, Int | Float)}


def structure(genome: Genome, space: Space) -> Genome:
    """Return the genome with its numbers left out (None): equal for equal structures."""
    return replace(genome, dict.fromkeys(numeric(genome, space)))


def encode(genome: Genome, space: Space) -> list[float]:
    """Return a genome's numbers in [0, 1], in the order of `numeric`."""
    return [leaf.to_unit(get(genome, path)) for path, leaf in numeric(genome, space).items()]


def decode(genome: Genome, vector: Sequence[float], space: Space) -> Genome:
    """Return a genome of the same structure with the numbers of a vector in [0, 1]."""
    genes = numeric(genome, space)
    values = zip(genes.items(), vector, strict=True)
    return replace(genome, {path: leaf.from_unit(unit) for (path, leaf), unit in values})
