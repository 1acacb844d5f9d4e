"""Laws that every executor keeps."""

import asyncio
import sys
import time

import pytest

from evometa.errors import ExecutorError
from evometa.records import Candidate, Evaluation, Status


def evaluate(pack):
    if any(candidate.genome == "raise" for candidate in pack):
        raise ValueError("this genome raises")
    if any(candidate.genome == "exit" for candidate in pack):
        sys.exit(3)
    if any(candidate.genome == "interrupt" for candidate in pack):
        raise KeyboardInterrupt("by its own code")
    if any(candidate.genome == "cancel" for candidate in pack):
        raise asyncio.CancelledError("by its own code")
    return [Evaluation(c, Status.OK, {"loss": float(c.number)}) for c in pack]


def candidates(n, genome=None):
    return [Candidate(number, genome, seed=number) for number in range(n)]


def collect_all(executor, n, seconds=60.0):
    found, until = [], time.monotonic() + seconds
    while len(found) < n and time.monotonic() < until:
        found += executor.collect(0.1)
    return found


class ExecutorContract:
    """Derive, and give a fixture `make` that turns an `evaluate` into an executor."""

    def test_every_candidate_comes_back_once(self, make):
        executor = make(evaluate)
        all_of_them = candidates(20)
        for pack in (all_of_them[:1], all_of_them[1:4], all_of_them[4:9], all_of_them[9:]):
            executor.submit(pack)
        found = collect_all(executor, 20)
        assert sorted(e.candidate.number for e in found) == list(range(20))
        assert all(e.metrics == {"loss": float(e.candidate.number)} for e in found)
        assert executor.collect(0.0) == []

    def test_what_the_evaluator_raises_is_an_error_with_its_traceback(self, make):
        executor = make(evaluate)
        executor.submit(candidates(2, "raise"))
        executor.submit([Candidate(9, "fine", 0)])
        found = {e.candidate.number: e for e in collect_all(executor, 3)}
        assert found[9].status is Status.OK
        for number in (0, 1):
            assert found[number].status is Status.ERROR
            assert "ValueError: this genome raises" in found[number].error

    def test_who_raises_is_blamed_and_no_other(self, make):
        executor = make(evaluate)
        pack = candidates(5)
        pack[3] = Candidate(3, "raise", 0)
        executor.submit(pack)
        found = {e.candidate.number: e.status for e in collect_all(executor, 5)}
        assert found == {n: Status.ERROR if n == 3 else Status.OK for n in range(5)}

    @pytest.mark.parametrize(
        ("genome", "said"),
        [
            ("exit", "SystemExit: 3"),
            ("interrupt", "KeyboardInterrupt: by its own code"),
            ("cancel", "CancelledError: by its own code"),
        ],
    )
    def test_who_leaves_or_interrupts_itself_is_blamed_and_no_other(self, make, genome, said):
        executor = make(evaluate)
        pack = candidates(3)
        pack[1] = Candidate(1, genome, 0)
        executor.submit(pack)
        found = {e.candidate.number: e for e in collect_all(executor, 3)}
        assert [found[n].status is Status.OK for n in range(3)] == [True, False, True]
        assert found[1].status is Status.ERROR and said in found[1].error

    def test_collect_returns_when_there_is_nothing(self, make):
        started = time.monotonic()
        assert make(evaluate).collect(0.05) == []
        assert time.monotonic() - started < 5

    def test_close_twice_and_submit_after(self, make):
        executor = make(evaluate)
        executor.close()
        executor.close()
        with pytest.raises(ExecutorError, match="closed"):
            executor.submit(candidates(1))

    def test_workers_are_counted(self, make):
        executor = make(evaluate)
        assert executor.workers >= 1
        executor.submit(candidates(3))
        collect_all(executor, 3)
        counts = executor.counts()
        assert 1 <= counts.alive + counts.starting <= executor.workers
        assert counts.busy == counts.lost == 0 and not counts.failures
        assert counts.busy_seconds > 0 and 0 < counts.utilisation <= 1
