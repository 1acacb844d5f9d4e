"""The model behind the default searcher, and the spaces it must cope with."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.linalg import cho_factor, cho_solve

from evometa.records import Candidate, Evaluation, Status, canonical_json
from evometa.search import make_searcher
from evometa.search.model import KEPT, Model
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
