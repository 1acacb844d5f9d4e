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
from evometa.execute.protocol import Executor
from evometa.records import Candidate, Evaluation, Genome, Status, canonical_json, genome_hash
from evometa.search.protocol import Searcher

POLL_SECONDS = 0.2

Order: TypeAlias = Literal["logical", "arrival"]


class Recorder(Protocol):
    """Where evaluations are kept."""

    def append(self, evaluation: Evaluation, told: int) -> None:
        """Keep an evaluation and its place in the order of telling."""
        ...

    def recall(self, candidate_id: str) -> Evaluation:
        """Return a kept evaluation."""
        ...


class Observer(Protocol):
    """Who watches a search: a progress line, a logger."""

    def recorded(self, evaluation: Evaluation) -> None:
        """Take notice of an evaluation, newly recorded or found in the table."""
        ...

    def tick(self) -> None:
        """Be called several times a second."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When candidates are asked for, and in which order results are told.

    Attributes:
        candidates: how many to evaluate in all.
        window: how far proposals may run ahead of what has been told. A property of the study, not
            of the machine: two to four times the workers keep them busy.
        order: `"logical"` tells results in the order of the candidates. Candidate *n* is then asked
            for exactly when the first `n - window + 1` results have been told, so that one worker
            and sixty-four give the same table. `"arrival"` tells results as they come, which keeps
            all workers busy when run times differ widely; the order is a column of the table.
        pack: how many candidates are asked for, and evaluated, together; at most the window.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.pack <= self.window:
            raise StudyError(
                f"`1 <= pack <= window` must hold, but got (pack={self.pack}, window={self.window})"
            )

    candidates: int
    window: int
    order: Order = "logical"
    pack: int = 1


class Search:
    """A search in progress.

    Args:
        searcher: proposes candidates.
        executor: evaluates them.
        recorder: keeps the evaluations, before the searcher is told of them.
        observer: watches.
        schedule: how many, how far ahead, in which order.
        identify: gives genomes that stand for the same candidate the same text.
    """

    def __init__(
        self,
        searcher: Searcher,
        executor: Executor,
        recorder: Recorder,
        observer: Observer,
        schedule: Schedule,
        identify: Callable[[Genome], str] = genome_hash,
    ) -> None:
        self._searcher, self._executor = searcher, executor
        self._recorder, self._observer = recorder, observer
        self._schedule, self._identify = schedule, identify
        self._budget = schedule.candidates
        self._asked = self._told = self._recorded = 0
        self._originals: dict[str, str] = {}  # genome and rung -> id of the first candidate with it
        self._pending: dict[str, list[Candidate]] = {}  # submitted id -> equal candidates waiting
        self._company: set[str] = set()  # stored, and at most evaluated again beside others
        self._arrived: dict[int, Evaluation] = {}  # recorded, not yet told

    def run(self, stored: Sequence[Evaluation] = ()) -> None:
        """Search until the budget is spent or nothing is left to propose.

        Args:
            stored: evaluations of an earlier part of the same search, in the order of telling.
                They are told again, and not evaluated again.

        Raises:
            StoreError: if a stored candidate is not the one that the searcher proposes again.
        """
        known: dict[int, Evaluation] = {}
        if self._schedule.order == "logical":
            known = {evaluation.candidate.number: evaluation for evaluation in stored}
        else:
            self._tell_again(stored)
        while True:
            self._ask(known)
            if self._told >= self._budget:
                return
            result = self._next_result()
            if result is not None:
                self._searcher.tell([result])
                self._told += 1
                continue
            for evaluation in self._executor.collect(POLL_SECONDS):
                if evaluation.candidate.id in self._company:
                    continue
                self._record(evaluation)
                for copy in self._pending.pop(evaluation.candidate.id):
                    self._record(_copied(evaluation, copy))
            self._observer.tick()

    def _tell_again(self, stored: Sequence[Evaluation]) -> None:
        for evaluation in stored:
            self._originals.setdefault(self._key(evaluation.candidate), evaluation.candidate.id)
            self._observer.recorded(evaluation)
            self._searcher.tell([evaluation])
        self._asked = self._told = self._recorded = len(stored)

    def _ask(self, known: dict[int, Evaluation]) -> None:
        while self._asked < self._budget:
            # the last pack waits like a whole one, so that a larger budget changes nothing before
            if self._asked + self._schedule.pack > self._told + self._schedule.window:
                return
            count = min(self._schedule.pack, self._budget - self._asked)
            batch = self._searcher.ask(count)
            if len(batch) < count:
                self._budget = self._asked + len(batch)  # nothing is left to propose
            self._asked += len(batch)
            pack = []
            for candidate in batch:
                stored = known.pop(candidate.number, None)
                if stored is not None:
                    self._found(candidate, stored)
                    if not stored.copied_from:
                        self._company.add(candidate.id)
                        pack.append(candidate)
                elif self._is_new(candidate):
                    pack.append(candidate)
            # A pack that was stored in part is evaluated as it was, so that its missing members
            # come out to the last bit as they would have.
            if any(candidate.id in self._pending for candidate in pack):
                self._executor.submit(pack)

    def _found(self, candidate: Candidate, stored: Evaluation) -> None:
        if canonical_json(candidate.genome) != canonical_json(stored.candidate.genome):
            raise StoreError(
                "the search no longer proposes what it proposed before: candidate "
                f"{candidate.id} is stored as {canonical_json(stored.candidate.genome)}, but now "
                f"comes as {canonical_json(candidate.genome)}; resume with the versions that "
                "study.json names"
            )
        self._originals.setdefault(self._key(candidate), candidate.id)
        self._arrived[candidate.number] = stored
        self._recorded += 1
        self._observer.recorded(stored)

    def _is_new(self, candidate: Candidate) -> bool:
        """Return whether it must be evaluated; else take an equal one's result."""
        original = self._originals.setdefault(self._key(candidate), candidate.id)
        if original == candidate.id:
            self._pending[candidate.id] = []
            return True
        if original in self._pending:
            self._pending[original].append(candidate)
        else:
            self._record(_copied(self._recorder.recall(original), candidate))
        return False

    def _record(self, evaluation: Evaluation) -> None:
        evaluation = _finite(evaluation)
        number = evaluation.candidate.number
        logical = self._schedule.order == "logical"
        self._recorder.append(evaluation, number if logical else self._recorded)
        self._recorded += 1
        self._arrived[number] = evaluation
        self._observer.recorded(evaluation)

    def _key(self, candidate: Candidate) -> str:
        return f"{candidate.rung}:{self._identify(candidate.genome)}"

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
    return replace(evaluation, status=Status.DIVERGED, metrics={}, scores=(), error=error)


def _copied(evaluation: Evaluation, candidate: Candidate) -> Evaluation:
    """Return an equal candidate's result as that of `candidate`, at no cost."""
    original = evaluation.copied_from or evaluation.candidate.id
    saved = evaluation.seconds or evaluation.saved_seconds
    return replace(
        evaluation, candidate=candidate, copied_from=original, seconds=0.0, saved_seconds=saved
    )
