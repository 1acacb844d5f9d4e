"""Contexts that adapt in the place of weights, against networks that take them as inputs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa import space as s
from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import formula_of, preset
from evometa.network import Network
from evometa.rule import fingerprint, make_rule, rule_space
from evometa.task.episodes import part_of
from tests.evaluate.test_presets import ITERATIONS, TASKS, assert_close, meta_batches, trained
from tests.learner.laws import (
    Waves,
    assert_packed_equals_single,
    assert_same,
    grads_of,
    learner_of,
    make,
    network,
    normed,
    waves,
)

WAYS = [{"context": 3}, {"film": 2}, "channels"]


def cavia(module, matrix, pool, steps, rate):
    """Zintgraf et al. (2019): the context is concatenated to the input, and adapts alone."""
    params = {n: p.detach().clone() for n, p in module.named_parameters()}
    size, rest = matrix.shape[1], {n: params[n] for n in params if n != "0.weight"}
    wide = torch.cat([params["0.weight"], matrix], 1).requires_grad_()
    rest = {n: value.requires_grad_() for n, value in rest.items()}
    optimiser = torch.optim.Adam([wide, *rest.values()], lr=1e-3)
    larger = nn.Sequential(nn.Linear(1 + size, 8), *list(module)[1:]).double()

    def predict(context, x):
        inputs = torch.cat([x, context.expand(len(x), size)], 1)
        return functional_call(larger, {**rest, "0.weight": wide}, (inputs,))

    for batch in meta_batches(pool):
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            context = torch.zeros(size).double().requires_grad_()
            for _ in range(steps):
                loss = F.mse_loss(predict(context, x), y)
                (grad,) = torch.autograd.grad(loss, context, create_graph=True)
                context = context - rate * grad
            (F.mse_loss(predict(context, x_query), y_query) / TASKS).backward()
        optimiser.step()
    return {**rest, "0.weight": wide[:, :1], "context:0.shift": wide[:, 1:]}


@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
def test_it_equals_the_published_algorithm(plan):
    pool = waves(ITERATIONS * TASKS)
    learner = make(network(), preset("cavia", steps=2, rate=0.5, adapts={"context": 3}))
    matrix = begin(learner, 0)["params"]["context:0.shift"]
    assert matrix.std() > 0.1
    ours = trained(learner, Waves(pool), plan)
    assert_close(ours["params"], cavia(network(), matrix, pool, 2, 0.5))


class Modulated(nn.Module):
    """Scales and shifts of hidden channels written out."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.scale = nn.ParameterList(torch.ones(8).double() for _ in range(2))
        self.shift = nn.ParameterList(torch.zeros(8).double() for _ in range(2))

    def forward(self, x):
        for place, layer in enumerate((self.inner[0], self.inner[2])):
            x = torch.tanh(layer(x) * self.scale[place] + self.shift[place])
        return self.inner[4](x)


def test_channels_are_scaled_and_shifted():
    support, query = part_of(waves(1), 0)
    learner = make(network(), preset("maml", adapts="channels", rate=0.1, steps=1))
    adapted = learner.adapt(begin(learner, 0), support)
    module = Modulated(network())
    own = [*module.scale, *module.shift]
    loss = F.mse_loss(module(support.inputs), support.targets)
    for value, grad in zip(own, torch.autograd.grad(loss, own), strict=True):
        value.data -= 0.1 * grad
    torch.testing.assert_close(learner.predict(adapted, query.inputs), module(query.inputs))


@pytest.mark.parametrize("adapts", WAYS, ids=str)
@pytest.mark.parametrize("genes", [{}, {"update": ["mul", "gain", "curved"]}, {"order": 1},
                                   {"rates": "layer-step", "affine": "step"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("norm", ["inductive", "per-step"])
def test_mapped_equals_looped_and_packed_equals_single(adapts, genes, norm):
    rates = (0.1, 0.3)
    made = [
        make(normed(), preset("maml", adapts=adapts, steps=2, rate=rate, **genes), norm)
        for rate in rates
    ]
    _, loop = grads_of(made[0], waves(), LOOP)
    _, mapped = grads_of(made[0], waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-8, atol=1e-11)
    assert all(value.isfinite().all() for value in mapped.values())
    assert_packed_equals_single(made, waves(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("adapts", WAYS, ids=str)
def test_no_weight_adapts(adapts):
    learner = make(network(), preset("maml", adapts=adapts, steps=3, rate=0.1))
    meta = begin(learner, 0)
    adapted = learner.adapt(meta, part_of(waves(1).support, 0)).params
    assert_same({n: adapted[n] for n in meta["params"]}, meta["params"])
    assert any(value.abs().max() > 0 for n, value in adapted.items() if n not in meta["params"])


@pytest.mark.parametrize("adapts", [{"context": 0}, {"context": 2.0}, {"film": 1, "x": 2}, ["all"]])
def test_what_is_no_context_is_refused(adapts):
    with pytest.raises(ValueError, match="`adapts` must be one of"):
        make_rule(preset("maml", adapts=adapts))


def test_what_a_context_cannot_do_is_refused():
    with pytest.raises(ValueError, match="order 0"):
        make(network(), preset("cavia", order=0))
    bare = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False))
    with pytest.raises(ValueError, match="weight and bias"):
        learner_of(preset("cavia"), Network(bare), Waves(None))


def test_it_is_a_point_of_the_space_and_told_apart():
    adapts = s.Choice("all", "channels", context=s.Int(1, 9), film=s.Int(1, 9))
    rule_space(adapts=adapts).validate(preset("cavia"))
    made = [make_rule(preset("maml", adapts=each)) for each in (*WAYS, {"context": 2}, "all")]
    assert len({fingerprint(rule) for rule in made}) == len(made)
    assert formula_of(preset("cavia")).startswith("w ← 0")
