"""Searchers by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from evometa.errors import SpaceError
from evometa.records import Evaluation, Genome, Objectives
from evometa.search.ask_tell import AskTell, unknown_name
from evometa.search.halving import RungRole, SuccessiveHalving
from evometa.search.protocol import Searcher, Strategy
from evometa.space import Space

SEARCHERS = MappingProxyType(
    {
        "hybrid": ("evometa.search.hybrid", "Hybrid"),
        "evolution": ("evometa.search.regularized_evolution", "RegularizedEvolution"),
        "mu+lambda": ("evometa.search.populations", "mu_plus_lambda"),
        "nsga2": ("evometa.search.populations", "nsga2"),
        "nsga3": ("evometa.search.populations", "nsga3"),
        "local": ("evometa.search.local_search", "LocalSearch"),
        "cma-es": ("evometa.search.cma_es", "CMAES"),
        "tpe": ("evometa.search.optuna_samplers", "tpe"),
        "gp": ("evometa.search.optuna_samplers", "gp"),
        "optuna-nsga2": ("evometa.search.optuna_samplers", "nsga2"),
        "optuna-cma-es": ("evometa.search.optuna_samplers", "cma_es"),
        "random": ("evometa.search.random_search", "RandomSearch"),
    }
)
"""Name to module and what makes the strategy there, from space, objectives and seed.

A module is imported when its searcher is made."""


Make: TypeAlias = Callable[[Space, Objectives, int], Strategy]
"""Makes a strategy from space, objectives and seed."""


@dataclass(frozen=True)
class Wishes:
    """What a searcher does beyond its strategy.

    Attributes:
        candidates: how many to propose in all; None for no limit.
        seeds: known designs by name, proposed first.
        designs: the best of other searches by name, proposed next.
        levels: what the rungs are for, the cheapest first; one for a search without rungs.
        repeats: most further seeds of a candidate.
        earlier: evaluations of other searches to learn from.
        scored: whether the scores of evaluations are those of the first objective.
    """

    candidates: int | None = None
    seeds: Mapping[str, Genome] = field(default_factory=dict)
    designs: Mapping[str, Genome] = field(default_factory=dict)
    levels: Sequence[RungRole] = (RungRole(),)
    repeats: int = 0
    earlier: Sequence[Evaluation] = ()
    scored: bool = True


def make_searcher(
    name: str | Make,
    space: Space,
    objectives: Objectives,
    seed: int,
    wishes: Wishes = Wishes(),
) -> Searcher:
    """Return a searcher.

    Args:
        name: a key of `SEARCHERS`, or what makes a strategy.
        space: what may be proposed.
        objectives: metric name to direction.
        seed: the study's seed.
        wishes: how many, rungs, seed points.

    Raises:
        SpaceError: if there is no such searcher, or it cannot handle the space.
    """
    strategy = _maker(name)(space, objectives, seed)
    stages = len(wishes.levels) + wishes.repeats > 1
    searcher = AskTell(
        space,
        strategy,
        seed,
        wishes.seeds,
        limit=None if stages else wishes.candidates,
        designs=wishes.designs,
        earlier=wishes.earlier,
        first=int(wishes.levels[0].look_ahead),
    )
    if not stages:
        return searcher
    return SuccessiveHalving(
        searcher,
        objectives,
        wishes.levels,
        wishes.candidates,
        repeats=wishes.repeats,
        scored=wishes.scored,
    )


def _maker(name: str | Make) -> Make:
    if not isinstance(name, str):
        return name
    if name not in SEARCHERS:
        raise SpaceError(unknown_name("a searcher", name, list(SEARCHERS)))
    module, kind = SEARCHERS[name]
    make: Make = getattr(importlib.import_module(module), kind)
    return make
