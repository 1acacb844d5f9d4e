"""The executors in this process keep the contract."""

import pytest

from evometa.execute import Serial, Simulated
from tests.contracts.executor import ExecutorContract, candidates, evaluate


class TestSerial(ExecutorContract):
    @pytest.fixture
    def make(self):
        return Serial


class TestSimulated(ExecutorContract):
    @pytest.fixture
    def make(self):
        return lambda evaluate: Simulated(evaluate, lambda candidate: 1.0, slots=2)


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
