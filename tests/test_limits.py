"""Constraints: read, written, and how far a candidate is beyond them."""

import itertools
import math

import pytest

from evometa.errors import StudyError
from evometa.limits import parse_limit, penalised, violation
from evometa.records import Candidate, Evaluation, Status, dominates, rank_key

METRICS = ("loss", "size")


@pytest.mark.parametrize(
    "text", ["size <= 1234567", "size >= 0.1", "size <= 0.30000000000000004", "loss >= -123456789"]
)
def test_a_limit_is_written_as_it_is_meant(text):
    assert str(parse_limit(text, METRICS)) == text


def test_a_bound_must_be_finite():
    with pytest.raises(StudyError, match="must read like"):
        parse_limit("size <= 1e999", METRICS)


@pytest.mark.parametrize("bound", ["0", "1e-200", "7", "1e200"])
def test_the_farther_beyond_the_worse_and_never_infinite(bound):
    limits = [parse_limit(f"size <= {bound}", METRICS)]
    sizes = [float(bound) * (1 + k) + k for k in (0, 1e-3, 1.0, 1e3, 1e300)]
    broken = [violation({"size": size}, limits) for size in sizes if math.isfinite(size)]
    assert all(map(math.isfinite, broken))
    assert broken[0] == 0.0 and broken == sorted(broken)
    assert broken[1] < broken[2] or bound == "1e-200"  # where both are as far as can be


def key_of(loss, broken, direction="min"):
    found = Evaluation(Candidate(0, {}, 0), Status.OK, {"loss": loss}, violation=broken)
    return rank_key(found, {"loss": direction})


@pytest.mark.parametrize("direction", ["min", "max"])
def test_any_that_keeps_the_limits_is_better_than_any_that_does_not(direction):
    good = [key_of(loss, 0.0, direction) for loss in (-1e300, 0.0, 1e31, 1e300)]
    bad = [key_of(loss, broken, direction) for loss in (-1e300, 1e31) for broken in (1e-9, 1e6)]
    for one, other in itertools.product(good, bad):
        assert one < other and dominates(one, other) and not dominates(other, one)


def test_of_those_that_break_limits_the_one_that_breaks_them_less_is_better():
    near, far = key_of(5.0, 0.1), key_of(1.0, 0.2)
    assert dominates(near, far) and not dominates(far, near) and near < far
    assert not dominates(near, key_of(1.0, 0.1))


@pytest.mark.parametrize("worst", [-1e31, 0.0, 5.0, 1e31, 1e300])
def test_a_penalty_is_above_every_allowed_loss(worst):
    assert worst < penalised(worst, 1e-12) <= penalised(worst, 3.0) < math.inf
