"""The implicit gradient against direct solutions, and against long unrolled ways."""

from typing import Any

import pytest
import torch
from torch import nn

from evometa import space as s
from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import FAMILIES, Setting, formula_of, make_learner, preset
from evometa.learner.implicit import solved
from evometa.network import Network
from evometa.rule import fingerprint, make_rule, python_source, rule_space
from evometa.task.episodes import part_of
from tests.evaluate.test_presets import Points, embedding
from tests.learner.laws import (
    assert_packed_equals_single,
    assert_same,
    grads_of,
    make,
    network,
    normed,
    shapes,
    waves,
)


def genes(strength=1.0, solves=5, **others):
    implicit = {"implicit": {"strength": strength, "solves": solves}}
    return preset("imaml", derivative=implicit, **others)


def test_conjugate_gradients_solve_and_stop_at_negative_curvature():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    right = torch.randn(5, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + 0.1 * torch.eye(5)

    def run(matrix, steps, guess):
        def product(along: dict[str, Any]):
            return {"x": matrix @ along["x"]}

        return solved(product, {"x": right}, {"x": guess}, steps)["x"]

    exact = torch.linalg.solve(matrix, right)
    torch.testing.assert_close(run(matrix, 5, torch.zeros(5).double()), exact, rtol=1e-8, atol=0)
    torch.testing.assert_close(run(matrix, 40, exact), exact)
    torch.testing.assert_close(run(-matrix, 5, right), right)


@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
def test_it_equals_the_exact_gradient_of_a_quadratic_problem(plan):
    """Linear least squares with a pull: minimum and meta-gradient by two direct solutions."""
    strength = 0.7
    module = nn.Linear(1, 1).double()
    learner = make(module, genes(strength, 2, steps=400, rate=0.2))
    _, ours = grads_of(learner, waves(), plan)
    start = torch.cat([module.weight.flatten(), module.bias]).detach()
    total = torch.zeros(2).double()
    support, query = waves()
    for x, y, x_query, y_query in zip(*support, *query, strict=True):
        wide, asked = (torch.cat([each, torch.ones_like(each)], 1) for each in (x, x_query))
        n = len(x)
        matrix = 2 / n * wide.T @ wide + strength * torch.eye(2).double()
        minimum = torch.linalg.solve(matrix, 2 / n * wide.T @ y[:, 0] + strength * start)
        slope = 2 / n * asked.T @ (asked @ minimum - y_query[:, 0])
        total += strength * torch.linalg.solve(matrix, slope) / len(support.inputs)
    found = torch.cat([ours["params.weight"].flatten(), ours["params.bias"]])
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("adapts", ["all", "head", {"context": 3}, "channels"], ids=str)
def test_it_equals_the_unrolled_gradient_of_a_long_way(adapts):
    """Also by what does not adapt; the pull is written out for the unrolled rule."""
    pulled = ["mul", "rate", "add", "gradient", "mul", 2.0, "sub", "parameter", "initial"]
    far = {"steps": 250, "rate": 0.05, "adapts": adapts}
    _, ours = grads_of(make(network(), genes(2.0, 60, **far)), waves(2), VMAP)
    _, theirs = grads_of(make(network(), preset("maml", update=pulled, **far)), waves(2), VMAP)
    assert_same(ours, theirs, rtol=1e-5, atol=1e-8)


def test_it_goes_through_a_head_of_prototypes():
    setting = Setting(Network(embedding()), Points(None), "inductive", torch.zeros(6, 4))
    pulled = ["mul", "rate", "add", "gradient", "sub", "parameter", "initial"]
    far = {"steps": 400, "rate": 0.1, "head": "prototypes"}
    one = make_learner(genes(1.0, 80, **far), setting)
    other = make_learner(preset("maml", update=pulled, **far), setting)
    _, ours = grads_of(one, shapes(2), VMAP)
    _, theirs = grads_of(other, shapes(2), VMAP)
    assert_same(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("norm", ["inductive", "transductive", "per-step"])
@pytest.mark.parametrize("update", [["mul", "rate", "gradient"], ["mul", "rate", "unbiased", 0.9,
                                    "gradient"]], ids=["sgd", "momentum"])  # fmt: skip
def test_mapped_equals_looped_and_packed_equals_single(norm, update):
    made = [make(normed(), genes(strength, 3, update=update, steps=4), norm) for strength in (1, 2)]
    _, loop = grads_of(made[0], waves(), LOOP)
    _, mapped = grads_of(made[0], waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-8, atol=1e-11)
    assert all(value.isfinite().all() for value in mapped.values())
    assert_packed_equals_single(made, waves(), rtol=1e-8, atol=1e-11)


def test_nothing_is_kept_of_the_steps():
    """The graph that the meta-loss leaves is that of one step, however many there were."""
    counts = []
    for steps in (2, 20):
        learner = make(network(), genes(steps=steps))
        meta = begin(learner, 0)
        params = {n: v.clone().requires_grad_() for n, v in meta["params"].items()}
        told = learner.meta_loss({**meta, "params": params}, *part_of(waves(1), 0))
        nodes, left = set(), [told.objective.grad_fn]
        while left:
            node = left.pop()
            if node is not None and node not in nodes:
                nodes.add(node)
                left += [following for following, _ in node.next_functions]
        counts.append(len(nodes))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("change", [{"rates": "layer"}, {"order": 1}, {"multi_step": 0.1},
    {"affine": "step"}, {"support": {"stream": 2}}, {"update": ["mul", "gain", "gradient"]},
    {"update": ["mul", "learned", 1.0, "gradient"]}], ids=str)  # fmt: skip
def test_what_would_learn_nothing_is_refused(change):
    with pytest.raises(ValueError, match="where the derivative is implicit"):
        make_rule({**genes(), **change})


@pytest.mark.parametrize("odd", ["implicit", {"implicit": {"strength": 0.0, "solves": 5}},
    {"implicit": {"strength": 1.0, "solves": 0}}, {"implicit": {"strength": "a", "solves": 1}},
    {"implicit": {"strength": 1.0}}, {"implicit": 2}], ids=str)  # fmt: skip
def test_what_is_no_derivative_is_refused(odd):
    with pytest.raises(ValueError, match="`derivative` must be"):
        make_rule(preset("maml", derivative=odd))


def test_it_is_a_point_of_the_space_told_apart_and_written_out():
    solver = s.Struct(strength=s.Float(0.1, 10.0, log=True), solves=s.Int(1, 10))
    space = rule_space(derivative=s.Choice("unrolled", implicit=solver), steps=s.Int(1, 16))
    space.validate(genes())
    prints = {fingerprint(make_rule(each)) for each in (genes(), genes(2.0), genes(1.0, 6))}
    assert len(prints) == 3
    assert formula_of(genes(2.0)) == "g ← g + 2·(w - w₀); w ← w - rate·g"
    assert "1.0 * (parameter - initial)" in python_source(make_rule(genes()))
    lower = FAMILIES["gradient"].first_order(genes())
    assert make_rule(lower).order == 1
    assert make(network(), genes()).traits.order == 2
