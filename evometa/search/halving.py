"""Asynchronous successive halving: many short trainings, few long ones.

The promoting variant (Li et al., MLSys 2020): whenever somebody is free, a candidate that is among
the best of its rung goes on to the next one; only if there is none, a new candidate begins. With
several objectives the best are those of the lowest rank of dominance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import moocore
import numpy as np
import numpy.typing as npt

from evometa.agreement import Agreement, agree
from evometa.records import (
    BASELINE,
    Candidate,
    Evaluation,
    Objectives,
    Status,
    mean_interval,
    rank_key,
    repeat_seed,
)
from evometa.search.ask_tell import AskTell

WINDOW = 512  # results of a rung that are compared; older ones are neither promoted nor compared
CHANCE = 10  # one promotion in so many is drawn by lot, so that rungs can be told apart fairly
FEWEST = 12  # pairs before a look ahead is trusted
TRUSTED = 0.2  # rank correlation above which a look ahead is used

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RungRole:
    """What a rung is for.

    Attributes:
        factor: of so many candidates, one is promoted to the next rung; at the last, trained with
            another seed.
        look_ahead: nothing is trained here; the rung is used while it predicts the next.
    """

    factor: float = 3.0
    look_ahead: bool = False


@dataclass
class _Result:
    """A result at a stage.

    Attributes:
        candidate: with its own seed.
        key: as `rank_key` makes it.
        promoted: whether it has gone on.
    """

    candidate: Candidate
    key: tuple[float, ...]
    promoted: bool = False

    @property
    def known(self) -> bool:
        """Whether it is a known design, which is always promoted."""
        return self.candidate.operator == BASELINE


@dataclass
class _Racer:
    """A candidate's means over the seeds so far; the scores are one an episode."""

    candidate: Candidate
    key: Array
    scores: Array
    seeds: int = 1
    failed: bool = False

    def add(self, key: Array, scores: Array) -> None:
        """Take in the result of one more seed."""
        self.seeds += 1
        self.key = self.key + (key - self.key) / self.seeds
        if len(scores) == len(self.scores):
            self.scores = self.scores + (scores - self.scores) / self.seeds


class _Stage:
    """The latest results of a rung, or of the full one with a further seed."""

    def __init__(self) -> None:
        self.results: OrderedDict[int, _Result] = OrderedDict()  # by number
        self.told = 0
        self.promoted = 0
        self._order: list[_Result] | None = None

    def add(self, result: _Result) -> None:
        """Keep a result, and forget the oldest one if there are too many."""
        self.results[result.candidate.number] = result
        self._order = None
        if len(self.results) > WINDOW:
            self.results.popitem(last=False)

    def order(self) -> list[_Result]:
        """Return the results, the best first."""
        if self._order is None:
            results = list(self.results.values())
            violation, values = _split([result.key for result in results])
            ranks, allowed = np.zeros(len(values)), violation == 0
            if values.shape[1] > 1 and allowed.any():
                ranks[allowed] = moocore.pareto_rank(values[allowed])
            self._order = [results[i] for i in np.lexsort((values[:, 0], ranks, violation))]
        return self._order


class SuccessiveHalving:
    """A searcher whose candidates are evaluated at more and more expense, if they are worth it.

    A candidate passes through stages: the rungs, the full one being the last, and then the full one
    again with further seeds, as long as it may still be the best. Known designs are always
    promoted, so that others can be compared with them at every stage. Failures count, and are never
    promoted; nor are repetitions of another candidate.

    Args:
        searcher: proposes new candidates, without a limit of its own.
        objectives: name to direction.
        levels: one a rung, the cheapest first.
        limit: how many candidates to train; None for no limit. Those that are only looked at ahead
            do not count, unless they fail.
        repeats: most further seeds of a candidate.
        scored: whether the scores of evaluations are those of the first objective, so that close
            candidates can be told apart episode by episode.
    """

    def __init__(
        self,
        searcher: AskTell,
        objectives: Objectives,
        levels: Sequence[RungRole],
        limit: int | None = None,
        *,
        repeats: int = 0,
        scored: bool = True,
    ) -> None:
        self._searcher, self._objectives, self._levels = searcher, objectives, levels
        self._full_rung = len(levels) - 1
        self._stages = [_Stage() for _ in range(len(levels) + repeats)]
        self._first = int(levels[0].look_ahead)
        self._limit = limit
        self._begun: set[int] = set()  # numbers of those that are trained
        self._direction, self._scored = next(iter(objectives.values())), scored
        self._racers: OrderedDict[int, _Racer] = OrderedDict()

    def ask(self, n: int) -> list[Candidate]:
        """Return candidates to promote, then new ones; fewer only when nothing is left."""
        asked: list[Candidate] = []
        while len(asked) < n:
            candidate = self._promotion()
            if candidate is None:
                break
            asked.append(candidate)
        new = self._searcher.ask(self._room(n - len(asked)))
        if not self._first:
            self._begun |= {candidate.number for candidate in new}
        return asked + new

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take notice of evaluations, in any order; a second telling of one changes nothing."""
        for evaluation in evaluations:
            candidate = evaluation.candidate
            place = self._place(candidate)
            if place is None or self._searcher.knows(candidate):
                continue
            self._searcher.tell([evaluation])
            if evaluation.copied_from:
                continue
            self._stages[place].told += 1
            if place >= self._first:
                self._begun.add(candidate.number)
            if evaluation.status is Status.OK:
                self._enter(place, evaluation)
            elif candidate.repeat and candidate.number in self._racers:
                self._racers[candidate.number].failed = True
            elif place < self._first:  # it is not worth a training, and counts
                self._begun.add(candidate.number)
            if place:  # of an earlier part of the run: it was promoted then
                below = self._stages[place - 1].results.get(candidate.number)
                if below is not None and not below.promoted:
                    self._promote(place - 1, below)

    def _place(self, candidate: Candidate) -> int | None:
        """Return the stage that a candidate has reached; None if there is no such stage here."""
        place = candidate.rung + candidate.repeat
        known = 0 <= candidate.rung <= self._full_rung and place < len(self._stages)
        return place if known and candidate.repeat in (0, place - self._full_rung) else None

    def _at(self, place: int, own: Candidate) -> Candidate:
        """Return a candidate as it is evaluated at a stage."""
        repeat = max(0, place - self._full_rung)
        return replace(own, rung=place - repeat, repeat=repeat, seed=repeat_seed(own.seed, repeat))

    def _enter(self, place: int, evaluation: Evaluation) -> None:
        """Keep a result, and what the race needs of those at the full rung."""
        own, number = evaluation.candidate, evaluation.candidate.number
        key, scores = rank_key(evaluation, self._objectives), np.array(evaluation.scores)
        if own.repeat:
            if number not in self._racers:
                return  # the race has forgotten it
            own = self._racers[number].candidate
            self._racers[number].add(np.array(key), scores)
        elif place == self._full_rung:
            self._racers[number] = _Racer(own, np.array(key), scores)
            if len(self._racers) > WINDOW:
                self._racers.popitem(last=False)
        self._stages[place].add(_Result(own, key))

    def agreement(self) -> list[Agreement]:
        """Return how well each rung predicts the next, by the latest candidates."""
        return [self._agreement(rung) for rung in range(self._full_rung)]

    def _agreement(self, rung: int) -> Agreement:
        low, high = self._stages[rung].results, self._stages[rung + 1].results
        both = [number for number in low if number in high]
        return agree(rung, [(low[n].key[1], high[n].key[1]) for n in both])

    def _room(self, wanted: int) -> int:
        if self._limit is None:
            return wanted
        left = self._limit - len(self._begun)
        # those that are looked at ahead begin when they are promoted
        return max(0, wanted if self._first and left > 0 else min(wanted, left))

    def _full(self) -> bool:
        return self._limit is not None and len(self._begun) >= self._limit

    def _promotion(self) -> Candidate | None:
        """Return a candidate to go on with, from the last stage that has one."""
        for place in reversed(range(len(self._stages) - 1)):
            stage = self._stages[place]
            if place < self._first and self._full():
                continue
            chosen = self._choose(place, stage) if stage.results else None
            if chosen is not None:
                self._promote(place, chosen)
                if place < self._first:
                    self._begun.add(chosen.candidate.number)
                return self._at(place + 1, chosen.candidate)
        return None

    def _promote(self, place: int, result: _Result) -> None:
        result.promoted = True
        self._stages[place].promoted += not result.known

    def _choose(self, place: int, stage: _Stage) -> _Result | None:
        """Return who goes on from a stage, if anybody does."""
        waiting = [result for result in stage.results.values() if not result.promoted]
        known = next((result for result in waiting if result.known), None)
        if known or not waiting:
            return known
        level = self._levels[min(place, self._full_rung)]
        if level.look_ahead and not self._trusted(place):
            return waiting[0]
        full = stage.promoted + 1 > stage.told / level.factor
        if place >= self._full_rung:
            return self._contender(place, full)
        if full:
            return None
        if stage.promoted % CHANCE == CHANCE - 1:
            rng = np.random.default_rng([place, stage.promoted])
            return waiting[int(rng.integers(len(waiting)))]
        best = stage.order()[: max(1, int(len(stage.results) / level.factor))]
        return next((result for result in best if not result.promoted), None)

    def _trusted(self, place: int) -> bool:
        """Return whether a look ahead helps, by those of its candidates that were trained."""
        found = self._agreement(place)
        return found.pairs >= FEWEST and found.tau > max(TRUSTED, 1.645 * found.error)

    def _contender(self, place: int, full: bool) -> _Result | None:
        """Return who may be the best after all, by the means over the seeds so far.

        When all candidates have begun, the leader goes on whatever has been promoted before.
        """
        line = [racer for racer in self._racers.values() if not racer.failed]
        if not line:
            return None
        violation, values = _split([racer.key for racer in line])
        order = np.lexsort((np.arange(len(line)), values[:, 0], violation)).tolist()
        leader = line[order[0]]
        front = violation == leader.key[0]
        if values.shape[1] > 1:
            front[front] = moocore.is_nondominated(values[front], keep_weakly=True)
        for index in order:
            result = self._stages[place].results.get(line[index].candidate.number)
            if result is None or result.promoted:
                continue
            if line[index] is leader:
                return result if self._full() or not full else None
            if full:
                return None
            close = front[index] if values.shape[1] > 1 else self._close(line[index], leader)
            if close:
                return result
            if values.shape[1] == 1:
                return None  # those further down are farther off
        return None

    def _close(self, one: _Racer, leader: _Racer) -> bool:
        """Return whether the same episodes do not show that the leader is better."""
        if one.key[0] or not self._scored or len(one.scores) != len(leader.scores):
            return (one.key[0], one.key[1]) <= (leader.key[0], leader.key[1])
        sign = -1.0 if self._direction == "max" else 1.0
        worse, half = mean_interval((sign * (one.scores - leader.scores)).tolist())
        return worse - half <= 0


def _split(keys: Sequence[Sequence[float] | Array]) -> tuple[Array, Array]:
    """Return violations, shape `(results,)`, and losses, shape `(results, objectives)`."""
    values = np.array(keys, dtype=float)
    return values[:, 0], values[:, 1:]
