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
from evometa.limits import BAD
from evometa.records import (
    Candidate,
    Evaluation,
    Objectives,
    Status,
    losses,
    mean_interval,
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
        factor: of so many candidates, one is promoted to the next rung.
        look_ahead: nothing is trained here; the rung is used while it predicts the next.
        race: candidates here differ from those of the rung before in their seed alone; whoever may
            still be the best is promoted.
    """

    factor: float = 3.0
    look_ahead: bool = False
    race: bool = False


@dataclass
class _Result:
    candidate: Candidate
    losses: tuple[float, ...]
    promoted: bool = False

    @property
    def known(self) -> bool:
        """Whether it is a known design, which is always promoted."""
        return self.candidate.operator.startswith("seed:")


@dataclass
class _Racer:
    """A candidate's means over the seeds so far; the scores are one an episode."""

    number: int
    losses: Array
    scores: Array
    seeds: int = 1
    failed: bool = False

    def add(self, losses: Array, scores: Array) -> None:
        """Take in the result of one more seed."""
        self.seeds += 1
        self.losses = self.losses + (losses - self.losses) / self.seeds
        if len(scores) == len(self.scores):
            self.scores = self.scores + (scores - self.scores) / self.seeds


class _Rung:
    """The latest results of a rung."""

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
            values = np.array([result.losses for result in results])
            several = values.shape[1] > 1
            ranks = moocore.pareto_rank(values) if several else np.zeros(len(values))
            self._order = [results[i] for i in np.lexsort((values[:, 0], ranks))]
        return self._order


class SuccessiveHalving:
    """A searcher whose candidates are evaluated at more and more expense, if they are worth it.

    Known designs are always promoted, so that others can be compared with them at every rung.
    Failures count, and are never promoted; nor are repetitions of another candidate.

    Args:
        searcher: proposes new candidates, without a limit of its own.
        objectives: name to direction.
        levels: one a rung, the cheapest first.
        limit: how many candidates to train; None for no limit. Those that are only looked at ahead
            do not count, unless they fail.
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
        scored: bool = True,
    ) -> None:
        self._searcher, self._objectives, self._levels = searcher, objectives, levels
        self._rungs = [_Rung() for _ in levels]
        self._first = int(levels[0].look_ahead)
        self._limit = limit
        self._begun: set[int] = set()  # numbers of those that are trained
        self._direction, self._scored = next(iter(objectives.values())), scored
        # the full rung, after which only seeds differ; out of reach where there is no race
        races = [level.race for level in levels]
        self._race = races.index(True) - 1 if any(races) else len(levels)
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
            if not 0 <= candidate.rung < len(self._levels):
                continue
            rung = self._rungs[candidate.rung]
            if self._searcher.knows(candidate):
                continue
            self._searcher.tell([evaluation])
            if evaluation.copied_from:
                continue
            rung.told += 1
            if candidate.rung >= self._first:
                self._begun.add(candidate.number)
            if evaluation.status is Status.OK:
                mine = losses(evaluation, self._objectives)
                rung.add(_Result(candidate, mine))
                self._enter(candidate, np.array(mine), np.array(evaluation.scores))
            elif candidate.rung > self._race and candidate.number in self._racers:
                self._racers[candidate.number].failed = True
            elif candidate.rung < self._first:  # it is not worth a training, and counts
                self._begun.add(candidate.number)
            if candidate.rung:  # of an earlier part of the run: it was promoted then
                below = self._rungs[candidate.rung - 1].results.get(candidate.number)
                if below is not None and not below.promoted:
                    self._promote(candidate.rung - 1, below)

    def _enter(self, candidate: Candidate, mine: Array, scores: Array) -> None:
        """Keep what the race needs of a result at the full rung, or of a further seed."""
        if candidate.rung == self._race:
            self._racers[candidate.number] = _Racer(candidate.number, mine, scores)
            if len(self._racers) > WINDOW:
                self._racers.popitem(last=False)
        elif candidate.rung > self._race and candidate.number in self._racers:
            self._racers[candidate.number].add(mine, scores)

    def agreement(self) -> list[Agreement]:
        """Return how well each rung predicts the next, by the latest candidates."""
        return [self._agreement(place) for place in range(len(self._rungs) - 1)]

    def _agreement(self, place: int) -> Agreement:
        low, high = self._rungs[place].results, self._rungs[place + 1].results
        both = [number for number in low if number in high]
        return agree(place, [(low[n].losses[0], high[n].losses[0]) for n in both])

    def _room(self, wanted: int) -> int:
        if self._limit is None:
            return wanted
        left = self._limit - len(self._begun)
        # those that are looked at ahead begin when they are promoted
        return max(0, wanted if self._first and left > 0 else min(wanted, left))

    def _full(self) -> bool:
        return self._limit is not None and len(self._begun) >= self._limit

    def _promotion(self) -> Candidate | None:
        """Return a candidate to go on with, from the highest rung that has one."""
        for place in reversed(range(len(self._levels) - 1)):
            rung = self._rungs[place]
            if place < self._first and self._full():
                continue
            chosen = self._choose(place, rung) if rung.results else None
            if chosen is not None:
                self._promote(place, chosen)
                if place < self._first:
                    self._begun.add(chosen.candidate.number)
                return replace(chosen.candidate, rung=place + 1)
        return None

    def _promote(self, place: int, result: _Result) -> None:
        result.promoted = True
        if not result.candidate.operator.startswith("seed:"):
            self._rungs[place].promoted += 1

    def _choose(self, place: int, rung: _Rung) -> _Result | None:
        """Return who goes on from a rung, if anybody does."""
        waiting = [result for result in rung.results.values() if not result.promoted]
        known = next((result for result in waiting if result.known), None)
        if known or not waiting:
            return known
        level = self._levels[place]
        if level.look_ahead and not self._trusted(place):
            return waiting[0]
        full = rung.promoted + 1 > rung.told / level.factor
        if self._levels[place + 1].race:
            return self._contender(place, full)
        if full:
            return None
        if rung.promoted % CHANCE == CHANCE - 1:
            rng = np.random.default_rng([place, rung.promoted])
            return waiting[int(rng.integers(len(waiting)))]
        best = rung.order()[: max(1, int(len(rung.results) / level.factor))]
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
        values = np.array([racer.losses for racer in line])
        order = np.lexsort((np.arange(len(line)), values[:, 0])).tolist()
        front = np.zeros(len(line), dtype=bool)
        if values.shape[1] > 1:
            front = moocore.is_nondominated(values, keep_weakly=True)
        leader = line[order[0]]
        for index in order:
            result = self._rungs[place].results.get(line[index].number)
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
        if one.losses[0] >= BAD or not self._scored or len(one.scores) != len(leader.scores):
            return bool(one.losses[0] <= leader.losses[0])
        sign = -1.0 if self._direction == "max" else 1.0
        worse, half = mean_interval((sign * (one.scores - leader.scores)).tolist())
        return worse - half <= 0
