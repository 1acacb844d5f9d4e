"""Options with weights: drawn that often, and otherwise the same choice."""

from collections import Counter

import numpy as np
import pytest

from evometa import space as s
from evometa.errors import SpaceError

PLAIN = s.Choice("a", 2, None, deep=s.Struct(width=s.Int(1, 4)))
WEIGHTED = PLAIN.weighted({"deep": 6, 2: 0.5})


def name(genome):
    return "deep" if isinstance(genome, dict) else genome


def shares(genomes):
    counts = Counter(map(name, genomes))
    return [counts[each] / len(genomes) for each in ("a", 2, None, "deep")]


def test_options_are_drawn_by_their_weights():
    rng = np.random.default_rng(0)
    found = shares([WEIGHTED.sample(rng) for _ in range(20_000)])
    np.testing.assert_allclose(found, np.array([1, 0.5, 1, 6]) / 8.5, atol=0.012)


@pytest.mark.parametrize("genome", ["a", None])
def test_another_option_is_drawn_by_its_weight_among_the_others(genome):
    rng = np.random.default_rng(0)
    found = shares([WEIGHTED.mutate(genome, rng) for _ in range(20_000)])
    weights = np.array([genome != "a", 0.5, genome is not None, 6.0])
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.012)


def test_equal_weights_draw_what_none_draw():
    even = PLAIN.weighted(dict.fromkeys(["a", "deep"], 1.0))
    assert even == PLAIN and even.describe() == PLAIN.describe() and repr(even) == repr(PLAIN)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    assert [PLAIN.sample(one) for _ in range(9)] == [even.sample(other) for _ in range(9)]


def test_weights_are_part_of_the_space_and_of_nothing_else():
    assert WEIGHTED != PLAIN and WEIGHTED.describe() != PLAIN.describe()
    assert WEIGHTED.values == PLAIN.values and WEIGHTED.branches == PLAIN.branches
    assert WEIGHTED.size() == PLAIN.size()
    assert list(WEIGHTED.weights.values()) == [1.0, 0.5, 1.0, 6.0]
    WEIGHTED.validate({"deep": {"width": 2}})
    assert "weighted" in repr(WEIGHTED)


@pytest.mark.parametrize(
    ("weights", "said"),
    [({"b": 1}, "got 'b'"), ({2.0: 1}, "got 2.0"), ({"a": 0}, "above 0"), ({"a": True}, "above 0"),
     ({"a": float("inf")}, "above 0"), ({"a": "x"}, "above 0")],
)  # fmt: skip
def test_weights_that_are_none_are_refused(weights, said):
    with pytest.raises(SpaceError, match=said):
        PLAIN.weighted(weights)
