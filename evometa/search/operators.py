"""Which operator next? Those that made better children are used more."""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from typing import Protocol

import numpy as np
import numpy.typing as npt

from evometa.records import Evaluation, Genome, Objectives, Status, dominates, rank_key
from evometa.search.protocol import Proposal
from evometa.space import Space
from evometa.space.operators import operate, operators

REMEMBERED = 4096  # candidates whose children may still come
CROSSOVER = "crossover"
LEAST = 0.3  # share of the proposals that all operators share equally
DOUBT = 8.0  # uses that an operator's first success rate counts for


class Parent(Protocol):
    """What children are made from."""

    @property
    def id(self) -> str:
        """The candidate."""
        ...

    @property
    def genome(self) -> Genome:
        """Plain data."""
        ...


class AdaptiveOperators:
    """Makes children by crossover and by the mutations of a space.

    Operators are chosen by probability matching (Thierens, 2005). One succeeds when the child
    dominates its first parent, at the same rung. All there is to know follows from the column
    `operator` of a table, so that a replay ends with the same counts.

    Args:
        space: what may be proposed.
        objectives: name to direction.

    Attributes:
        uses: how often each operator was used, as far as was told.
        successes: how often its child was better.
    """

    def __init__(self, space: Space, objectives: Objectives) -> None:
        self._space, self._objectives = space, objectives
        self._mutations = operators(space)
        self._names = [CROSSOVER, *self._mutations]
        self.uses = dict.fromkeys(self._names, 0)
        self.successes = dict.fromkeys(self._names, 0)
        self._steps: list[float] | None = None  # cumulated shares
        # by id, rung and repeat
        self._keys: OrderedDict[tuple[str, int, int], tuple[float, ...]] = OrderedDict()

    def child(self, first: Parent, second: Parent, rng: np.random.Generator) -> Proposal:
        """Return a child of the first parent, or of both if they are two."""
        if self._steps is None:
            self._steps = np.cumsum(self._shares()).tolist()
        least = self._steps[0] if first is second else 0.0  # crossover needs two
        if least == self._steps[-1]:  # a space of one field that is a branch, say
            return Proposal(self._space.mutate(first.genome, rng), (first.id,), "mutate")
        name = self._names[
            bisect(self._steps, rng.uniform(least, self._steps[-1]), hi=len(self._names) - 1)
        ]
        if name == CROSSOVER:
            genome = self._space.crossover(first.genome, second.genome, rng)
            return Proposal(genome, (first.id, second.id), CROSSOVER)
        return Proposal(
            operate(self._space, first.genome, name, rng, self._mutations), (first.id,), name
        )

    def observe(self, evaluation: Evaluation) -> None:
        """Learn whether a child is better than its parent."""
        candidate = evaluation.candidate
        mine = rank_key(evaluation, self._objectives) if evaluation.status is Status.OK else None
        if mine is not None:
            self._keys[candidate.id, candidate.rung, candidate.repeat] = mine
            if len(self._keys) > REMEMBERED:
                self._keys.popitem(last=False)
        if candidate.operator not in self.uses or not candidate.parents:
            return
        theirs = self._keys.get((candidate.parents[0], candidate.rung, candidate.repeat))
        if not candidate.is_new and theirs is None:
            return  # there is nothing to compare with at this rung
        self._steps = None
        self.uses[candidate.operator] += 1
        if mine is not None and theirs is not None and dominates(mine, theirs):
            self.successes[candidate.operator] += 1

    def _shares(self) -> npt.NDArray[np.float64]:
        uses = np.array([self.uses[name] for name in self._names], dtype=float)
        successes = np.array([self.successes[name] for name in self._names], dtype=float)
        overall = (successes.sum() + 1) / (uses.sum() + DOUBT)
        rates = (successes + DOUBT * overall) / (uses + DOUBT)
        shares = LEAST / len(rates) + (1 - LEAST) * rates / rates.sum()
        return np.asarray(shares)
