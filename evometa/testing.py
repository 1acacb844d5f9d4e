"""The suite that every searcher must pass; users run it over their own.

Derive a test class, and say how to make the searcher:

    class TestMine(SearcherContract):
        def make(self, space, objectives, seed):
            return AskTell(space, MyStrategy(space, objectives), seed)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from evometa.records import Candidate, Evaluation, Genome, Objectives, Status, canonical_json
from evometa.search.protocol import Searcher
from evometa.space import Choice, Float, Int, Space, Struct

Score = Callable[[Genome], float]


def evaluate(candidate: Candidate, score: Score, objectives: Objectives) -> Evaluation:
    """Return an `OK` evaluation with `score` for the first objective, its opposite for others."""
    value = score(candidate.genome)
    metrics = {name: value if place == 0 else -value for place, name in enumerate(objectives)}
    return Evaluation(candidate, Status.OK, metrics, scores=(value,))


class SearcherContract:
    """Laws of `ask` and `tell`. Objectives are `loss` (min), and `cost` (min) for several."""

    objectives: ClassVar[Objectives] = {"loss": "min"}
    space: ClassVar[Space] = Struct(
        x=Float(-1.0, 1.0),
        n=Int(1, 32, log=True),
        kind=Choice("a", "b", "c"),
        flag=Choice(True, False),
    )

    def make(self, space: Space, objectives: Objectives, seed: int) -> Searcher:
        """Return a new searcher."""
        raise NotImplementedError("derive from SearcherContract and define `make`")

    length: ClassVar[int] = 80
    """Proposals of a test; fewer suit a searcher that is slow."""
    small: ClassVar[Space] = Struct(a=Choice(1, 2, 3), b=Int(0, 3))
    """Twelve genomes."""

    @staticmethod
    def score(genome: Genome) -> float:
        """Return a loss with one optimum."""
        return float(genome["x"] ** 2 + (genome["kind"] != "b") + abs(genome["n"] - 8) / 32)

    def _session(self, seed: int, n: int, score: Score, lag: int = 3) -> list[Candidate]:
        """Ask `n` times, telling each result `lag` proposals later."""
        searcher = self.make(self.space, self.objectives, seed)
        asked: list[Candidate] = []
        for index in range(n):
            asked += searcher.ask(1)
            if index >= lag:
                searcher.tell([evaluate(asked[index - lag], score, self.objectives)])
        return asked

    def test_proposals_are_valid_numbered_and_new(self) -> None:
        """Genomes lie in the space; numbers count up; none comes twice."""
        asked = self._session(1, self.length, self.score)
        for candidate in asked:
            self.space.validate(candidate.genome)
        assert [candidate.number for candidate in asked] == list(range(self.length))
        assert len({canonical_json(candidate.genome) for candidate in asked}) == self.length
        assert len({candidate.seed for candidate in asked}) == self.length

    def test_the_exact_count_is_returned(self) -> None:
        """`ask(n)` returns `n`."""
        searcher = self.make(self.space, self.objectives, 0)
        assert [len(searcher.ask(n)) for n in (1, 5, 0, 7)] == [1, 5, 0, 7]

    def test_replay_equals_live(self) -> None:
        """The same tellings give the same proposals; another seed gives others."""
        first, again, other = (self._session(seed, self.length, self.score) for seed in (3, 3, 4))
        assert first == again
        assert [c.genome for c in first] != [c.genome for c in other]

    def test_a_constant_objective_is_repeatable(self) -> None:
        """Ties are broken the same way each time."""
        first, again = (self._session(5, self.length, lambda genome: 1.0) for _ in range(2))
        assert first == again

    def test_telling_twice_changes_nothing(self) -> None:
        """`tell` is idempotent."""
        once = self.make(self.space, self.objectives, 0)
        twice = self.make(self.space, self.objectives, 0)
        for _ in range(self.length // 2):
            (candidate,) = once.ask(1)
            assert twice.ask(1) == [candidate]
            evaluation = evaluate(candidate, self.score, self.objectives)
            once.tell([evaluation])
            twice.tell([evaluation, evaluation])

    def test_results_may_come_in_any_order_and_from_elsewhere(self) -> None:
        """Late, shuffled and unknown results are learned from, and numbering goes on."""
        searcher = self.make(self.space, self.objectives, 0)
        asked = searcher.ask(20)
        searcher.tell([evaluate(c, self.score, self.objectives) for c in reversed(asked)])
        foreign = Candidate(99, self.space.sample(np.random.default_rng(0)), seed=1)
        searcher.tell([evaluate(foreign, self.score, self.objectives)])
        assert searcher.ask(1)[0].number == 100

    def test_failures_never_become_parents(self) -> None:
        """Only `OK` candidates have children."""
        searcher = self.make(self.space, self.objectives, 0)
        failed: set[str] = set()
        for index in range(self.length):
            (candidate,) = searcher.ask(1)
            assert not failed & set(candidate.parents)
            evaluation = evaluate(candidate, self.score, self.objectives)
            if index % 3 == 0:
                status = list(Status)[1 + index % (len(Status) - 1)]
                evaluation = Evaluation(candidate, status, error="made to fail")
                failed.add(candidate.id)
            searcher.tell([evaluation])

    def test_a_small_space_is_used_up(self) -> None:
        """All of a finite space is proposed once; then `ask` returns nothing."""
        searcher = self.make(self.small, self.objectives, 0)
        seen = []
        for _ in range(12):
            seen += searcher.ask(1)
            searcher.tell([evaluate(seen[-1], lambda g: float(g["b"]), self.objectives)])
        assert len({canonical_json(c.genome) for c in seen}) == 12
        assert searcher.ask(1) == []

    def test_global_random_state_is_left_alone(self) -> None:
        """Neither Python's nor numpy's global generator is touched."""
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002 - the global generator is what is watched
        expected = (random.random(), np.random.random())  # noqa: NPY002
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        self._session(0, self.length // 2, self.score)
        assert (random.random(), np.random.random()) == expected  # noqa: NPY002
