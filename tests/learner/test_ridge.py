"""The ridge head against a direct solve, scikit-learn's formula written out in numpy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import preset
from evometa.learner.ridge import solved
from evometa.network import Network
from evometa.task.episodes import part_of
from tests.evaluate.test_presets import Points
from tests.learner.laws import Waves as Regression
from tests.learner.laws import assert_same, grads_of, learner_of, shapes, waves


def embedding(inputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 4)).double()


@pytest.mark.parametrize(("examples", "features"), [(5, 9), (9, 5), (1, 3), (4, 4)])
def test_both_systems_equal_a_direct_solve(examples, features):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(examples, features)), rng.normal(size=(examples, 2))
    direct = np.linalg.solve(x.T @ x + 0.3 * np.eye(features), x.T @ y)
    ours = solved(torch.tensor(x), torch.tensor(y), torch.tensor(0.3, dtype=torch.float64))
    np.testing.assert_allclose(ours, direct, rtol=1e-9, atol=1e-12)


def reference(module, meta, side, new, targets):
    with torch.no_grad():
        features = functional_call(module, meta["params"], (side.inputs,)).numpy() / 2
        queries = functional_call(module, meta["params"], (new,)).numpy() / 2
    x, q = (np.hstack([each, np.ones((len(each), 1))]) for each in (features, queries))
    penalty = float(meta["learned"]["log_penalty"].exp())
    return q @ np.linalg.solve(x.T @ x + penalty * np.eye(5), x.T @ targets)


def test_values_are_predicted_by_the_solution():
    module = embedding(1)
    learner = learner_of(preset("ridge"), Network(module), Regression(None))
    support, query = part_of(waves(1), 0)
    meta = begin(learner, 0)
    found = learner.predict(learner.adapt(meta, support), query.inputs)
    wanted = reference(module, meta, support, query.inputs, support.targets.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_classes_are_predicted_by_the_solution_of_one_hot_labels():
    module = embedding()
    learner = learner_of(preset("ridge"), Network(module), Points(None))
    support, query = part_of(shapes(1), 0)
    meta = begin(learner, 0)
    found = learner.predict(learner.adapt(meta, support), query.inputs)
    one_hot = np.eye(3)[support.targets.numpy()]
    wanted = 10 * reference(module, meta, support, query.inputs, one_hot)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
    order = torch.randperm(len(support.targets), generator=torch.Generator().manual_seed(0))
    shuffled = support._replace(inputs=support.inputs[order], targets=support.targets[order])
    other = learner.predict(learner.adapt(meta, shuffled), query.inputs)
    torch.testing.assert_close(found, other)


def test_mapped_equals_looped_and_all_is_learned():
    learner = learner_of(preset("ridge"), Network(embedding()), Points(None))
    _, loop = grads_of(learner, shapes(), LOOP)
    _, mapped = grads_of(learner, shapes(), VMAP)
    assert_same(mapped, loop, rtol=1e-9, atol=1e-12)
    moved = {key for key, value in loop.items() if value.abs().max() > 0}
    assert {"learned.log_penalty", "learned.scale", "params.0.weight"} <= moved


def test_equal_examples_have_finite_derivatives():
    support, query = shapes()
    same = support._replace(inputs=support.inputs[:, :1].expand_as(support.inputs))
    learner = learner_of(preset("ridge", penalty=0.01), Network(embedding()), Points(None))
    _, grads = grads_of(learner, type(shapes())(same, query), VMAP)
    assert all(bool(value.isfinite().all()) for value in grads.values())
