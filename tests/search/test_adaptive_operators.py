"""An operator is rewarded when its child dominates the parent, and then used more."""

from collections import Counter

import numpy as np
import pytest

from evometa.records import Candidate, Evaluation, Status
from evometa.search.model import Seen
from evometa.search.operators import CROSSOVER, LEAST, AdaptiveOperators
from evometa.space import Float, Int, Struct

SPACE = Struct(x=Float(0, 1), n=Int(0, 9))
TWO = {"loss": "min", "gain": "max"}


def told(operators, number, loss, gain=0.0, status=Status.OK, violation=0.0, **more):
    metrics = {"loss": loss, "gain": gain} if status is Status.OK else {}
    candidate = Candidate(number, {"x": 0.5, "n": number}, 0, **more)
    operators.observe(Evaluation(candidate, status, metrics, violation=violation))


PARENT = {"loss": 1.0, "gain": 1.0}
CHILDREN = {
    "better in both": ({"loss": 0.5, "gain": 1.5}, True),
    "better in the first": ({"loss": 0.5, "gain": 1.0}, True),
    "better in the second, which is to be maximised": ({"loss": 1.0, "gain": 1.5}, True),
    "equal": ({"loss": 1.0, "gain": 1.0}, False),
    "better and worse": ({"loss": 0.5, "gain": 0.5}, False),
    "worse and better": ({"loss": 1.5, "gain": 1.5}, False),
    "worse": ({"loss": 1.5, "gain": 0.5}, False),
    "better, and not allowed": ({"loss": 0.5, "gain": 1.5, "violation": 1.0}, False),
    "failed": ({"loss": 0.0, "status": Status.DIVERGED}, False),
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_only_a_child_that_dominates_its_first_parent_counts(kind):
    child, rewarded = CHILDREN[kind]
    operators = AdaptiveOperators(SPACE, TWO)
    told(operators, 0, **PARENT)
    told(operators, 1, loss=9.0, gain=-9.0)  # the second parent: all but one are better
    told(operators, 2, **child, parents=("c000000", "c000001"), operator=CROSSOVER)
    assert operators.uses[CROSSOVER] == 1
    assert operators.successes[CROSSOVER] == rewarded
    assert sum(operators.uses.values()) == 1 and sum(operators.successes.values()) == rewarded


def test_less_of_a_violation_is_better_whatever_the_losses():
    operators = AdaptiveOperators(SPACE, TWO)
    told(operators, 0, loss=0.0, violation=2.0)
    told(operators, 1, loss=9.0, violation=1.0, parents=("c000000",), operator=CROSSOVER)
    assert operators.successes[CROSSOVER] == 1


def test_a_child_is_compared_at_its_own_rung_or_not_at_all():
    operators = AdaptiveOperators(SPACE, TWO)
    told(operators, 0, 1.0)
    told(operators, 1, 0.5, parents=("c000000",), operator=CROSSOVER, rung=1)
    assert operators.uses[CROSSOVER] == 0
    told(operators, 0, 0.4, rung=1)
    told(operators, 2, 0.5, parents=("c000000",), operator=CROSSOVER, rung=1)
    assert (operators.uses[CROSSOVER], operators.successes[CROSSOVER]) == (1, 0)


def test_a_parent_that_failed_or_is_unknown_rewards_nobody():
    operators = AdaptiveOperators(SPACE, TWO)
    told(operators, 0, 1.0, status=Status.ERROR)
    for number, parent in ((1, "c000000"), (2, "c000077")):
        told(operators, number, 0.0, parents=(parent,), operator=CROSSOVER)
    told(operators, 3, 0.0, parents=(), operator=CROSSOVER)
    told(operators, 4, 0.0, parents=("c000000",), operator="foreign")
    assert (operators.uses[CROSSOVER], operators.successes[CROSSOVER]) == (2, 0)
    assert sum(operators.uses.values()) == 2


def test_who_is_rewarded_is_used_more_and_nobody_is_dropped():
    operators = AdaptiveOperators(SPACE, {"loss": "min"})
    good, *others = [name for name in operators.uses if name != CROSSOVER]
    told(operators, 0, 1.0)
    for number in range(1, 61):
        name = (good, *others)[number % (1 + len(others))]
        loss = 0.5 if name == good else 2.0
        told(operators, number, loss, parents=("c000000",), operator=name)
    parent = Seen("c000000", {"x": 0.5, "n": 3}, {}, (1.0,), 0.0)
    rng = np.random.default_rng(0)
    used = Counter(operators.child(parent, parent, rng).operator for _ in range(2000))
    assert set(used) == {good, *others}, "one parent alone is not crossed"
    rates = {name: (operators.successes[name], operators.uses[name]) for name in used}
    assert rates[good][0] == rates[good][1] and all(rates[name][0] == 0 for name in others)
    assert used[good] > 1.5 * max(used[name] for name in others)
    assert min(used.values()) > 2000 * LEAST / len(operators.uses) * 0.8
