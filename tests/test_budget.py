"""What counts towards the patience of a search, and when."""

import pytest

from evometa.budget import Budget, Meter
from evometa.records import Candidate, Evaluation, Status

ONE = {"loss": "min"}


def told(meter, loss=0.0, rung=1, repeat=0, status=Status.OK, **changes):
    metrics = {"loss": loss} if status is Status.OK else {}
    candidate = Candidate(0, {}, 0, rung, repeat)
    meter.told(Evaluation(candidate, status, metrics, **{"seconds": 1.0, **changes}))


def patient(results, last=1):
    meter = Meter(Budget(patience=results), ONE, last)
    told(meter, 5.0, rung=last)
    return meter


@pytest.mark.parametrize(
    "vain",
    [
        {"loss": 6.0},
        {"loss": 5.0},
        {"loss": 1.0, "violation": 0.1},  # it is not allowed to be the best
        {"loss": 1.0, "repeat": 1},  # of one seed more: a mean of seeds is no new candidate
        {"status": Status.DIVERGED},
        {"status": Status.INVALID, "rung": 0},
    ],
)
def test_results_that_do_not_move_the_front_use_up_the_patience(vain):
    meter = patient(3)
    for _ in range(2):
        told(meter, **vain)
    assert not meter.spent
    told(meter, **vain)
    assert "has not moved over 3 results" in meter.spent


def test_results_on_the_way_to_the_full_rung_do_not_count():
    meter = patient(3)
    for _ in range(9):
        told(meter, 9.0, rung=0)
    assert not meter.spent


def test_who_moves_the_front_renews_the_patience_until_it_is_used_up():
    meter = patient(2)
    for loss in (4.0, 3.0, 2.0):
        told(meter, 9.0)
        told(meter, loss)
    assert not meter.spent
    for loss in (9.0, 9.0, 1.0):  # the last was in flight when the search ended
        told(meter, loss)
    assert meter.spent


def test_time_is_counted_as_results_are_told():
    meter = Meter(Budget(device_seconds=10.0), ONE)
    told(meter, seconds=4.0, status=Status.ERROR)
    assert not meter.spent
    told(meter, seconds=6.0)
    assert "10 device-seconds are used up" in meter.spent
