"""Logistic and Bayesian heads against scipy: minimised, conditioned, without any of our algebra."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import nn

from evometa.evaluate import begin
from evometa.learner import preset
from evometa.learner.bayesian import Bayesian
from evometa.learner.embedded import Shown
from evometa.learner.logistic import Logistic
from evometa.network import Network
from evometa.task.episodes import part_of
from tests.learner.laws import Waves, learner_of, waves

WIDE = torch.zeros(1, dtype=torch.float64)


def shown(examples, features, ways=3):
    generator = torch.Generator().manual_seed(examples)
    rows = torch.randn(examples, features, generator=generator, dtype=torch.float64)
    labels = torch.arange(examples) % ways
    return Shown(rows, labels, ways), torch.randn(5, features, generator=generator).double()


def numbers(head):
    own = head.init(WIDE, torch.Generator())
    return {**own.params, **own.learned, **own.constants}


@pytest.mark.parametrize(("examples", "features"), [(6, 9), (12, 4), (5, 5)])
def test_logistic_heads_minimise_the_penalised_loss(examples, features):
    support, queries = shown(examples, features)
    head = Logistic(penalty=0.3, scale=2.0, steps=12)
    own = numbers(head)
    found = head.score(own, head.fit(own, support), queries)
    rows, asked = (
        np.hstack([each.numpy() / features**0.5, np.ones((len(each), 1))])
        for each in (support.features, queries)
    )
    for k in range(3):
        signs = np.where(support.targets.numpy() == k, 1, -1)

        def loss(w, signs=signs):
            return np.logaddexp(0, -signs * (rows @ w)).sum() + 0.3 / 2 * w @ w

        best = scipy.optimize.minimize(loss, np.zeros(features + 1), tol=1e-12).x
        np.testing.assert_allclose(found[:, k], 2 * asked @ best, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("examples", "features"), [(6, 9), (12, 4)])
def test_a_newton_step_is_a_newton_step(examples, features):
    """The first two of a plain loop, whichever system was the smaller."""
    support, queries = shown(examples, features)
    head = Logistic(penalty=0.3, scale=1.0, steps=2)
    own = numbers(head)
    found = head.score(own, head.fit(own, support), queries)
    rows, asked = (
        np.hstack([each.numpy() / features**0.5, np.ones((len(each), 1))])
        for each in (support.features, queries)
    )
    for k in range(3):
        label, w = (support.targets.numpy() == k).astype(float), np.zeros(features + 1)
        for _ in range(2):
            likely = 1 / (1 + np.exp(-rows @ w))
            gradient = rows.T @ (likely - label) + 0.3 * w
            curve = rows.T @ np.diag(likely * (1 - likely)) @ rows + 0.3 * np.eye(features + 1)
            w = w - np.linalg.solve(curve, gradient)
        np.testing.assert_allclose(found[:, k], asked @ w, rtol=1e-8, atol=1e-10)


def covariance(kernel, own, one, other):
    size = one.shape[1]
    if kernel == "linear":
        base = one @ other.T / size
    else:
        apart = ((one[:, None] - other[None]) ** 2).sum(-1)
        base = np.exp(-apart / (2 * size * math.exp(2 * own["log_length"])))
    return math.exp(own["log_amplitude"]) * base + math.exp(own["log_constant"])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_query_has_the_density_of_the_joint_normal_distribution(kernel):
    """log p(query | support) = log p(support, query) - log p(support)."""
    support, queries = shown(6, 4)
    targets = torch.randn(6, 1, generator=torch.Generator().manual_seed(0)).double()
    support = Shown(support.features, targets, None)
    head = Bayesian(classes=False, kernel=kernel, noise=0.2)
    own = {name: value + 0.1 for name, value in numbers(head).items()}
    state = head.fit(own, support)
    mean, variance = head.density(own, state, queries)
    torch.testing.assert_close(head.score(own, state, queries), mean)
    for row in range(len(queries)):
        rows = np.vstack([support.features.numpy(), queries[row : row + 1].numpy()])
        whole = covariance(kernel, own, rows, rows) + float(state.noise) * np.eye(7)
        value = 0.7
        joint = scipy.stats.multivariate_normal(np.zeros(7), whole)
        known = scipy.stats.multivariate_normal(np.zeros(6), whole[:6, :6])
        there = targets.numpy().ravel()
        wanted = joint.logpdf([*there, value]) - known.logpdf(there)
        spread = float(variance[row]) ** 0.5
        found = scipy.stats.norm.logpdf(value, float(mean[row, 0]), spread)
        assert found == pytest.approx(wanted, rel=1e-8)


def test_the_linear_kernel_is_ridge_regression_on_means():
    support, queries = shown(9, 4)
    head = Bayesian(classes=False, noise=0.2)
    targets = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)).double()
    own = numbers(head)
    state = head.fit(own, Shown(support.features, targets, None))
    x, q = (
        np.hstack([each.numpy() / 2, np.ones((len(each), 1))])
        for each in (support.features, queries)
    )
    noise = float(state.noise)
    assert noise == pytest.approx(0.2, rel=1e-3)
    wanted = q @ np.linalg.solve(x.T @ x + noise * np.eye(5), x.T @ targets.numpy())
    np.testing.assert_allclose(head.score(own, state, queries), wanted, rtol=1e-8)


def test_logits_are_moderated_where_little_is_known():
    support, _ = shown(6, 4)
    head = Bayesian(classes=True, kernel="rbf")
    own = numbers(head)
    state = head.fit(own, support)
    near, far = support.features[:1], support.features[:1] + 100
    for asked in (near, far):
        mean, variance = head.density(own, state, asked)
        inner = 100 * (variance - state.noise)
        wanted = 10 * mean / (1 + math.pi / 8 * inner).sqrt().unsqueeze(1)
        torch.testing.assert_close(head.score(own, state, asked), wanted)
    assert head.density(own, state, far)[1] > head.density(own, state, near)[1]


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_likelihood_is_what_is_trained(kernel):
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(1, 6), nn.Tanh()).double())
    rule = preset("bayesian", kernel=kernel, target="likelihood")
    own = learner_of(rule, network, Waves(None))
    support, query = part_of(waves(1), 0)
    meta = begin(own, 0)
    told = own.meta_loss(meta, support, query)
    fitted = own.adapt(meta, support)
    features = network(network.params, {}, query.inputs, norm="batch", training=False)[0]
    mean, variance = own.head.density(fitted.own, fitted.state, features)
    wanted = -scipy.stats.norm.logpdf(
        query.targets[:, 0], mean[:, 0].detach(), variance.detach().sqrt()
    )
    assert float(told.objective) == pytest.approx(wanted.mean(), rel=1e-8)
    assert float(told.loss) == pytest.approx(float(((mean - query.targets) ** 2).mean()), rel=1e-8)
