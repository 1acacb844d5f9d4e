"""Prototype-initialised heads: equal to prototypes without a step, to a plain loop with some."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa import space as s
from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import FAMILIES, Setting, family_of, formula_of, make_learner, preset
from evometa.network import Network
from evometa.rule import fingerprint, make_rule, python_source, rule_space
from evometa.task import Glyphs
from evometa.task.episodes import part_of
from evometa.task.protocol import ClassBatch, EpisodeBatch
from evometa.task.protocol import sized as drawn_shapes
from tests.evaluate.test_presets import ITERATIONS, TASKS, Points, embedding, meta_batches, trained
from tests.evaluate.test_presets import assert_close as assert_trained
from tests.learner.laws import (
    assert_packed_equals_single,
    assert_same,
    grads_of,
    learner_of,
    make,
    network,
    shapes,
)

OUTPUTS = torch.zeros(6, 4, device="meta")


def learner(name="proto-maml", norm="inductive", module=None, **genes):
    net = Network(embedding() if module is None else module)
    return make_learner(preset(name, **genes), Setting(net, Points(None), norm, OUTPUTS))


def normed():
    torch.manual_seed(0)
    layers = nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("norm", ["inductive", "transductive", "per-step"])
@pytest.mark.parametrize("support", ["all", {"batches": 2}])
def test_without_a_step_it_equals_prototypes(norm, support):
    side, query = part_of(shapes(), 0)
    ours = learner(norm=norm, module=normed(), steps=1, support=support)
    theirs = learner_of(preset("protonet", ways=None), Network(normed()), Points(None), norm)
    adapted = next(iter(ours.trajectory(begin(ours, 0), side)))
    found = ours.predict(adapted, query.inputs).softmax(-1)
    wanted = theirs.predict(theirs.adapt(begin(theirs, 0), side), query.inputs).softmax(-1)
    torch.testing.assert_close(found, wanted)


def reference(module, pool, steps, rate, second_order):
    """Triantafillou et al. (2020): a linear layer from the prototypes, then gradient descent."""
    params = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    optimiser = torch.optim.Adam(list(params.values()), lr=1e-3)
    for batch in meta_batches(pool):
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            embedded = functional_call(module, params, (x,))
            means = torch.stack([embedded[y == label].mean(0) for label in y.unique()])
            # copies: a step's gradient takes the head for independent of the body
            fast = {n: value.clone() for n, value in params.items()}
            fast = {**fast, "w": 2 * means, "b": -means.square().sum(1)}

            def logits(fast, x):
                own = {n: fast[n] for n in params}
                return functional_call(module, own, (x,)) @ fast["w"].T + fast["b"]

            for _ in range(steps):
                loss = F.cross_entropy(logits(fast, x), y)
                leaves = list(fast.values())
                grads = torch.autograd.grad(
                    loss, leaves, create_graph=second_order, retain_graph=True
                )
                fast = {n: fast[n] - rate * g for n, g in zip(fast, grads, strict=True)}
            (F.cross_entropy(logits(fast, x_query), y_query) / TASKS).backward()
        optimiser.step()
    return params


@pytest.mark.parametrize("name", ["proto-maml", "fo-proto-maml"])
@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
def test_it_equals_the_published_algorithm(name, plan):
    pool = shapes(ITERATIONS * TASKS)
    ours = trained(learner(name, steps=3, rate=0.1), Points(pool), plan)
    assert_trained(ours["params"], reference(embedding(), pool, 3, 0.1, name == "proto-maml"))


GENES = [
    {"rates": "parameter"},
    {"rates": "layer-step"},
    {"adapts": "head"},
    {"adapts": "body"},
    {"loss": "squared"},
    {"order": 0},
    {"support": {"batches": 2}},
    {"update": ["mul", "rate", "mul", "gain", "unbiased", 0.9, "gradient"], "clip": 1.0},
]


@pytest.mark.parametrize("genes", GENES, ids=str)
def test_it_composes_mapped_equals_looped_and_packed_equals_single(genes):
    genes = {"steps": 2, **genes}
    made = [learner(rate=rate, **genes) for rate in (0.1, 0.2)]
    _, loop = grads_of(made[0], shapes(), LOOP)
    _, mapped = grads_of(made[0], shapes(), VMAP)
    assert_same(mapped, loop, rtol=1e-9, atol=1e-12)
    assert_packed_equals_single(made, shapes(), rtol=1e-9, atol=1e-12)


def sized(ways, **kind):
    support, query = part_of(shapes(1, ways=ways, **kind), 0)
    classes = torch.arange(ways)
    return EpisodeBatch(ClassBatch(*support, classes), ClassBatch(*query, classes))


@pytest.mark.parametrize("ways", [2, 3, 60])
@pytest.mark.parametrize("rates", ["fixed", "parameter"])
def test_it_learns_any_number_of_classes_from_one_shot(ways, rates):
    ours = learner(steps=2, rates=rates)
    assert ours.traits.any_ways
    support, query = sized(ways, shots=1)
    meta = begin(ours, 0)
    params = {n: v.clone().requires_grad_() for n, v in meta["params"].items()}
    told = ours.meta_loss({**meta, "params": params}, support, query)
    for grad in torch.autograd.grad(told.objective, list(params.values())):
        assert grad.isfinite().all()
    assert ours.predict(ours.adapt(meta, support), query.inputs).shape == (2 * ways, ways)


def test_permuting_labels_permutes_predictions():
    support, query = sized(3)
    ours = learner(steps=2, rates="parameter")
    order = torch.tensor([2, 0, 1])
    relabelled = support._replace(targets=order[support.targets])
    one, other = (
        ours.predict(ours.adapt(begin(ours, 0), side), query.inputs)
        for side in (support, relabelled)
    )
    torch.testing.assert_close(one, other[:, order])


def test_a_class_without_examples_is_never_predicted_and_equal_examples_are_finite():
    support, query = sized(3)
    ours = learner(steps=3)
    meta = begin(ours, 0)
    absent = support._replace(inputs=support.inputs[:4], targets=support.targets[:4])
    assert 2 not in ours.predict(ours.adapt(meta, absent), query.inputs).argmax(-1)
    equal = shapes()
    same = equal.support._replace(inputs=equal.support.inputs[:, :1].expand(-1, 6, -1))
    _, grads = grads_of(ours, EpisodeBatch(same, equal.query), VMAP)
    assert all(value.isfinite().all() for value in grads.values())


def test_padding_teaches_nothing():
    task = Glyphs(ways=(2, 4), shots=3, queries=2, drawings=6, sampling="unequal").load(None)

    episodes = drawn_shapes(task, 1).episodes("meta-train", 4, torch.Generator().manual_seed(1))
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.BatchNorm1d(5))
    ours = learner_of(preset("proto-maml", rate=0.01), Network(module), task, "inductive")
    meta = begin(ours, 0)
    for row in range(4):
        support, query = part_of(episodes, row)
        real = support.inputs.mask
        bare = ClassBatch(support.inputs.values[real], support.targets[real], support.classes)
        one, other = (ours.meta_loss(meta, side, query).loss for side in (support, bare))
        torch.testing.assert_close(one, other)


def test_what_it_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="needs a task of classes"):
        make(network(), preset("proto-maml"))
    with pytest.raises(ValueError, match="stream"):
        make_rule(preset("proto-maml", support={"stream": 2}))
    with pytest.raises(ValueError, match="`head` must be one of"):
        make_rule(preset("maml", head="linear"))
    with pytest.raises(ValueError, match="order 0"):
        learner(order=0, adapts="head")
    pairs = Setting(Network(embedding()), Points(None), "inductive", (OUTPUTS, OUTPUTS))
    with pytest.raises(ValueError, match="one tensor"):
        make_learner(preset("proto-maml"), pairs)


def test_it_is_a_point_of_the_space_and_told_from_maml():
    space = rule_space(head=s.Choice("network", "prototypes"))
    for name in ("proto-maml", "fo-proto-maml"):
        space.validate(preset(name))
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(20)]
    assert {genome["head"] for genome in drawn} == {"network", "prototypes"}
    for genome in drawn:
        child = space.mutate(genome, rng)
        space.validate(child)
        make_rule(child)
    assert "head" not in rule_space().sample(rng)
    plain, ours = preset("maml", steps=5, rate=0.1), preset("proto-maml")
    assert fingerprint(make_rule(plain)) != fingerprint(make_rule(ours))
    assert fingerprint(make_rule({**plain, "head": "network"})) == fingerprint(make_rule(plain))
    assert formula_of(ours).startswith("head ← 2·cₖ") and formula_of(ours).endswith("rate·g")
    compile(python_source(make_rule(ours)), "rule.py", "exec")
    family, genes = family_of(ours)
    assert family is FAMILIES["gradient"] and family.capped(genes, 2)["head"] == "prototypes"
