"""What rules may be proposed, and the published ones among them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from evometa.errors import SpaceError
from evometa.space import Choice, Float, Int, Space, Struct

PRESETS = MappingProxyType(
    {
        "maml": {"steps": 1, "rate": 0.01, "order": 2, "rates": "fixed", "adapts": "all"},
        "fomaml": {"steps": 1, "rate": 0.01, "order": 1, "rates": "fixed", "adapts": "all"},
        "anil": {"steps": 1, "rate": 0.01, "order": 2, "rates": "fixed", "adapts": "head"},
        "boil": {"steps": 1, "rate": 0.01, "order": 2, "rates": "fixed", "adapts": "body"},
        "meta-sgd": {"steps": 1, "rate": 0.01, "order": 2, "rates": "parameter", "adapts": "all"},
    }
)


def rule_space(
    *,
    steps: Space | None = None,
    rate: Space | None = None,
    order: Space | None = None,
    rates: Space | None = None,
    adapts: Space | None = None,
) -> Struct:
    """Return the space of learning rules; every argument narrows one gene.

    Args:
        steps: inner steps; default `Int(1, 5)`.
        rate: (initial) rate; default `Float(0.001, 1.0, log=True)`.
        order: order of derivative; default `Choice(1, 2)`.
        rates: which rates are learned; default all of `fixed, shared, layer, parameter`.
        adapts: which parameters adapt; default all of `all, head, body`.

    Returns:
        A `Struct` whose genomes `make_rule` understands.
    """
    return Struct(
        steps=Int(1, 5) if steps is None else steps,
        rate=Float(0.001, 1.0, log=True) if rate is None else rate,
        order=Choice(1, 2) if order is None else order,
        rates=Choice("fixed", "shared", "layer", "parameter") if rates is None else rates,
        adapts=Choice("all", "head", "body") if adapts is None else adapts,
    )


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """Return a published rule as a genome, with some genes changed.

    Args:
        name: `maml`, `fomaml`, `anil`, `boil` or `meta-sgd`.
        changes: genes to set, for instance `rate=0.4`.

    Raises:
        SpaceError: if the name or a gene is unknown.
    """
    if name not in PRESETS:
        raise SpaceError(f"a preset must be one of {', '.join(PRESETS)}, got {name!r}")
    genome = dict(PRESETS[name])
    for gene, value in changes.items():
        if gene not in genome:
            raise SpaceError(f"a rule has the genes {', '.join(genome)}, got {gene!r}")
        genome[gene] = value
    return genome
