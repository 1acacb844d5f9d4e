"""Who is compared: our searchers by name, and those of others driven as their users drive them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
import optuna
from deap import algorithms, base, tools

from evometa.records import Candidate, Evaluation, Genome, Status
from evometa.search import make_searcher
from evometa.search.optuna_samplers import _suggested
from evometa.space import Space
from tests.benchmarks.search_problems import Problem

Seen = Callable[[Genome], tuple[float, ...]]


class Spent(Exception):
    """The budget is used up."""


def ours(name: str, problem: Problem, seen: Seen, seed: int, budget: int, pack: int = 1) -> None:
    count = len(problem.reference) or 1
    objectives = {f"loss{i}": "min" for i in range(count)}
    searcher = make_searcher(name, problem.space, objectives, seed)
    done = 0
    while done < budget:
        asked = searcher.ask(min(pack, budget - done))
        if not asked:
            return
        searcher.tell([_evaluation(candidate, seen(candidate.genome)) for candidate in asked])
        done += len(asked)


def _evaluation(candidate: Candidate, values: tuple[float, ...]) -> Evaluation:
    metrics = {f"loss{i}": value for i, value in enumerate(values)}
    return Evaluation(candidate, Status.OK, metrics, scores=values[:1])


def optuna_peer(sampler: str, problem: Problem, seen: Seen, seed: int, budget: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make = {
        "TPE": optuna.samplers.TPESampler,
        "GP": optuna.samplers.GPSampler,
        "NSGA-II": optuna.samplers.NSGAIISampler,
    }[sampler]
    directions = ["minimize"] * (len(problem.reference) or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=make(seed=seed), directions=directions)
        study.optimize(
            lambda trial: seen(_suggested(problem.space, "", trial._suggest)), n_trials=budget
        )


class _Fitness(base.Fitness):
    weights = (-1.0,)


class _Fitnesses(base.Fitness):
    weights = (-1.0, -1.0)


class _Individual(list):
    def __init__(self, genome: Genome, fitness: type[base.Fitness]) -> None:
        super().__init__([genome])
        self.fitness = fitness()


def deap_peer(problem: Problem, seen: Seen, seed: int, budget: int) -> None:
    """DEAP's own (mu + lambda), 20 of each, with the space's mutation and crossover.

    It selects the best, or as NSGA-II does where there are two objectives.
    """
    several = bool(problem.reference)
    rng, space = np.random.default_rng(seed), problem.space

    def mate(one: _Individual, other: _Individual) -> tuple[_Individual, _Individual]:
        first, second = one[0], other[0]
        one[0] = space.crossover(first, second, rng)
        other[0] = space.crossover(second, first, rng)
        return one, other

    def mutate(one: _Individual) -> tuple[_Individual]:
        one[0] = space.mutate(one[0], rng)
        return (one,)

    toolbox = base.Toolbox()
    toolbox.register("mate", mate)
    toolbox.register("mutate", mutate)
    toolbox.register("select", tools.selNSGA2 if several else tools.selBest)
    toolbox.register("evaluate", lambda one: seen(one[0]))
    state = random.getstate()
    random.seed(seed)
    population = [
        _Individual(space.sample(rng), _Fitnesses if several else _Fitness) for _ in range(20)
    ]
    algorithms.eaMuPlusLambda(population, toolbox, 20, 20, 0.4, 0.6, budget // 20, verbose=False)
    random.setstate(state)


def values_of(
    contender: str, problem: Problem, seed: int, budget: int
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return what was seen and what is true of each evaluation, in order."""
    rng = np.random.default_rng([seed, 99])
    found: list[tuple[tuple[float, ...], tuple[float, ...]]] = []

    def seen(genome: Genome) -> tuple[float, ...]:
        if len(found) >= budget:
            raise Spent
        true = problem.losses(genome)
        shown = tuple(v + problem.noise * rng.standard_normal() for v in true)
        found.append((shown, true))
        return shown

    try:
        if contender.startswith("Optuna "):
            optuna_peer(contender.removeprefix("Optuna "), problem, seen, seed, budget)
        elif contender == "DEAP mu+lambda":
            deap_peer(problem, seen, seed, budget)
        else:
            name, _, pack = contender.partition(" x")
            ours(name, problem, seen, seed, budget, int(pack or 1))
    except Spent:
        pass
    return found


def able(contender: str, space: Space) -> bool:
    """Return whether a contender can handle a space at all."""
    if contender.startswith(("Optuna", "DEAP")):
        return True
    try:
        make_searcher(contender.partition(" x")[0], space, {"loss": "min"}, 0)
    except Exception:
        return False
    return True
