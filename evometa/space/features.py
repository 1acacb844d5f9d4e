"""What a model of good and bad genomes sees of them: named numbers, for any space."""

from __future__ import annotations

import math

from evometa.records import Genome, canonical_json
from evometa.space.choice import Choice
from evometa.space.numeric import Float, Int
from evometa.space.paths import join
from evometa.space.protocol import Space
from evometa.space.sequence import List
from evometa.space.struct import Struct
from evometa.space.tree import Tree

Features = dict[tuple[str, str], float]
"""`(gene, detail)` to a number; details that a genome lacks are 0. A gene's path is without places
in lists, so that the third layer's width and the first one's count as one gene."""

APART = math.sqrt(0.5)  # two values of a choice lie at distance 1 from each other


def features(space: Space, genome: Genome) -> Features:
    """Return a genome's features, each within [-1, 1].

    Numbers are their places in the range. The values and branches of a choice are told apart, the
    lengths of lists counted; of an expression, its size and how often it uses each primitive.

    Args:
        space: the space.
        genome: a valid genome.
    """
    found: Features = {}
    _collect(space, genome, "", "", found)
    return found


def _collect(space: Space, genome: Genome, gene: str, place: str, found: Features) -> None:
    if isinstance(space, Struct):
        for name, inner in space.fields.items():
            _collect(inner, genome[name], join(gene, name), join(place, name), found)
    elif isinstance(space, Float | Int):
        found[gene, place] = space.to_unit(genome) - 0.5
        if "[" in place or "/" in place:  # that it is there is a feature where it may be missing
            found[gene, f"{place}?"] = APART
    elif isinstance(space, Choice):
        if isinstance(genome, dict):
            ((name, inner_genome),) = genome.items()
            found[gene, f"{place}={name}"] = APART
            inner = space.branches[name]
            _collect(inner, inner_genome, join(gene, name), f"{join(place, name)}/", found)
        else:
            found[gene, f"{place}={canonical_json(genome)}"] = APART
    elif isinstance(space, List):
        span = max(1, space.max - space.min)
        found[f"{gene}#", f"{place}#"] = (len(genome) - space.min) / span - 0.5
        for index, item in enumerate(genome):
            _collect(space.item, item, f"{gene}[]", f"{place}[{index}]", found)
    elif isinstance(space, Tree):
        found[f"{gene}#", f"{place}#"] = len(genome) / space.size_limit - 0.5
        for token in genome:
            word = token if isinstance(token, str) else "number"
            # the second use of an operation tells less than the first
            found[gene, f"{place}:{word}"] = 0.5 * (1 + found.get((gene, f"{place}:{word}"), 0.0))
    else:
        found[gene, f"{place}={canonical_json(genome)}"] = APART
