"""Constraints: read, written, and how far a candidate is beyond them."""

import itertools
import math

import pytest

from evometa.errors import StudyError
from evometa.limits import dominated, parse_limit
from evometa.records import Candidate, Evaluation, Status
from evometa.search.model import HUGE

METRICS = ("loss", "size")


@pytest.mark.parametrize(
    "text", ["size <= 1234567", "size >= 0.1", "size <= 0.30000000000000004", "loss >= -123456789"]
)
def test_a_limit_is_written_as_it_is_meant(text):
    assert str(parse_limit(text, METRICS)) == text


def test_a_bound_must_be_finite():
    with pytest.raises(StudyError, match="must read like"):
        parse_limit("size <= 1e999", METRICS)


def seen(text, loss, size, direction="min"):
    evaluation = Evaluation(Candidate(0, {}, 0), Status.OK, {"loss": loss, "size": size})
    limit = parse_limit(text, METRICS)
    return dominated(evaluation, [limit], {"loss": direction}).metrics["loss"]


@pytest.mark.parametrize("bound", ["0", "1e-200", "7", "1e200"])
def test_the_farther_beyond_the_worse_and_never_infinite(bound):
    sizes = [float(bound) * (1 + k) + k for k in (0, 1e-3, 1.0, 1e3, 1e300)]
    losses = [seen(f"size <= {bound}", 0.0, size) for size in sizes if math.isfinite(size)]
    assert all(map(math.isfinite, losses))
    assert losses[0] == 0.0 and losses == sorted(losses)
    assert losses[1] < losses[2] or bound == "1e-200"  # where both are as far as can be


@pytest.mark.parametrize("direction", ["min", "max"])
def test_any_that_keeps_the_limits_is_better_than_any_that_does_not(direction):
    sign = 1.0 if direction == "min" else -1.0
    good = [sign * seen("size <= 7", sign * loss, 7.0, direction) for loss in (0.0, 1e9, 1e25)]
    bad = [sign * seen("size <= 7", sign * loss, 7.1, direction) for loss in (-1e25, 0.0)]
    assert all(one < other for one, other in itertools.product(good, bad))


def test_the_model_of_the_search_sees_how_far_limits_are_broken():
    assert seen("size <= 7", 0.0, 1e300) < HUGE  # where it clips
