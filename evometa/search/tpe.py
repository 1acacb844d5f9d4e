"""The tree-structured Parzen estimator of Optuna (Bergstra et al., 2011), over fixed spaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from evometa.errors import SpaceError
from evometa.records import Evaluation, Genome, Objectives, Status, canonical_json, losses
from evometa.search.protocol import Proposal
from evometa.space import Choice, Float, Int, List, Space, Struct

HISTORY = 1000  # trials kept; the cost of a proposal grows with them


class TPE:
    """Models good and bad values of each gene, and proposes where good ones are likelier.

    The space must be fixed: every genome has the same genes.

    Args:
        space: numbers and choices of values, in structs.
        objectives: name to direction.
        seed: seeds Optuna's sampler.

    Raises:
        SpaceError: if the space has lists or branches.
    """

    name = "tpe"

    def __init__(self, space: Space, objectives: Objectives, seed: int) -> None:
        _require_fixed(space, "")
        self._space, self._objectives = space, objectives
        self._genes = space.genes()
        self._distributions = {path: _distribution(leaf) for path, leaf in self._genes.items()}
        self._sampler = optuna.samplers.TPESampler(
            seed=seed % 2**32, multivariate=True, constant_liar=False, n_startup_trials=10
        )
        self._study = self._new_study()

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Ask Optuna; its trial is not kept, since results may come in any order."""
        if len(self._study.get_trials(deepcopy=False)) > 2 * HISTORY:
            self._forget()
        with _quiet():
            trial = self._study.ask(self._distributions)
            params = trial.params
            self._study.tell(trial, state=TrialState.FAIL)
        genome = _assemble(self._space, "", params)
        return Proposal(genome, operator="tpe")

    def observe(self, evaluation: Evaluation) -> None:
        """Add a successful candidate to Optuna's history."""
        if evaluation.status is not Status.OK:
            return
        params = _params(self._space, "", evaluation.candidate.genome)
        with _quiet():
            self._study.add_trial(
                create_trial(
                    params=params,
                    distributions=self._distributions,
                    values=losses(evaluation, self._objectives),
                )
            )

    def _forget(self) -> None:
        """Keep the latest successful trials, and half as many of the best before them."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        recent, older = done[-HISTORY // 2 :], done[: -HISTORY // 2]
        best = sorted(older, key=lambda trial: trial.values[0])[: HISTORY // 2]
        self._study = self._new_study()
        self._study.add_trials(sorted(best, key=lambda trial: trial.number) + recent)

    def _new_study(self) -> optuna.Study:
        with _quiet():
            return optuna.create_study(
                sampler=self._sampler, directions=["minimize"] * len(self._objectives)
            )


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


def _require_fixed(space: Space, path: str) -> None:
    if isinstance(space, Struct):
        if space.constraints:
            _refuse(path, f"bound by the constraint {next(iter(space.constraints))!r}")
        for name, field in space.fields.items():
            _require_fixed(field, f"{path}.{name}" if path else name)
    elif isinstance(space, Choice) and space.branches:
        _refuse(path, "a choice of sub-spaces")
    elif isinstance(space, List):
        _refuse(path, "a list of variable length")
    elif not isinstance(space, Int | Float | Choice):
        _refuse(path, f"a {type(space).__name__}")


def _refuse(path: str, what: str) -> None:
    raise SpaceError(
        f"the searcher 'tpe' needs a fixed space, but {path or 'the space'} is {what}; "
        "use 'evolution', 'nsga2' or 'random'"
    )


def _distribution(leaf: Space) -> BaseDistribution:
    if isinstance(leaf, Int):
        return IntDistribution(leaf.low, leaf.high, leaf.log, leaf.step)
    if isinstance(leaf, Float):
        return FloatDistribution(leaf.low, leaf.high, leaf.log)
    assert isinstance(leaf, Choice)
    return CategoricalDistribution([canonical_json(value) for value in leaf.values])


def _assemble(space: Space, path: str, params: dict[str, object]) -> Genome:
    if isinstance(space, Struct):
        return {
            name: _assemble(field, f"{path}.{name}" if path else name, params)
            for name, field in space.fields.items()
        }
    value = params[path]
    if isinstance(space, Choice):
        return next(v for v in space.values if canonical_json(v) == value)
    return value


def _params(space: Space, path: str, genome: Genome) -> dict[str, object]:
    if isinstance(space, Struct):
        found: dict[str, object] = {}
        for name, field in space.fields.items():
            found |= _params(field, f"{path}.{name}" if path else name, genome[name])
        return found
    return {path: canonical_json(genome) if isinstance(space, Choice) else genome}
