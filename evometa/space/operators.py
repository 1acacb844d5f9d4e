"""Mutations by name: one for each field of a space, and several for each expression."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evometa.errors import GenomeError, SpaceError
from evometa.records import Genome
from evometa.space import paths
from evometa.space.paths import join
from evometa.space.protocol import Space
from evometa.space.struct import Struct
from evometa.space.tree import OPERATORS, Tree

ATTEMPTS = 20


def operators(space: Space, path: str = "") -> dict[str, Space]:
    """Return the names of a space's mutations, `HOW PATH`, and what each of them changes.

    Fields that have no other value are left out.
    """
    if isinstance(space, Struct):
        found: dict[str, Space] = {}
        for name, inner in space.fields.items():
            found |= operators(inner, join(path, name))
        return found
    if space.size() <= 1:
        return {}
    ways = OPERATORS if isinstance(space, Tree) else ("mutate",)
    return {f"{way} {path}".rstrip(): space for way in ways}


def operate(
    space: Space,
    genome: Genome,
    operator: str,
    rng: np.random.Generator,
    known: Mapping[str, Space] | None = None,
) -> Genome:
    """Return a genome changed by one of the space's mutations.

    Where constraints forbid all its changes that were tried, any other mutation is used.

    Args:
        space: the whole space.
        genome: a valid genome.
        operator: a key of `operators(space)`.
        rng: all randomness.
        known: `operators(space)`, for who has it at hand.
    """
    way, _, path = operator.partition(" ")
    inner = (known or operators(space))[operator]
    old = paths.get(genome, path)
    for _ in range(ATTEMPTS):
        try:
            changed = isinstance(inner, Tree) and inner.operate(way, old, rng)
            child = paths.replace(genome, {path: changed or inner.mutate(old, rng)})
            space.validate(child)
        except (GenomeError, SpaceError):  # outside the constraints, or no way out of the field's
            continue
        return child
    return space.mutate(genome, rng)
