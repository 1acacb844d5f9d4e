"""The executors in this process keep the contract."""

import contextlib
import signal
import sys

import pytest

from evometa.errors import Interrupted
from evometa.execute import Interrupts, Serial, Simulated
from evometa.execute.interrupts import GRACE_SECONDS
from evometa.records import Candidate
from tests.contracts.executor import ExecutorContract, candidates, evaluate


class TestSerial(ExecutorContract):
    @pytest.fixture
    def make(self):
        return Serial


class TestSimulated(ExecutorContract):
    @pytest.fixture
    def make(self):
        return lambda evaluate: Simulated(evaluate, lambda candidate: 1.0, slots=2)


def test_ctrl_c_ends_a_serial_search_and_blames_no_candidate():
    """Even where the candidate's code catches it."""

    def pressed(pack):
        with contextlib.suppress(BaseException if pack[0].genome == "catches" else ValueError):
            signal.raise_signal(signal.SIGINT)
        return evaluate(pack)

    for genome in ("passes on", "catches"):
        executor = Serial(pressed)
        executor.submit([Candidate(0, genome, 0)])
        with pytest.raises(Interrupted):
            executor.collect(0.0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_within_the_grace_are_one_wish():
    times = iter([0.0, 0.0, 1.0, GRACE_SECONDS - 0.1, GRACE_SECONDS])
    interrupts = Interrupts(lambda: next(times))
    interrupts.check()
    with pytest.raises(Interrupted):
        interrupts(signal.SIGTERM, None)
    for _ in range(3):
        interrupts(signal.SIGINT, None)
    with pytest.raises(Interrupted):
        interrupts.check()
    with pytest.raises(Interrupted):
        interrupts(signal.SIGINT, None)


def test_what_is_held_is_raised_at_the_end_and_who_insists_before():
    times = iter([0.0, 1.0, 0.0, GRACE_SECONDS])
    for insisting in (False, True):
        interrupts, passed = Interrupts(lambda: next(times)), False
        with pytest.raises(Interrupted), interrupts.held():
            interrupts(signal.SIGTERM, None)
            interrupts(signal.SIGTERM, None)
            passed = True
        assert passed is not insisting


def test_what_a_process_was_started_to_ignore_it_ignores(monkeypatch):
    handlers = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_DFL}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    interrupts = Interrupts()
    interrupts.install()
    assert handlers == {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: interrupts}


def test_the_simulated_clock_overlaps_workers():
    durations = {0: 3.0, 1: 1.0, 2: 1.0, 3: 4.0}
    executor = Simulated(evaluate, lambda c: durations[c.number], slots=2)
    for candidate in candidates(4):
        executor.submit([candidate])
    order = []
    while found := executor.collect(0.0):
        order.append((executor.now, found[0].candidate.number))
    assert order == [(1.0, 1), (2.0, 2), (3.0, 0), (6.0, 3)]
    assert executor.utilisation == pytest.approx(9 / 12)
