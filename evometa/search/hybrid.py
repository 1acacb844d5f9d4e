"""The default: evolution proposes structures, a model of all results settles on their numbers.

Children of the best so far are made by the operators of evolution; a Gaussian process, which is
given every result, says which of them promises most. Over several objectives each proposal takes a
direction of its own (ParEGO; Knowles, 2006). A pack holds settings of the numbers of one structure.
The process sees genes by their path, so that what it learns about a number holds for every
structure that has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import ThreadpoolController

from evometa.errors import GenomeError, SpaceError
from evometa.records import Evaluation, Genome, Objectives
from evometa.search.model import Judge, Model, Seen
from evometa.search.operators import AdaptiveOperators
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space, decode, encode, get

BEGIN = 8  # results before the model is asked
CHILDREN = 64  # made for each proposal; fewer when there are thousands of results
FEWEST = 6
FRESH = 0.15  # share of children that are drawn at random
TWICE = 0.3  # share of children that are changed in two places
UNJUDGED = 0.3  # share of proposals that the model has no say in: it may be wrong
NEAR = 12  # changed children a round
STEPS = (0.2, 0.05)  # of the numbers, as a share of their range, in each round

_THREADS = ThreadpoolController()  # matrices are small: more threads would only fight for cores


class Hybrid:
    """Evolution screened by a model.

    Args:
        space: what may be proposed.
        objectives: name to direction.
        seed: not used; randomness comes with each proposal.
    """

    name = "hybrid"

    def __init__(self, space: Space, objectives: Objectives, seed: int) -> None:
        del seed
        self._space, self._objectives = space, objectives
        self._operators = AdaptiveOperators(space, objectives)
        self._model = Model(space, objectives)

    @_THREADS.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw at first, then return the child that promises most."""
        if self._model.successes < BEGIN:
            return Proposal(self._space.sample(rng), operator="random")
        direction = rng.dirichlet(np.ones(len(self._objectives)))
        judge = self._model.judge([*asked.waiting, *asked.pack], direction)
        unjudged = bool(rng.random() < UNJUDGED)
        effort = max(0.1, min(1.0, 500 / self._model.told))
        count = max(FEWEST, int(CHILDREN * effort))
        pool = self._siblings(judge, asked, 1 if unjudged else count, rng)
        alike = bool(pool)
        if unjudged:
            return pool[0] if pool else self._child(judge, rng)
        pool = pool or [self._child(judge, rng) for _ in range(count)]
        best = _best(judge, pool, asked)
        for step in STEPS if best and effort == 1.0 else ():
            assert best is not None
            near = [self._changed(best, step, alike, rng) for _ in range(NEAR)]
            best = _best(judge, [best, *near], asked) or best
        return best or Proposal(self._space.sample(rng), operator="random")

    def observe(self, evaluation: Evaluation) -> None:
        """Give a result to the model."""
        self._operators.observe(evaluation)
        if not evaluation.copied_from:
            self._model.observe(evaluation)

    def _child(self, judge: Judge, rng: np.random.Generator) -> Proposal:
        """Return a child of the best, or now and then a genome drawn at random."""
        if rng.random() < FRESH:
            return Proposal(self._space.sample(rng), operator="random")
        first, second = (_parent(judge.parents, rng) for _ in range(2))
        child = self._operators.child(first, second, rng)
        return self._mutated(child, rng) if rng.random() < TWICE else child

    def _siblings(
        self, judge: Judge, asked: Asked, count: int, rng: np.random.Generator
    ) -> list[Proposal]:
        """Return genomes of the structure that the pack began with, if it has numbers."""
        if not asked.pack:
            return []
        first = asked.pack[0]
        paths = list(self._space.numeric(first.genome))
        if not paths:
            return []
        mine = np.array(encode(first.genome, self._space))
        siblings = []
        for way in rng.integers(3, size=count).tolist():
            if way == 0:
                vector = rng.random(len(mine))
            elif way == 1:
                vector = _near(mine, STEPS[0], rng)
            else:
                like = _parent(judge.parents, rng)
                vector = _near(self._inherited(mine, paths, like), STEPS[1], rng)
            genome = self._decoded(first.genome, vector)
            if genome is not None:
                siblings.append(Proposal(genome, first.parents, "numbers"))
        return [sibling for sibling in siblings if asked.is_new(sibling.genome)]

    def _inherited(self, mine: np.ndarray, paths: Sequence[str], parent: Seen) -> np.ndarray:
        """Return numbers with those that another structure has as well taken from it."""
        numeric = self._space.numeric(parent.genome)
        vector = mine.copy()
        for place, path in enumerate(paths):
            if path in numeric:
                vector[place] = numeric[path].to_unit(get(parent.genome, path))
        return vector

    def _changed(
        self, child: Proposal, step: float, numbers_only: bool, rng: np.random.Generator
    ) -> Proposal:
        """Return a child with its numbers moved a little, or changed in one place."""
        vector = np.array(encode(child.genome, self._space))
        if len(vector) and (numbers_only or rng.random() < 0.5):
            genome = self._decoded(child.genome, _near(vector, step, rng))
            return child if genome is None else Proposal(genome, child.parents, child.operator)
        return self._mutated(child, rng)

    def _mutated(self, child: Proposal, rng: np.random.Generator) -> Proposal:
        try:
            genome = self._space.mutate(child.genome, rng)
        except SpaceError:
            return child
        return Proposal(genome, child.parents, child.operator)

    def _decoded(self, genome: Genome, vector: np.ndarray) -> Genome | None:
        try:
            new = decode(genome, vector.tolist(), self._space)
            self._space.validate(new)
        except GenomeError:  # outside the constraints
            return None
        return new


def _best(judge: Judge, pool: Sequence[Proposal], asked: Asked) -> Proposal | None:
    """Return the new genome that promises most."""
    promise = judge.promise([child.genome for child in pool])
    order = (pool[index] for index in np.argsort(-promise, kind="stable").tolist())
    return next((child for child in order if asked.is_new(child.genome)), None)


def _parent(parents: Sequence[Seen], rng: np.random.Generator) -> Seen:
    """Return a parent, better ones more often: half as likely at four places further down."""
    place = int(rng.exponential(4 / np.log(2)))
    return parents[place % len(parents)]


def _near(vector: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """Return a vector with about half of its numbers moved, reflected at the ends of [0, 1]."""
    moved = rng.random(len(vector)) < 0.5
    if len(vector):
        moved[int(rng.integers(len(vector)))] = True
    noise = np.where(moved, rng.standard_normal(len(vector)) * step, 0.0)
    return np.asarray(1.0 - np.abs(1.0 - np.abs(vector + noise) % 2.0))
