"""What a process had is what it used."""

import os
import time

import pytest

from evometa.execute.usage import Usage, told, usage


def test_a_process_that_worked_has_had_a_core():
    before, began = usage(os.getpid()), time.process_time()
    if before is None:
        pytest.skip("this system does not say")
    while time.process_time() - began < 0.2:
        pass
    after = usage(os.getpid())
    assert after.cpu - before.cpu == pytest.approx(time.process_time() - began, abs=0.05)


def test_nothing_is_said_of_what_is_not_known():
    assert usage(2**22 + 1) is None
    assert told(None, Usage(1.0, 1.0), 1.0) == told(Usage(1.0, 1.0), None, 1.0) == ""
    assert told(Usage(1.0, None), Usage(1.5, 2.0), 3.0) == "; in 3.0 s it had 0.5 s of CPU time"
    said = told(Usage(1.0, 1.0), Usage(1.5, 3.25), 3.0)
    assert said.endswith("had 0.5 s of CPU time, and waited 2.2 s for a core that others used")
