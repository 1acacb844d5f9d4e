"""Strategies of evolution around one population in steady state, made with DEAP's selections.

Their randomness comes with each proposal, so that the seed they are made with is not used.
"""

from __future__ import annotations

import math

import numpy as np
from deap import tools

from evometa.records import Objectives, derive_seed
from evometa.search.individual import Individual, Select, feasible_first, select_nsga2
from evometa.search.population import Population
from evometa.space import Space
from evometa.space.global_random import global_random

MU = 16
SURVIVORS = 40
NEWCOMERS = 10


def mu_plus_lambda(space: Space, objectives: Objectives, seed: int) -> Population:
    """Return the (mu + lambda) evolution strategy: a better child replaces the worst survivor.

    With several objectives, better is as in NSGA-II.
    """
    del seed
    return Population("mu+lambda", space, objectives, MU, 1, select_nsga2)


def nsga2(space: Space, objectives: Objectives, seed: int) -> Population:
    """Return NSGA-II (Deb et al., 2002): parents win tournaments by rank, then by crowding."""
    del seed
    return Population(
        "nsga2", space, objectives, SURVIVORS, NEWCOMERS, select_nsga2, parents=_tournaments
    )


def nsga3(space: Space, objectives: Objectives, seed: int) -> Population:
    """Return NSGA-III (Deb and Jain, 2014): for three objectives and more.

    It keeps those near reference directions that spread evenly over the front, as many as
    survivors, or somewhat fewer. With one objective it selects as NSGA-II does.
    """
    del seed
    select = select_nsga2 if len(objectives) == 1 else _near_directions(len(objectives))
    return Population("nsga3", space, objectives, SURVIVORS, NEWCOMERS, select)


def _tournaments(
    survivors: list[Individual], rng: np.random.Generator
) -> tuple[Individual, Individual]:
    if len(survivors) < 4:
        picks = rng.integers(len(survivors), size=2)
        return survivors[picks[0]], survivors[picks[1]]
    with global_random(rng):
        first, second = tools.selTournamentDCD(survivors, 4)[:2]
    return first, second


def _near_directions(objectives: int) -> Select:
    divisions = 1
    while math.comb(objectives + divisions, divisions + 1) <= SURVIVORS:
        divisions += 1
    directions: np.ndarray = tools.uniform_reference_points(objectives, divisions)

    @feasible_first
    def select(individuals: list[Individual], count: int) -> list[Individual]:
        # ties between niches are broken by chance: seeded by what is there, so that it replays
        seed = derive_seed(*(individual.id for individual in individuals))
        with global_random(np.random.default_rng(seed), numpy=True):
            chosen: list[Individual] = tools.selNSGA3(individuals, count, directions, nd="log")
        return chosen

    return select
