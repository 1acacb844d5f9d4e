"""Find what is inside a space."""

from __future__ import annotations

from collections.abc import Iterator

from evometa.space.choice import Choice
from evometa.space.protocol import Space
from evometa.space.sequence import List
from evometa.space.struct import Struct
from evometa.space.tree import Tree


def trees(space: Space) -> Iterator[Tree]:
    """Yield the expressions within a space, however deep."""
    if isinstance(space, Tree):
        yield space
    elif isinstance(space, Struct):
        for inner in space.fields.values():
            yield from trees(inner)
    elif isinstance(space, Choice):
        for inner in space.branches.values():
            yield from trees(inner)
    elif isinstance(space, List):
        yield from trees(space.item)
