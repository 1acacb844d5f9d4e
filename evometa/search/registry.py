"""Searchers by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from evometa.errors import SpaceError
from evometa.records import Genome, Objectives
from evometa.search.ask_tell import AskTell, unknown_name
from evometa.search.protocol import Searcher
from evometa.space import Space

SEARCHERS = MappingProxyType(
    {
        "random": ("evometa.search.random_search", "RandomSearch"),
        "evolution": ("evometa.search.regularized_evolution", "RegularizedEvolution"),
        "nsga2": ("evometa.search.nsga2", "NSGA2"),
        "tpe": ("evometa.search.tpe", "TPE"),
    }
)
"""Name to module and class; a module is imported when its searcher is made."""


def default_searcher(objectives: Objectives) -> str:
    """Return the searcher of choice: evolution for one objective, NSGA-II for several."""
    return "evolution" if len(objectives) == 1 else "nsga2"


def make_searcher(
    name: str,
    space: Space,
    objectives: Objectives,
    seed: int,
    seeds: Mapping[str, Genome] | None = None,
) -> Searcher:
    """Return a searcher by name.

    Args:
        name: a key of `SEARCHERS`.
        space: what may be proposed.
        objectives: metric name to direction.
        seed: the study's seed.
        seeds: known designs by name, proposed first.

    Raises:
        SpaceError: if there is no such searcher, or it cannot handle the space.
    """
    if name not in SEARCHERS:
        raise SpaceError(unknown_name("a searcher", name, list(SEARCHERS)))
    module, kind = SEARCHERS[name]
    strategy = getattr(importlib.import_module(module), kind)(space, objectives, seed)
    return AskTell(space, strategy, seed, seeds)
