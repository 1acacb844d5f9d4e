"""The model behind the default searcher, and the spaces it must cope with."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.integrate import trapezoid
from scipy.linalg import cho_factor, cho_solve

from evometa.records import Candidate, Evaluation, Status, canonical_json
from evometa.search import Proposal, make_searcher
from evometa.search.hybrid import _best
from evometa.search.model import KEPT, Judge, Model, Seen, _towards
from evometa.search.protocol import Asked
from evometa.search.surrogate import JITTER, Columns, Surrogate, Weights, _matern
from evometa.space import Choice, Float, Int, List, Struct
from evometa.space.features import features
from tests.space.strategies import seeds, spaces


@given(spaces, seeds)
@settings(max_examples=60, deadline=None)
def test_features_are_finite_and_tell_genomes_apart(space, seed):
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    one, other = features(space, first), features(space, second)
    assert all(np.isfinite(value) and abs(value) <= 1 for value in one.values())
    assert features(space, first) == one
    if canonical_json(first) == canonical_json(second):
        assert one == other


@pytest.mark.slow
@given(spaces, seeds)
@settings(max_examples=25, deadline=None)
def test_any_space_is_searched(space, seed):
    """Valid and new genomes, whatever comes back: failures, ties, huge numbers."""
    searcher = make_searcher("hybrid", space, {"loss": "min", "cost": "max"}, seed)
    rng = np.random.default_rng(seed)
    seen = set()
    for index in range(24):
        batch = searcher.ask(2)
        for candidate in batch:
            space.validate(candidate.genome)
            text = canonical_json(candidate.genome)
            assert text not in seen
            seen.add(text)
            loss = [1.0, float(rng.standard_normal()), 1e300, -1e-300][index % 4]
            status = Status.DIVERGED if index % 5 == 0 else Status.OK
            metrics = {"loss": loss, "cost": float(index % 3)} if status is Status.OK else {}
            searcher.tell([Evaluation(candidate, status, metrics)])
        if len(batch) < 2:
            break


def observations(n, space, seed=0):
    rng = np.random.default_rng(seed)
    genomes = [space.sample(rng) for _ in range(n)]
    columns = Columns()
    rows = columns.rows([features(space, genome) for genome in genomes], learn=True)
    return columns, rows, rng.standard_normal(n)


SPACE = Struct(x=Float(0, 1), n=Int(1, 9), k=Choice("a", "b"), w=List(Int(1, 4), 1, 3))


def test_predictions_equal_the_textbook():
    _, rows, values = observations(30, SPACE)
    scale, noise = np.linspace(0.5, 2, rows.shape[1]), 0.1
    surrogate = Surrogate(rows[:20], 20, scale, noise)
    mean, spread = surrogate.predict(rows[20:], surrogate.solve(values[:20]))

    def kernel(one, other):
        apart = ((one[:, None] - other[None]) * scale) ** 2
        return _matern(apart.sum(-1), slope=False)[0]

    full = kernel(rows[:20], rows[:20]) + (noise + JITTER) * np.eye(20)
    near, factor = kernel(rows[20:], rows[:20]), cho_factor(full)
    assert mean == pytest.approx(near @ cho_solve(factor, values[:20]), abs=1e-9)
    variance = 1 - np.einsum("ij,ji->i", near, cho_solve(factor, near.T))
    assert spread == pytest.approx(np.sqrt(variance), abs=1e-7)


def test_what_is_pending_leaves_means_and_lowers_spread():
    _, rows, values = observations(30, SPACE)
    scale = np.ones(rows.shape[1])
    surrogate = Surrogate(rows[:20], 20, scale, 0.1)
    solved = surrogate.solve(values[:20])
    before, wide = surrogate.predict(rows[25:], solved)
    for row in rows[20:25]:
        surrogate.believe(row)
    after, narrow = surrogate.predict(rows[25:], solved)
    at_once, same = Surrogate(rows[:25], 20, scale, 0.1).predict(rows[25:], solved)
    assert after == pytest.approx(before) and after == pytest.approx(at_once)
    assert (narrow <= wide + 1e-9).all()
    assert narrow == pytest.approx(same)


def test_the_derivative_of_the_likelihood_equals_finite_differences(monkeypatch):
    columns, rows, values = observations(15, SPACE)
    seen = {}

    def capture(loss, start, **_):
        seen["loss"], seen["start"] = loss, start
        return type("Found", (), {"x": start})

    monkeypatch.setattr("scipy.optimize.minimize", capture)
    weights = Weights()
    weights.grow(columns.genes)
    weights.learn(rows, columns.gene_of, np.stack([values, values**2], 1))
    point = seen["start"] + 0.3
    _, slope = seen["loss"](point)
    for place in range(len(point)):
        step = np.zeros_like(point)
        step[place] = 1e-5
        rise = (seen["loss"](point + step)[0] - seen["loss"](point - step)[0]) / 2e-5
        assert slope[place] == pytest.approx(rise, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("genes", [1, 2, 7])
def test_genomes_that_differ_in_half_of_their_genes_lie_at_distance_one(genes):
    """At first, when nothing has been learned of them."""
    weights = Weights()
    weights.grow(genes)
    assert np.exp(weights.log_weights).sum() / 2 == pytest.approx(1.0)


def test_memory_is_bounded():
    model = Model(SPACE, {"loss": "min"})
    rng = np.random.default_rng(0)
    for number in range(5 * KEPT):
        candidate = Candidate(number, SPACE.sample(rng), 0)
        model.observe(Evaluation(candidate, Status.OK, {"loss": float(number % 97)}))
    assert len(model._seen) <= 2 * KEPT
    judge = model.judge([], np.ones(1))
    assert judge.parents[0].losses is not None and judge.parents[0].losses[0] < 10


def test_a_pack_holds_settings_of_one_structure():
    searcher = make_searcher("hybrid", SPACE, {"loss": "min"}, 0)
    for _ in range(12):
        pack = searcher.ask(4)
        for candidate in pack:
            loss = abs(candidate.genome["x"] - 0.3) + len(candidate.genome["w"])
            searcher.tell([Evaluation(candidate, Status.OK, {"loss": loss})])
    structures = {(c.genome["k"], len(c.genome["w"])) for c in pack}
    assert len(structures) == 1
    assert len({c.genome["x"] for c in pack}) == 4


def test_the_value_in_a_direction_equals_one_computed_by_hand():
    """ParEGO: 0.05 times the weighted sum, and the largest of the weighted, of scaled losses."""
    values = np.array([[0.0, 30.0], [1.0, 20.0], [4.0, 10.0], [2.0, 20.0]])
    # scaled to [0, 1]: (0, 1), (1/4, 1/2), (1, 0), (1/2, 1/2); weighted by 3/4 and 1/4:
    # (0, 1/4), (3/16, 1/8), (3/4, 0), (3/8, 1/8)
    by_hand = np.array(
        [1 / 4 + 0.05 / 4, 3 / 16 + 0.05 * 5 / 16, 3 / 4 + 0.05 * 3 / 4, 3 / 8 + 0.05 / 2]
    )
    found = _towards(values, np.array([0.75, 0.25]))
    mean, spread = by_hand.mean(), np.sqrt(((by_hand - by_hand.mean()) ** 2).mean())
    np.testing.assert_allclose(found, (by_hand - mean) / spread, rtol=1e-12)
    assert np.argsort(found).tolist() == [1, 0, 3, 2]


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_who_is_dominated_is_worse_in_every_direction(seed):
    rng = np.random.default_rng(seed)
    values = rng.random((20, 3))
    values[1] = values[0] + rng.random(3) * (rng.random(3) < 0.5) + 1e-3
    found = _towards(values, rng.dirichlet(np.ones(3)))
    assert found[0] < found[1]


def test_one_objective_is_its_own_value():
    values = np.array([[3.0], [1.0], [2.0]])
    np.testing.assert_array_equal(_towards(values, np.ones(1)), [3.0, 1.0, 2.0])


class Predicted:
    """A surrogate that says what it is told to."""

    def __init__(self, means, spreads, best):
        self._found = np.asarray(means), np.asarray(spreads)
        self._best = best

    def solve(self, targets):
        return np.array([self._best])

    def predict(self, rows, solved):
        return self._found


def judge_of(means, spreads, best=0.0):
    """Return a judge whose model predicts these; the best so far is expected to reach `best`."""

    class Rows:
        def rows(self, genomes):
            return np.zeros((len(genomes), 0))

    seen = [Seen("c000000", {}, {}, (0.0,), 0.0)]
    return Judge(Rows(), Predicted(means, spreads, best), np.ones((1, 1)), np.zeros(1), seen)


@pytest.mark.parametrize("best", [0.0, -1.2])
def test_promise_is_the_expected_improvement(best):
    """The mean of `max(0, best - y)` for normal `y`, by numerical integration."""
    means, spreads = np.array([-2.0, -0.5, 0.0, 0.3, 1.0]), np.array([0.2, 1.0, 0.7, 2.0, 0.5])
    found = judge_of(means, spreads, best).promise([{}] * 5)
    for mean, spread, promise in zip(means, spreads, found, strict=True):
        y = np.linspace(mean - 12 * spread, mean + 12 * spread, 200_001)
        density = np.exp(-0.5 * ((y - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        expected = trapezoid(np.maximum(0.0, best - y) * density, y)
        assert promise == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_promise_falls_as_the_mean_rises_and_rises_with_the_spread():
    line = np.linspace(-3, 3, 61)
    assert (np.diff(judge_of(line, np.ones(61)).promise([{}] * 61)) < 0).all()
    wider = judge_of(np.full(61, 0.5), np.linspace(0.1, 3, 61))
    assert (np.diff(wider.promise([{}] * 61)) > 0).all()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_best_of_a_pool_is_the_new_one_that_promises_most(seed):
    rng = np.random.default_rng(seed)
    means = rng.permutation(12).astype(float)
    pool = [Proposal({"x": index}) for index in range(12)]
    known = set(rng.choice(12, int(rng.integers(12)), replace=False).tolist())
    asked = Asked(is_new=lambda genome: genome["x"] not in known)
    best = _best(judge_of(means, np.ones(12)), pool, asked)
    assert best.genome["x"] == min(set(range(12)) - known, key=lambda index: means[index])
    assert _best(judge_of(means, np.ones(12)), pool, Asked(is_new=lambda genome: False)) is None


def test_what_is_proposed_promises_most_of_all_that_was_made(monkeypatch):
    """Of all children and their changes, whatever made them, nothing new promises more."""
    space = Struct(x=Float(0, 1), y=Float(0, 1), k=Choice("a", "b"))
    pools, promise = [], Judge.promise

    def watched(self, genomes):
        found = promise(self, genomes)
        pools.append((found, [canonical_json(genome) for genome in genomes]))
        return found

    monkeypatch.setattr(Judge, "promise", watched)
    searcher, judged = make_searcher("hybrid", space, {"loss": "min"}, 0), 0
    seen = set()
    for _ in range(40):
        pools.clear()
        (candidate,) = searcher.ask(1)
        genome = candidate.genome
        if pools:
            judged += 1
            known = {text: p for found, pool in pools for p, text in zip(found, pool, strict=True)}
            new = {text: p for text, p in known.items() if text not in seen}
            assert new[canonical_json(genome)] == max(new.values())
        seen.add(canonical_json(genome))
        loss = (genome["x"] - 0.3) ** 2 + (genome["y"] - 0.8) ** 2 + (genome["k"] == "a")
        searcher.tell([Evaluation(candidate, Status.OK, {"loss": loss})])
    assert 10 < judged < 36, "and now and then the model has no say"


def test_the_hybrid_comes_close_to_the_best_within_forty_evaluations():
    space = Struct(x=Float(0, 1), y=Float(0, 1), k=Choice("a", "b"))
    regrets = []
    for seed in range(3):
        searcher, losses = make_searcher("hybrid", space, {"loss": "min"}, seed), []
        for _ in range(40):
            (candidate,) = searcher.ask(1)
            x, y, k = (candidate.genome[name] for name in "xyk")
            losses.append((x - 0.3) ** 2 + (y - 0.8) ** 2 + (k == "a"))
            searcher.tell([Evaluation(candidate, Status.OK, {"loss": losses[-1]})])
        regrets.append((min(losses), np.median(losses[20:])))
    assert max(best for best, _ in regrets) < 1e-3
    assert max(median for _, median in regrets) < 0.05  # 0.6 for random search
