"""Optuna's samplers: TPE, Gaussian processes, NSGA-II and CMA-ES.

Every sampler is made explicitly, works in memory, and is made anew with a seed of its own for each
proposal, so that candidate *n* depends on the study's seed and on what was told alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from evometa.errors import SpaceError
from evometa.limits import penalised
from evometa.records import (
    Candidate,
    Evaluation,
    Genome,
    Objectives,
    Status,
    canonical_json,
    losses,
)
from evometa.search.fixed import Refusal, require
from evometa.search.protocol import Asked, Proposal
from evometa.space import Choice, Float, Int, List, Space, Struct
from evometa.space.paths import join

VIOLATION = "violation"
HISTORY = 1000  # trials kept; the cost of a proposal grows with them

Suggest = Callable[[str, BaseDistribution], object]


def tpe(space: Space, objectives: Objectives, seed: int) -> OptunaSampler:
    """Return the tree-structured Parzen estimator (Bergstra et al., 2011), multivariate."""
    require(space, Refusal("tpe"))
    return OptunaSampler(
        "tpe",
        space,
        objectives,
        seed,
        lambda seed: optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=10
        ),
    )


def gp(space: Space, objectives: Objectives, seed: int) -> OptunaSampler:
    """Return Optuna's Gaussian process; takes about a second a proposal from 500 trials on."""
    require(space, Refusal("gp", lists=True, branches=True))
    return OptunaSampler(
        "gp", space, objectives, seed, lambda seed: optuna.samplers.GPSampler(seed=seed)
    )


def nsga2(space: Space, objectives: Objectives, seed: int) -> OptunaSampler:
    """Return Optuna's NSGA-II, a population of 50 a generation."""
    require(space, Refusal("optuna-nsga2", lists=True, branches=True))
    return OptunaSampler(
        "optuna-nsga2",
        space,
        objectives,
        seed,
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed),
    )


def cma_es(space: Space, objectives: Objectives, seed: int) -> OptunaSampler:
    """Return Optuna's CMA-ES, for one objective.

    Raises:
        SpaceError: if there are several objectives, or a part of the space is not a number.
    """
    require(space, Refusal("optuna-cma-es", lists=True, branches=True, choices=True))
    if len(objectives) > 1:
        raise SpaceError(
            f"the searcher 'optuna-cma-es' takes one objective, got {', '.join(objectives)}; "
            "use 'hybrid', 'nsga2' or 'tpe'"
        )
    return OptunaSampler(
        "optuna-cma-es",
        space,
        objectives,
        seed,
        lambda seed: optuna.samplers.CmaEsSampler(
            seed=seed, n_startup_trials=5, warn_independent_sampling=False
        ),
        constraints=False,
    )


class OptunaSampler:
    """Asks a sampler of Optuna.

    Args:
        name: what the table calls it.
        space: numbers, choices and lists, in structs.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
        make: makes the sampler from a seed.
        constraints: whether the sampler knows of constraints.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        objectives: Objectives,
        seed: int,
        make: Callable[[int], BaseSampler],
        *,
        constraints: bool = True,
    ) -> None:
        del seed
        self.name = name
        self._constraints, self._constrained = constraints, False
        self._worst = 0.0  # first loss of those that break no constraint
        self._space, self._objectives, self._make = space, objectives, make
        self._asked: dict[str, optuna.Trial] = {}  # by genome
        self._study = self._new_study()

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Ask Optuna."""
        self._drop([*asked.waiting, *asked.pack])
        if len(self._study.get_trials(deepcopy=False)) > 2 * HISTORY:
            self._forget()
        with _quiet():
            self._study.sampler = self._make(int(rng.integers(2**31)))
            trial = self._study.ask()
            genome = _suggested(self._space, "", trial._suggest)
        self._asked[canonical_json(genome)] = trial
        return Proposal(genome, operator=self.name)

    def observe(self, evaluation: Evaluation) -> None:
        """Tell Optuna of a result; one at a higher rung is a trial of its own."""
        genome = evaluation.candidate.genome
        values = self._values(evaluation) if evaluation.status is Status.OK else None
        if evaluation.violation and self._constraints and not self._constrained:
            self._constrain()
        trial = self._asked.pop(canonical_json(genome), None)
        constraints = {VIOLATION: evaluation.violation} if self._constrained else {}
        with _quiet():
            if trial is not None:
                for name, value in constraints.items() if values else ():
                    trial.set_constraint(name, value)
                state = TrialState.FAIL if values is None else TrialState.COMPLETE
                self._study.tell(trial, values, state=state)
            elif values is not None:
                found: dict[str, tuple[object, BaseDistribution]] = {}
                _collect(self._space, "", genome, found)
                self._study.add_trial(
                    create_trial(
                        params={path: value for path, (value, _) in found.items()},
                        distributions={path: kind for path, (_, kind) in found.items()},
                        values=values,
                        constraints=constraints,
                    )
                )

    def _values(self, evaluation: Evaluation) -> tuple[float, ...]:
        """Return what Optuna is told; a sampler without constraints has one objective."""
        values = losses(evaluation, self._objectives)
        if not evaluation.violation:
            self._worst = max(self._worst, values[0])
        elif not self._constraints:
            return (penalised(self._worst, evaluation.violation),)
        return values

    def _constrain(self) -> None:
        """From the first broken constraint on, all trials say by how much they break any.

        Not before: samplers propose otherwise where there are constraints.
        """
        self._constrained = True
        done = self._study.get_trials(states=(TrialState.COMPLETE,))
        with _quiet():
            for trial in done:
                trial.set_constraint(VIOLATION, 0.0)
        self._begin(done)

    def _begin(self, trials: Sequence[FrozenTrial]) -> None:
        """Begin anew with trials; those that are being evaluated are added when they are told."""
        self._study = self._new_study()
        self._study.add_trials(trials)
        self._asked = {}

    def _drop(self, alive: Collection[Candidate]) -> None:
        """End trials that were proposed, and then not asked for: they would count as running."""
        wanted = {canonical_json(candidate.genome) for candidate in alive}
        for genome in [genome for genome in self._asked if genome not in wanted]:
            with _quiet():
                self._study.tell(self._asked.pop(genome), state=TrialState.FAIL)

    def _forget(self) -> None:
        """Keep the latest successful trials, and half as many of the best before them."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        recent, older = done[-HISTORY // 2 :], done[: -HISTORY // 2]
        best = sorted(older, key=_merit)[: HISTORY // 2]
        self._begin(sorted(best, key=lambda trial: trial.number) + recent)

    def _new_study(self) -> optuna.Study:
        with _quiet():
            return optuna.create_study(
                sampler=self._make(0), directions=["minimize"] * len(self._objectives)
            )


def _merit(trial: FrozenTrial) -> tuple[float, float]:
    return trial.constraints.get(VIOLATION, 0.0), trial.values[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's log lines and notices of experimental features off the screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _distribution(leaf: Space) -> BaseDistribution:
    if isinstance(leaf, Int):
        return IntDistribution(leaf.low, leaf.high, leaf.log, leaf.step)
    if isinstance(leaf, Float):
        return FloatDistribution(leaf.low, leaf.high, leaf.log)
    assert isinstance(leaf, Choice)
    return CategoricalDistribution([canonical_json(value) for value in leaf.values] + _names(leaf))


def _names(choice: Choice) -> list[str]:
    return [f"branch {name}" for name in choice.branches]


def _suggested(space: Space, path: str, suggest: Suggest) -> Genome:
    """Build a genome from suggested values, define-by-run."""
    if isinstance(space, Struct):
        return {
            name: _suggested(field, join(path, name), suggest)
            for name, field in space.fields.items()
        }
    if isinstance(space, List):
        length = space.min
        if space.min < space.max:
            length = int(suggest(f"{path}#", IntDistribution(space.min, space.max)))  # type: ignore[call-overload]
        return [_suggested(space.item, f"{path}[{i}]", suggest) for i in range(length)]
    value = suggest(path, _distribution(space))
    if not isinstance(space, Choice):
        return value
    for name, branch in space.branches.items():
        if value == f"branch {name}":
            return {name: _suggested(branch, join(path, name), suggest)}
    return next(v for v in space.values if canonical_json(v) == value)


def _collect(
    space: Space, path: str, genome: Genome, found: dict[str, tuple[object, BaseDistribution]]
) -> None:
    """Find the values that would have been suggested."""
    if isinstance(space, Struct):
        for name, field in space.fields.items():
            _collect(field, join(path, name), genome[name], found)
    elif isinstance(space, List):
        if space.min < space.max:
            found[f"{path}#"] = (len(genome), IntDistribution(space.min, space.max))
        for index, item in enumerate(genome):
            _collect(space.item, f"{path}[{index}]", item, found)
    elif isinstance(space, Choice):
        if isinstance(genome, dict):
            ((name, inner),) = genome.items()
            found[path] = (f"branch {name}", _distribution(space))
            _collect(space.branches[name], join(path, name), inner, found)
        else:
            found[path] = (canonical_json(genome), _distribution(space))
    else:
        found[path] = (genome, _distribution(space))
