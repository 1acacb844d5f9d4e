"""The one loop: ask, submit, collect, record, tell.

It sees the searcher, the executor and the store by protocol alone, and keeps nothing that is not
in the table: a killed run goes on by walking the same steps with the stored rows at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from evometa.errors import StoreError, StudyError
from evometa.execute.early_errors import EarlyErrors
from evometa.execute.protocol import Executor
from evometa.records import Candidate, Evaluation, Genome, Key, Status, canonical_json, genome_hash
from evometa.search.protocol import Searcher

POLL_SECONDS = 0.2
DONE = "nothing is left to propose"

Order: TypeAlias = Literal["logical", "arrival"]


class Recorder(Protocol):
    """Where evaluations are kept."""

    def append(self, evaluation: Evaluation, told: int) -> None:
        """Keep an evaluation and its place in the order of telling."""
        ...

    def recall(self, number: int, rung: int, repeat: int) -> Evaluation:
        """Return a kept evaluation."""
        ...


class Observer(Protocol):
    """Who watches a search: a progress line, a logger."""

    def found(self, evaluation: Evaluation) -> None:
        """Take notice of an evaluation that an earlier part of the search has recorded."""
        ...

    def recorded(self, evaluation: Evaluation) -> None:
        """Take notice of an evaluation that has just been recorded."""
        ...

    def tick(self) -> None:
        """Be called several times a second."""
        ...


class Meter(Protocol):
    """Counts what is spent."""

    def told(self, evaluation: Evaluation) -> None:
        """Count a result, in the order of telling."""
        ...

    @property
    def spent(self) -> str:
        """Which part of the budget is used up; empty if none is."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When candidates are asked for, and in which order results are told.

    Attributes:
        window: how far proposals may run ahead of what has been told. A property of the study, not
            of the machine: two to four times the workers keep them busy.
        order: `"logical"` tells results in the order in which they were asked for. The *n*-th
            candidate is then asked for exactly when the first `n - window + 1` results have been
            told, so that one worker and sixty-four give the same table. `"arrival"` tells results
            as they come, which keeps all workers busy when run times differ widely; the order is a
            column of the table.
        pack: how many candidates are asked for, and evaluated, together; at most the window.
    """

    window: int
    order: Order = "logical"
    pack: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.pack <= self.window:
            raise StudyError(
                f"`1 <= pack <= window` must hold, but got (pack={self.pack}, window={self.window})"
            )


class Search:
    """A search in progress.

    Args:
        searcher: proposes candidates, and promotes them.
        executor: evaluates them.
        recorder: keeps the evaluations, before the searcher is told of them.
        observer: watches.
        meter: says when to stop; the search also ends when the searcher has nothing to propose.
        schedule: how far ahead, in which order.
        identify: gives genomes that stand for the same candidate the same text.
    """

    def __init__(
        self,
        searcher: Searcher,
        executor: Executor,
        recorder: Recorder,
        observer: Observer,
        meter: Meter,
        schedule: Schedule,
        identify: Callable[[Genome], str] = genome_hash,
    ) -> None:
        self._searcher, self._executor = searcher, executor
        self._recorder, self._observer, self._meter = recorder, observer, meter
        self._schedule, self._identify = schedule, identify
        self._asked = self._told = self._recorded = 0
        self._places: dict[Key, int] = {}  # in the order of asking; of what has not been told
        self._originals: dict[str, int] = {}  # `_identity` -> number of the first with it
        self._pending: dict[Key, list[Candidate]] = {}  # submitted -> equal candidates waiting
        self._company: set[Key] = set()  # stored, and at most evaluated again beside others
        self._arrived: dict[int, Evaluation] = {}  # by place; recorded, not yet told
        self._early = EarlyErrors()
        self._dry = False  # the searcher has nothing until it is told more

    def run(self, stored: Sequence[Evaluation] = ()) -> str:
        """Search until the budget is spent or nothing is left to propose; return which it was.

        Args:
            stored: evaluations of an earlier part of the same search, in the order of telling.
                They are told again, and not evaluated again.

        Raises:
            StoreError: if a stored candidate is not the one that the searcher proposes again.
            StudyError: if the first candidates all end in the same error.
        """
        known: dict[Key, Evaluation] = {}
        if self._schedule.order == "logical":
            known = {evaluation.candidate.key: evaluation for evaluation in stored}
        else:
            self._tell_again(stored)
        while True:
            stop = self._ask(known)
            if self._told == self._asked:
                return stop or DONE
            result = self._next_result()
            if result is not None:
                self._tell(result)
                continue
            for evaluation in self._executor.collect(POLL_SECONDS):
                if evaluation.candidate.key in self._company:
                    continue
                self._record(evaluation)
                for copy in self._pending.pop(evaluation.candidate.key):
                    self._record(_copied(evaluation, copy))
            self._observer.tick()

    def _tell(self, evaluation: Evaluation) -> None:
        self._searcher.tell([evaluation])
        self._meter.told(evaluation)
        self._told += 1
        self._dry = False

    def _tell_again(self, stored: Sequence[Evaluation]) -> None:
        for evaluation in stored:
            candidate = evaluation.candidate
            self._originals.setdefault(self._identity(candidate), candidate.number)
            self._observer.found(evaluation)
            self._early.found(evaluation)
            self._tell(evaluation)
        self._asked = self._recorded = len(stored)

    def _ask(self, known: dict[Key, Evaluation]) -> str:
        """Ask for as much as the schedule allows; return why no more is asked for, if so."""
        pack = self._schedule.pack
        # a pack waits until there is room for all of it
        while not self._dry and self._asked + pack <= self._told + self._schedule.window:
            spent = self._meter.spent
            if spent:
                return spent
            batch = self._searcher.ask(pack)
            self._dry = not batch
            members = [candidate for candidate in batch if self._begin(candidate, known)]
            # A pack that was stored in part is evaluated as it was, so that its missing members
            # come out to the last bit as they would have.
            if any(candidate.key in self._pending for candidate in members):
                self._executor.submit(members)
        return ""

    def _begin(self, candidate: Candidate, known: dict[Key, Evaluation]) -> bool:
        """Take a candidate on; return whether it is a member of its pack."""
        self._places[candidate.key] = self._asked
        self._asked += 1
        stored = known.pop(candidate.key, None)
        if stored is None:
            return self._is_new(candidate)
        self._found(candidate, stored)
        if stored.copied_from:
            return False
        self._company.add(candidate.key)
        return True

    def _found(self, candidate: Candidate, stored: Evaluation) -> None:
        if canonical_json(candidate.genome) != canonical_json(stored.candidate.genome):
            raise StoreError(
                "the search no longer proposes what it proposed before: candidate "
                f"{candidate.id} is stored as {canonical_json(stored.candidate.genome):.500}, but "
                f"now comes as {canonical_json(candidate.genome):.500}; resume with the versions "
                "that study.json names"
            )
        self._originals.setdefault(self._identity(candidate), candidate.number)
        self._arrived[self._places.pop(candidate.key)] = stored
        self._recorded += 1
        self._observer.found(stored)
        self._early.found(stored)

    def _is_new(self, candidate: Candidate) -> bool:
        """Return whether it must be evaluated; else take an equal one's result."""
        original = self._originals.setdefault(self._identity(candidate), candidate.number)
        if original == candidate.number:
            self._pending[candidate.key] = []
            return True
        key = original, candidate.rung, candidate.repeat
        waiting = self._pending.get(key)
        if waiting is not None:
            waiting.append(candidate)
        else:
            self._record(_copied(self._recorder.recall(*key), candidate))
        return False

    def _record(self, evaluation: Evaluation) -> None:
        evaluation = _finite(evaluation)
        place = self._places.pop(evaluation.candidate.key)
        logical = self._schedule.order == "logical"
        self._recorder.append(evaluation, place if logical else self._recorded)
        self._recorded += 1
        self._arrived[place] = evaluation
        self._observer.recorded(evaluation)
        self._early.recorded(evaluation)

    def _identity(self, candidate: Candidate) -> str:
        return f"{candidate.rung}/{candidate.repeat}:{self._identify(candidate.genome)}"

    def _next_result(self) -> Evaluation | None:
        if self._schedule.order == "logical":
            return self._arrived.pop(self._told, None)
        first = next(iter(self._arrived), None)
        return None if first is None else self._arrived.pop(first)


def _finite(evaluation: Evaluation) -> Evaluation:
    """Name an `OK` evaluation whose metrics are not finite `DIVERGED`: no NaN is ever ranked."""
    odd = [name for name, value in evaluation.metrics.items() if not math.isfinite(value)]
    if evaluation.status is not Status.OK or not odd:
        return evaluation
    error = f"{odd[0]} is {evaluation.metrics[odd[0]]}"
    return replace(
        evaluation, status=Status.DIVERGED, metrics={}, scores=(), violation=0.0, error=error
    )


def _copied(evaluation: Evaluation, candidate: Candidate) -> Evaluation:
    """Return an equal candidate's result as that of `candidate`, at no cost."""
    original = evaluation.copied_from or evaluation.candidate.id
    saved = evaluation.seconds or evaluation.saved_seconds
    return replace(
        evaluation, candidate=candidate, copied_from=original, seconds=0.0, saved_seconds=saved
    )
