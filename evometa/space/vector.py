"""A genome's numbers as a vector in the unit cube: what a numeric sampler may move.

A genome's *structure* is all that is not an `Int` or `Float`. Genomes of equal structure share one
fixed numeric sub-space, `space.numeric(genome)`, in whose order the vectors are.
"""

from __future__ import annotations

from collections.abc import Sequence

from evometa.errors import GenomeError
from evometa.records import Genome
from evometa.space.paths import get, replace
from evometa.space.protocol import Space


def structure(genome: Genome, space: Space) -> Genome:
    """Return the genome with its numbers left out (None): equal for equal structures."""
    return replace(genome, dict.fromkeys(space.numeric(genome)))


def encode(genome: Genome, space: Space) -> list[float]:
    """Return a genome's numbers.

    Args:
        genome: a valid genome.
        space: the space that it lies in.

    Returns:
        One float in [0, 1] for each key of `space.numeric(genome)`: logarithmic for numbers with
        `log`, the middle of the value's share for whole numbers.
    """
    return [leaf.to_unit(get(genome, path)) for path, leaf in space.numeric(genome).items()]


def decode(genome: Genome, vector: Sequence[float], space: Space) -> Genome:
    """Return a genome of the same structure with other numbers; undoes `encode`.

    Whole numbers, and all numbers made by spaces, come back exactly; real numbers written by hand
    come back to ten digits. The constraints of the space are not asked: `validate` does that.

    Args:
        genome: a valid genome, or the `structure` of one.
        vector: one number in [0, 1] for each key of `space.numeric(genome)`.
        space: the space that the genome lies in.

    Raises:
        GenomeError: if the vector has another length or leaves [0, 1].
    """
    numeric = space.numeric(genome)
    if len(vector) != len(numeric):
        raise GenomeError(
            f"genome: the vector must hold {len(numeric)} numbers, one for each of "
            f"{', '.join(map(repr, numeric)) or 'no genes'}, got {len(vector)}"
        )
    values = {}
    for (path, leaf), unit in zip(numeric.items(), vector, strict=True):
        if not 0 <= unit <= 1:
            raise GenomeError(
                f"{path or 'genome'}: must be decoded from a number in [0, 1], got {unit!r}"
            )
        values[path] = leaf.from_unit(float(unit))
    return replace(genome, values)
