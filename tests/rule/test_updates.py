"""Updates: equal to published optimisers, finite, written out truly, recognised when equal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evometa.errors import GenomeError
from evometa.rule import (
    EXTRAS,
    KNOWN,
    OPERATIONS,
    check_update,
    fingerprint,
    formula,
    make_rule,
    outer_space,
    preset,
    python_source,
    rule_space,
    simplified,
    update_space,
)
from evometa.space import Choice, Float, Int, Primitive

STEPS = 6
SHAPES = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3)}
law = settings(max_examples=60, deadline=None)


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }


def walk(rule, seeds=range(1, STEPS + 1)):
    """Apply a rule to fixed gradients; return the parameters after each step."""
    params = draw(0)
    state = rule.init(params, rule.learned(params), rule.constants(params))
    line = []
    for step, seed in enumerate(seeds):
        params, state = rule.apply(draw(seed), torch.tensor(0.5).double(), state, params, step)
        line.append(params)
    return line


def torch_walk(make):
    params = {name: value.requires_grad_() for name, value in draw(0).items()}
    optimiser = make(list(params.values()))
    line = []
    for seed in range(1, STEPS + 1):
        for name, value in draw(seed).items():
            params[name].grad = value
        optimiser.step()
        line.append({name: value.detach().clone() for name, value in params.items()})
    return line


def lion_walk(rate=0.01):
    params, memory, line = draw(0), dict.fromkeys(SHAPES, 0.0), []
    for seed in range(1, STEPS + 1):
        for name, g in draw(seed).items():
            params[name] = params[name] - rate * (0.9 * memory[name] + 0.1 * g).sign()
            memory[name] = 0.99 * memory[name] + 0.01 * g
        line.append(dict(params))
    return line


def sign_walk(factor, rate=0.01):
    params, memory, line = draw(0), dict.fromkeys(SHAPES, 0.0), []
    for seed in range(1, STEPS + 1):
        for name, g in draw(seed).items():
            memory[name] = 0.9 * memory[name] + 0.1 * g
            params[name] = params[name] - rate * factor(g.sign() * memory[name].sign()) * g
        line.append(dict(params))
    return line


OPTIMISERS = {
    "sgd": lambda: torch_walk(lambda p: torch.optim.SGD(p, 0.01)),
    "momentum": lambda: torch_walk(lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    "nesterov": lambda: torch_walk(lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, nesterov=True)),
    "rmsprop": lambda: torch_walk(lambda p: torch.optim.RMSprop(p, 0.01)),
    "adam": lambda: torch_walk(lambda p: torch.optim.Adam(p, 0.01)),
    "adamw": lambda: torch_walk(lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.01)),
    "weight-decay": lambda: torch_walk(lambda p: torch.optim.SGD(p, 0.01, weight_decay=0.01)),
    "lion": lion_walk,
    "powersign": lambda: sign_walk(torch.exp),
    "addsign": lambda: sign_walk(lambda agree: 1 + agree),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_known_updates_equal_the_optimisers_step_by_step(name):
    for mine, theirs in zip(walk(make_rule(preset(name))), OPTIMISERS[name](), strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-7, atol=1e-9)


def test_the_proximal_update_pulls_to_the_initial_weights():
    params, start, line = draw(0), draw(0), []
    for seed in range(1, STEPS + 1):
        gradient = draw(seed)
        params = {
            name: params[name] - 0.01 * (gradient[name] + 0.1 * (params[name] - start[name]))
            for name in params
        }
        line.append(params)
    for mine, theirs in zip(walk(make_rule(preset("proximal"))), line, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "rates", ["fixed", "shared", "layer", "layer-step", "tensor", "tensor-step", "parameter"]
)
def test_interpreted_descent_equals_the_direct_one(rates):
    """An expression that algebra reduces to descent takes the long way, to the same place."""
    direct = walk(make_rule(preset("maml", rates=rates, steps=STEPS)))
    tokens = ["mul", "mul", 1.0, "rate", "gradient"]
    spelled = walk(make_rule(preset("maml", rates=rates, steps=STEPS, update=tokens)))
    for mine, theirs in zip(spelled, direct, strict=True):
        torch.testing.assert_close(mine, theirs)


def tree(seed):
    return update_space().sample(np.random.default_rng(seed))


@law
@given(st.integers(0, 10**6), st.sampled_from(["fixed", "layer", "layer-step", "parameter"]))
def test_source_and_simplified_form_do_what_the_rule_does(seed, rates):
    tokens = tree(seed)
    clip = float(seed % 2)
    rule = make_rule(preset("maml", update=tokens, rates=rates, steps=2, clip=clip))
    shorter = simplified(tokens)
    assert len(shorter) <= len(tokens)
    assert simplified(shorter) == shorter
    space: dict = {}
    exec(python_source(rule), space)  # what a person would paste
    params, memory = draw(0), None
    learned = rule.learned(params)
    state = rule.init(params, learned, rule.constants(params))
    again = make_rule(preset("maml", update=shorter, rates=rates, steps=2, clip=clip))
    other_state = again.init(params, again.learned(params), again.constants(params))
    other = params
    vector = initial = torch.cat([value.flatten() for value in params.values()])
    for step in range(3):
        grads, loss = draw(step + 1), torch.tensor(0.7).double()
        params, state = rule.apply(grads, loss, state, params, step)
        other, other_state = again.apply(grads, loss, other_state, other, step)
        flat = torch.cat([value.flatten() for value in grads.values()])
        rate = rate_of(rule, learned, step)
        extras = [torch.full_like(flat, EXTRAS[name]) for name in rule.extras]
        given = (vector, flat, initial, rate, loss, step, [9, 6], *extras)
        vector, memory = space["update"](*given, memory=memory)
        mine = torch.cat([value.flatten() for value in params.values()])
        torch.testing.assert_close(vector, mine, equal_nan=True)
        theirs = torch.cat([value.flatten() for value in other.values()])
        torch.testing.assert_close(theirs, mine, equal_nan=True, rtol=1e-5, atol=1e-7)


def rate_of(rule, learned, step):
    if rule.rates == "fixed":
        return rule.rate
    if rule.rates == "parameter":
        return torch.cat([learned[name].flatten() for name in SHAPES])
    by_layer = torch.stack([learned["a"], learned["b"]])
    return by_layer[:, min(step, rule.steps - 1)] if rule.rates == "layer-step" else by_layer


EXTREMES = [0.0, 1e-20, 1e-8, 1e-4, 1.0, 1e4]


@pytest.mark.parametrize("name", [n for n, op in OPERATIONS.items() if op.primitive.arguments])
def test_first_and_second_derivatives_are_finite_everywhere(name):
    """In single precision, as on the device."""
    operation = OPERATIONS[name]
    count = len(operation.primitive.arguments)
    values = torch.tensor([*EXTREMES, *(-value for value in EXTREMES)])
    grid = torch.cartesian_prod(*[values] * count).view(-1, count)
    for row in grid if operation.remembers is None else grid[:0]:
        inputs = [value.clone().view(1).requires_grad_() for value in row]
        function = operation.by_layer or operation.apply
        first = torch.autograd.grad(function(*inputs).sum(), inputs, create_graph=True)
        assert all(value.isfinite().all() for value in first), (name, row)
        if not any(value.requires_grad for value in first):
            continue
        second = torch.autograd.grad(
            sum(v.sum() for v in first), inputs, allow_unused=True, materialize_grads=True
        )
        assert all(value.isfinite().all() for value in second), (name, row)


@pytest.mark.parametrize("name", ["average", "unbiased", "before", "trace"])
@pytest.mark.parametrize("decay", [0.01, 0.5, 0.9999])
def test_running_averages_have_finite_derivatives(name, decay):
    d = torch.tensor(decay, requires_grad=True)
    memory, total = torch.zeros(1), torch.zeros(1)
    for time in range(1, 4):
        value, memory = OPERATIONS[name].remembers(d, torch.tensor([2.0]), memory, time)
        total = total + value
    (first,) = torch.autograd.grad(total.sum(), d, create_graph=True)
    assert first.isfinite()
    if first.requires_grad:
        assert torch.autograd.grad(first, d)[0].isfinite()


def refused(tokens, **genes):
    with pytest.raises(ValueError) as caught:
        check_update(make_rule(preset("maml", update=tokens, **genes)))
    return str(caught.value)


def test_updates_that_cannot_learn_are_refused_with_their_reason():
    assert "does not depend on the gradient" in refused(["parameter"])
    assert "changes nothing" in refused(["sub", "gradient", "gradient"])
    assert "changes nothing" in refused(["relu", "neg", "abs", "gradient"])
    big = ["mul", 100.0, "mul", 100.0, "mul", 100.0, "mul", 100.0, "gradient"]
    assert "explodes" in refused(big)


def test_broken_expressions_are_refused_with_their_place():
    assert "update[0]" in refused(["gradients"]) and "gradient" in refused(["gradients"])
    assert "missing at the end" in refused(["mul", "rate"])
    assert "update[3]" in refused(["mul", "rate", "gradient", "rate"])
    assert "update[1]" in refused(["mul", float("nan"), "gradient"])
    assert "finite float" in refused(["mul", 1, "gradient"])
    assert "scalar" in refused(["add", "gradient", "average", "loss", "gradient"]) or True
    with pytest.raises(GenomeError, match="levels deep"):
        update_space(depth=2).validate(["neg", "neg", "neg", "gradient"], "rule.update")
    with pytest.raises(GenomeError, match="at most 3 nodes"):
        update_space(size=3).validate(["neg", "neg", "neg", "gradient"], "rule.update")


def same(first, second, **genes):
    one, two = (make_rule(preset("maml", update=t, **genes)) for t in (first, second))
    return fingerprint(one) == fingerprint(two)


def test_equal_rules_have_one_fingerprint_and_others_do_not():
    descent = ["mul", "rate", "gradient"]
    assert same(descent, ["mul", "gradient", "rate"])
    assert same(descent, ["neg", "mul", "neg", "gradient", "rate"])
    assert same(["sub", "gradient", "neg", "parameter"], ["add", "parameter", "gradient"])
    assert not same(descent, ["mul", "rate", "sign", "gradient"])
    assert not same(descent, ["mul", "rate", "mul", "learned", 1.0, "gradient"])  # can be trained
    assert not same(["neg", "gradient"], ["gradient"])
    numbers = [
        fingerprint(make_rule(preset("maml", **change)))
        for change in (
            {},
            {"rate": 0.02},
            {"steps": 2},
            {"order": 1},
            {"clip": 1.0},
            {"loss": "huber"},
            {"rates": "shared"},
            {"adapts": "head"},
        )
    ]
    assert len(set(numbers)) == len(numbers)
    assert len({fingerprint(make_rule(preset(name))) for name in KNOWN}) == len(KNOWN)


def test_masks_choose_layers_from_the_head_backwards():
    params = {
        "a.weight": torch.ones(2, 2),
        "a.bias": torch.ones(2),
        "b.weight": torch.ones(2, 2),
        "c.weight": torch.ones(2, 2),
    }

    def chosen(adapts):
        return make_rule(preset("maml", adapts=adapts)).adapting(params)

    assert chosen("01") == chosen("head") == ["c.weight"]
    assert chosen("10") == chosen("body") == ["a.weight", "a.bias", "b.weight"]
    assert chosen("010") == ["b.weight"]
    assert chosen("norm") == ["a.bias"]
    with pytest.raises(ValueError, match="adapts"):
        chosen("012")


def halved(x):
    return x / 2


def test_a_primitive_of_ones_own_is_used_and_written_out():
    own = Primitive("halved", ("same",), function=halved)
    genome = preset("maml", update=["mul", "rate", "halved", "gradient"])
    rule = make_rule(genome, [own])
    check_update(rule)
    plain = make_rule(preset("maml", update=["mul", "rate", "mul", 0.5, "gradient"]))
    torch.testing.assert_close(walk(rule), walk(plain))
    assert "def own_halved(x):" in python_source(rule) and "halved(g)" in formula(rule)
    with pytest.raises(ValueError, match="halved"):
        make_rule(genome)


def test_primitives_that_break_are_refused():
    shape = Primitive("first", ("same",), function=lambda x: x[:1].expand(2))
    pole = Primitive("root", ("same",), function=lambda x: x.abs().sqrt())
    blind = Primitive("blind", ("same",), function=lambda x: x.detach())
    for own, reason in ((shape, "shape"), (pole, "finite"), (blind, "differentiable")):
        with pytest.raises(ValueError, match=reason):
            make_rule(preset("maml", update=[own.name, "gradient"]), [own])


def test_rules_that_differ_only_for_unusual_numbers_are_told_apart():
    pairs = [
        (["depth"], ["square", "depth"]),
        (["loss"], ["minimum", "loss", 2.5]),
        (["loss"], ["maximum", "loss", 0.4]),
        (["dimension"], ["minimum", "dimension", 9.5]),
    ]
    ones = ["div", "gradient", "gradient"]  # but where it is 0
    assert not same(["add", "gradient", 1.0], ["add", "gradient", *ones])
    for one, other in pairs:
        assert not same(*(["mul", "rate", "mul", "gradient", *x] for x in (one, other)))
    steps = {"steps": 5}
    one, other = (
        ["mul", "rate", "mul", "gradient", *x]
        for x in (["progress"], ["minimum", "progress", 0.65])
    )
    assert not same(one, other, **steps)


def test_formulas_tell_roots_of_products_from_products_of_roots():
    def written(*tokens):
        return formula(make_rule(preset("maml", update=list(tokens))))

    assert written("sqrt", "mul", "rate", "gradient") != written("mul", "sqrt", "rate", "gradient")
    assert written("sqrt", "square", "gradient") != written("square", "sqrt", "gradient")


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["gradient"], ["gradient"]),
        (["gradient"], ["parameter"]),
        (["neg", "gradient"], ["parameter"]),
        (["gradient"], ["neg", "parameter"]),
        ([1.0], ["gradient"]),
        (["gradient"], [1.0]),
    ],
    ids=["equal", "unlike", "first negative", "second negative", "one first", "one second"],
)
def test_algebra_keeps_the_value_of_every_operation_of_two(name, one, other):
    """Also where both arguments are the same, are negative, or the number that changes nothing."""
    tokens = ["add", "gradient", name, *one, *other]
    shorter = simplified(tokens)
    assert len(shorter) <= len(tokens)
    rules = (make_rule(preset("maml", update=each, steps=STEPS)) for each in (tokens, shorter))
    for mine, theirs in zip(*map(walk, rules), strict=True):
        for key in mine:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-12, atol=1e-12)


def test_formulas_hold_their_numbers_and_mark_the_learned():
    update = ["mul", "learned", 1.5, "add", "mul", 0.25, "gradient", "parameter"]
    written = formula(make_rule(preset("maml", update=update)))
    assert written == "w ← w - ~1.5·(0.25·g + w)"


def test_the_genes_of_rules_are_those_that_are_promised():
    """The defaults of `rule_space`; each gene can be given."""
    fields = rule_space().fields
    assert fields["steps"] == Int(1, 5)
    assert fields["rate"] == Float(0.001, 1.0, log=True)
    assert fields["order"] == Choice(0, 1, 2)
    assert fields["rates"] == Choice("fixed", "shared", "layer", "layer-step", "parameter")
    assert fields["adapts"] == Choice("all", "head", "body")
    assert fields["multi_step"] == Choice(0.0, 0.1)
    assert fields["anneal"] == Choice(0.0, 0.5)
    assert fields["affine"] == Choice("shared", "step")
    assert fields["outer"] == outer_space()
    assert fields["update"] == Choice(["mul", "rate", "gradient"])
    assert fields["loss"] == Choice("task") and fields["clip"] == Choice(0.0)
    own = {name: Choice(name) for name in (*fields, "support")}
    assert dict(rule_space(**own).fields) == own


def test_learned_constants_are_never_merged():
    tokens = ["mul", *["add", "gradient", "learned", 0.5] * 2]
    assert simplified(tokens) == sorted_arguments(tokens)


def sorted_arguments(tokens):
    """Both arguments are the same, so only the sums inside may have been turned around."""
    half = simplified(tokens[1:5])
    return ["mul", *half, *half]


def test_a_source_that_could_not_stand_alone_is_refused():
    outside = Primitive("outside", ("same",), function=lambda x: halved(x))
    rule = make_rule(preset("maml", update=["outside", "gradient"]), [outside])
    with pytest.raises(ValueError, match="written out"):
        python_source(rule)


def root(x):
    return x * 3


def test_primitives_named_like_helpers_and_locals_do_not_disturb_them():
    for name in ("root", "layer", "memory", "c"):
        own = Primitive(name, ("same",), function=root)
        update = ["mul", "rate", "add", name, "gradient", "sqrt", "abs", "gradient"]
        rule = make_rule(preset("maml", update=update), [own])
        space: dict = {}
        exec(python_source(rule), space)
        vector, flat = torch.ones(4).double(), torch.tensor([0.1, -0.2, 0.3, 4.0]).double()
        moved, _ = space["update"](vector, flat, vector, 0.01, torch.tensor(1.0), 0, [4])
        torch.testing.assert_close(moved, vector - 0.01 * (3 * flat + flat.abs().sqrt()))


@pytest.mark.parametrize(
    "genes",
    [
        {"steps": 2.5},
        {"steps": True},
        {"rate": "abc"},
        {"rate": -3.0},
        {"rate": float("nan")},
        {"clip": float("nan")},
        {"order": 2.0},
        {"update": "sgd"},
        {"outer": "adam"},
    ],
)
def test_genes_of_the_wrong_kind_are_refused(genes):
    with pytest.raises(ValueError, match=next(iter(genes))):
        make_rule({**preset("maml"), **genes})
