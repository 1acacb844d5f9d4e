"""Meta-Curvature, ALFA and Meta-LSTM against plain loops, and as parts of evolved updates."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa.errors import SpaceError
from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import FAMILIES, formula_of, preset
from evometa.network import ConvBlock, conv_net
from evometa.rule import (
    LEARNED,
    check_update,
    fingerprint,
    make_rule,
    python_source,
    rule_space,
    update_space,
)
from evometa.space import Choice, Primitive
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch, EpisodeBatch
from tests.evaluate.test_presets import ITERATIONS, TASKS, assert_close, meta_batches, trained
from tests.learner.laws import (
    Waves,
    assert_packed_equals_single,
    assert_same,
    grads_of,
    make,
    network,
    waves,
)

NAMES = ["meta-curvature", "alfa", "meta-lstm"]
RATE = 0.1


def leaves(tensors):
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


def layers(params):
    return list(dict.fromkeys(name.rpartition(".")[0] for name in params))


def descend(module, start, learned, pool, step, steps, *, second_order=True):
    """Meta-train by Adam: `step` is one inner step, all else the frame of every such method."""
    params, learned = leaves(dict(module.named_parameters())), leaves(learned)
    optimiser = torch.optim.Adam([*params.values(), *learned.values()], lr=1e-3)
    for batch in meta_batches(pool):
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            fast, state = dict(params), start(params)
            for place in range(steps):
                loss = F.mse_loss(functional_call(module, fast, (x,)), y)
                values = list(fast.values())
                found = torch.autograd.grad(
                    loss, values, create_graph=second_order, retain_graph=True
                )
                grads = dict(zip(fast, found, strict=True))
                fast, state = step(fast, grads, loss, learned, state, place)
            (F.mse_loss(functional_call(module, fast, (x_query,)), y_query) / TASKS).backward()
        optimiser.step()
    return params, learned


def curvature_step(fast, grads, loss, learned, state, place):
    """Park and Oliva (2019): G' = M_out G M_in, and a factor for each bias."""
    moved = {}
    for name, grad in grads.items():
        if grad.dim() == 1:
            moved[name] = fast[name] - RATE * learned[f"curved:{name}"] * grad
        else:
            out, into = learned[f"curved:0:{name}"], learned[f"curved:1:{name}"]
            moved[name] = fast[name] - RATE * (out @ grad @ into.T)
    return moved, state


def alfa_step(fast, grads, loss, learned, state, place):
    """Baik et al. (2020): rates and decays of each layer from the means of weights and grads."""
    names = layers(fast)

    def means(tensors):
        own = [[v.flatten() for n, v in tensors.items() if n.startswith(f"{at}.")] for at in names]
        return [torch.cat(parts).mean() for parts in own]

    state_now = torch.stack([*means(fast), *means(grads)])
    hidden = F.relu(learned["alfa:hidden.weight"] @ state_now + learned["alfa:hidden.bias"])
    chosen = learned["alfa:out.weight"] @ hidden + learned["alfa:out.bias"]
    moved = {}
    for name, grad in grads.items():
        at = names.index(name.rpartition(".")[0])
        alpha = learned[names[at]][place] * chosen[at]
        beta = learned["alfa:keep"][at, place] * chosen[len(names) + at]
        moved[name] = beta * fast[name] - alpha * grad
    return moved, state


def lstm_start(params):
    count = sum(value.numel() for value in params.values())
    return torch.zeros(count, 20), torch.zeros(count, 20), torch.zeros(count), torch.zeros(count)


def preprocess(x):
    """Appendix A of Andrychowicz et al. (2016), with p = 10."""
    if abs(x) >= torch.exp(torch.tensor(-10.0, dtype=torch.float64)):
        return [float(abs(x).log()) / 10, float(x.sign())]
    return [-1.0, float(x) * np.exp(10)]


def lstm_step(fast, grads, loss, learned, state, place):
    """Ravi and Larochelle (2017): each weight is the state of a cell, one after the other."""
    h, c, f, i = (part.double() for part in state)
    w = torch.cat([value.flatten() for value in fast.values()])
    g = torch.cat([value.flatten() for value in grads.values()]).detach()
    cell = nn.LSTMCell(24 - 20, 20).double()
    weight, bias = learned["lstm:cell.weight"], learned["lstm:cell.bias"]
    own = {"weight_ih": weight[:, :4], "weight_hh": weight[:, 4:], "bias_ih": bias}
    rows = [[*preprocess(each), *preprocess(loss.detach())] for each in g]
    given = torch.tensor(rows, dtype=torch.float64)
    h, c = functional_call(cell, {**own, "bias_hh": torch.zeros(80).double()}, (given, (h, c)))
    seen = [torch.cat([h, w[:, None], gate[:, None]], 1) for gate in (f, i)]
    f = (seen[0] @ learned["lstm:forget.weight"].T + learned["lstm:forget.bias"])[:, 0]
    i = (seen[1] @ learned["lstm:input.weight"].T + learned["lstm:input.bias"])[:, 0]
    new = torch.sigmoid(f) * w - torch.sigmoid(i) * g
    parts = new.split([value.numel() for value in fast.values()])
    moved = {n: p.view(fast[n].shape) for n, p in zip(fast, parts, strict=True)}
    return moved, (h, c, f, i)


REFERENCES = {
    "meta-curvature": (lambda params: None, curvature_step, {}),
    "alfa": (lambda params: None, alfa_step, {}),
    "meta-lstm": (lstm_start, lstm_step, {"second_order": False}),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_equals_the_published_algorithm(name):
    pool = waves(ITERATIONS * TASKS)
    learner = make(network(), preset(name, steps=2, rate=RATE))
    start, step, options = REFERENCES[name]
    learned = begin(learner, 0)["learned"]
    ours = trained(learner, Waves(pool))
    params, theirs = descend(network(), start, learned, pool, step, 2, **options)
    assert_close(ours["params"], params)
    assert_close(ours["learned"], theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("support", ["all", {"stream": 3}])
def test_mapped_equals_looped_and_packed_equals_single(name, order, support):
    genes = {"order": order, "steps": 2, "support": support, "clip": 1.0}
    made = [make(network(), preset(name, rate=rate, **genes)) for rate in (0.1, 0.2)]
    _, loop = grads_of(made[0], waves(), LOOP)
    _, mapped = grads_of(made[0], waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-8, atol=1e-11)
    assert_packed_equals_single(made, waves(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", ["meta-curvature", "alfa"])
def test_untrained_they_are_gradient_descent(name):
    support = part_of(waves(1).support, 0)
    ours = make(network(), preset(name, steps=3, rate=RATE))
    plain = make(network(), preset("maml", steps=3, rate=RATE))
    one, other = (each.adapt(begin(each, 0), support).params for each in (ours, plain))
    assert_same(one, other)


def test_untrained_a_meta_lstm_is_nearly_gradient_descent():
    rule = make_rule(preset("meta-lstm"))
    params = {"a.weight": torch.zeros(3, 2).double()}
    learned = rule.learned(params)
    state = rule.init(params, learned, rule.constants(params))
    grads = {"a.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()}
    moved, _ = rule.apply(grads, torch.tensor(0.5).double(), state, params, 0)
    rates = -moved["a.weight"] / grads["a.weight"]
    assert (rates > 0.005).all() and (rates < 0.02).all()


def test_curvature_of_a_convolution_turns_outputs_inputs_and_kernel():
    rule = make_rule(preset("meta-curvature", rate=1.0))
    params = {"a.weight": torch.zeros(4, 3, 2, 2).double()}
    rng = torch.Generator().manual_seed(0)
    learned = {
        name: torch.randn(value.shape, generator=rng).double()
        for name, value in rule.learned(params).items()
    }
    assert {n: v.shape[0] for n, v in learned.items()} == {
        "curved:0:a.weight": 4,
        "curved:1:a.weight": 3,
        "curved:2:a.weight": 4,
    }
    grads = {"a.weight": torch.randn(4, 3, 2, 2, generator=rng).double()}
    state = rule.init(params, learned, rule.constants(params))
    moved, _ = rule.apply(grads, torch.tensor(0.0).double(), state, params, 0)
    out, into, kernel = (learned[f"curved:{axis}:a.weight"] for axis in range(3))
    turned = torch.einsum("po,qi,rk,oik->pqr", out, into, kernel, grads["a.weight"].flatten(2))
    torch.testing.assert_close(-moved["a.weight"].flatten(2), turned)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0.0, 1e-12, 1.0, 1e4])
def test_derivatives_are_finite_at_extremes(name, size):
    episodes = waves()
    support = Batch(episodes.support.inputs * size, episodes.support.targets * size)
    learner = make(network(), preset(name, steps=3, rate=1e-6))
    _, grads = grads_of(learner, EpisodeBatch(support, episodes.query), VMAP)
    assert all(value.isfinite().all() for value in grads.values())


@pytest.mark.parametrize("name", NAMES)
def test_they_map_over_convolutions(name):
    torch.manual_seed(0)
    module = conv_net([ConvBlock(1, 3), ConvBlock(3, 3)], 1).double()
    module(torch.zeros(2, 1, 8, 8).double())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 1, 8, 8, generator=generator, dtype=torch.float64)
    pool = EpisodeBatch(*(Batch(each, each.mean((2, 3, 4)).unsqueeze(-1)) for each in x))
    learner = make(module, preset(name, steps=2))
    _, loop = grads_of(learner, pool, LOOP)
    _, mapped = grads_of(learner, pool, VMAP)
    assert_same(mapped, loop, rtol=1e-7, atol=1e-10)


MIX = ["mul", "rate", "add", "curved", "mul", "mul", "input", "pace", "average", 0.9, "gradient"]


def test_evolution_mixes_them_with_symbols():
    space = update_space(learned=[*LEARNED], size=12)
    space.validate(MIX)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        tokens = space.sample(rng)
        seen |= set(LEARNED) & set(tokens)
        space.validate(space.mutate(tokens, rng))
    assert seen == set(LEARNED)
    for seed in range(20):
        plain = update_space().sample(np.random.default_rng(seed))
        assert not set(LEARNED) & set(plain)
    with pytest.raises(SpaceError, match="curved"):
        update_space(learned=["bent"])
    learner = make(network(), preset("maml", update=MIX, steps=2))
    _, loop = grads_of(learner, waves(), LOOP)
    _, mapped = grads_of(learner, waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-8, atol=1e-11)


def test_they_share_packs_with_updates_that_see_the_same():
    mixing = FAMILIES["gradient"].mixing
    updates = [MIX, ["add", "mul", "pace", "curved", "mul", "input", "unbiased", 0.9, "curved"]]
    made = [make(network(), preset("maml", update=tokens, steps=2)) for tokens in updates]
    plain = make(network(), preset("maml", steps=2))
    assert mixing.kin(made[0]) == mixing.kin(made[1]) != mixing.kin(plain)
    together = mixing.together(made)
    for alone, mixed in zip(made, together, strict=True):
        _, one = grads_of(alone, waves(), VMAP)
        _, other = grads_of(mixed, waves(), VMAP)
        assert_same({n: other[n] for n in one if "constants" not in n},
                    {n: v for n, v in one.items() if "constants" not in n})  # fmt: skip
    assert_packed_equals_single(together, waves(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_points_of_the_space_read_and_told_apart(name):
    genome = preset(name)
    rule_space(update=update_space(learned=[*LEARNED]), steps=Choice(genome["steps"])).validate(
        genome
    )
    rule = make_rule(genome)
    check_update(rule)
    prints = {fingerprint(make_rule(preset(each))) for each in [*NAMES, "maml", "lslr"]}
    assert len(prints) == len(NAMES) + 2
    assert {"meta-curvature": "M(g)", "alfa": "fade(w, g)", "meta-lstm": "(1 - f"}[
        name
    ] in formula_of(genome)
    space: dict = {}
    exec(python_source(rule), space)
    vector = torch.arange(4.0)
    given = [torch.full((4,), 0.5)] * sum(len(sense.tokens) for sense in rule.senses)
    after, _ = space["update"](vector, vector, vector, 0.1, torch.tensor(1.0), 0, [4], *given)
    assert after.shape == (4,)


def own_pace(x):
    return x * 2


def test_a_primitive_of_ones_own_keeps_its_name():
    own = Primitive("pace", ("same",), function=own_pace)
    rule = make_rule(preset("maml", update=["mul", "rate", "pace", "gradient"]), [own])
    assert rule.senses == [] and not rule.learned({"a.weight": torch.ones(2, 2)})
