"""Every preset, trained, equals a plain loop of the published algorithm, step by step.

The loops below know nothing of evometa: modules, `torch.autograd` and `torch.optim` alone.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa import Training
from evometa.evaluate import LOOP, VMAP, Trainer, begin
from evometa.learner import preset
from evometa.network import Network
from evometa.task.episodes import part_of
from tests.learner.laws import CPU, Waves, learner_of, make, network, normed, shapes, waves

ITERATIONS, TASKS = 12, 3


def trained(learner, task, plan=VMAP):
    training = Training(iterations=ITERATIONS, tasks=TASKS, validation=1)
    trainer = Trainer([learner], task, training, seeds=[0], plan=plan, device=CPU)
    trainer.run()
    (result,) = trainer.results()
    return result.meta


def meta_batches(pool):
    for iteration in range(ITERATIONS):
        rows = slice(iteration * TASKS, (iteration + 1) * TASKS)
        support, query = pool
        yield zip(
            support.inputs[rows],
            support.targets[rows],
            query.inputs[rows],
            query.targets[rows],
            strict=True,
        )


def adapted(module, params, rates, x, y, steps, second_order):
    """The inner loop: plain gradient descent on the tensors that `rates` names."""
    fast = dict(params)
    for _ in range(steps):
        loss = F.mse_loss(functional_call(module, fast, (x,)), y)
        grads = torch.autograd.grad(loss, [fast[n] for n in rates], create_graph=second_order)
        fast = {**fast, **{n: fast[n] - rates[n] * g for n, g in zip(rates, grads, strict=True)}}
    return fast


def maml(module, pool, steps, rate, *, second_order=True, adapts=None, learn_rates=False):
    """Finn et al. (2017); with `learn_rates`, Li et al. (2017)."""
    params = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    rates = {n: torch.full_like(params[n], rate) for n in adapts or params}
    leaves = list(params.values())
    if learn_rates:
        rates = {n: value.requires_grad_() for n, value in rates.items()}
        leaves += list(rates.values())
    optimiser = torch.optim.Adam(leaves, lr=1e-3)
    for batch in meta_batches(pool):
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            fast = adapted(module, params, rates, x, y, steps, second_order)
            loss = F.mse_loss(functional_call(module, fast, (x_query,)), y_query)
            (loss / TASKS).backward()
        optimiser.step()
    return params, rates


HEAD, BODY = ["4.weight", "4.bias"], ["0.weight", "0.bias", "2.weight", "2.bias"]
MAML_FAMILY = {
    "maml": {},
    "fomaml": {"second_order": False},
    "anil": {"adapts": HEAD},
    "boil": {"adapts": BODY},
    "meta-sgd": {"learn_rates": True},
}


@pytest.mark.parametrize("name", MAML_FAMILY)
@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
def test_the_maml_family(name, plan):
    pool = waves(ITERATIONS * TASKS)
    learner = make(network(), preset(name, steps=2, rate=0.1))
    ours = trained(learner, Waves(pool), plan)
    params, rates = maml(network(), pool, 2, 0.1, **MAML_FAMILY[name])
    assert_close(ours["params"], params)
    if name == "meta-sgd":
        assert_close(ours["learned"], rates)


def reptile(module, pool, steps, rate):
    """Nichol et al. (2018), algorithm 2: adapt to all examples of a task, and move towards it."""
    module = copy.deepcopy(module)
    for iteration, batch in enumerate(meta_batches(pool)):
        start = copy.deepcopy(module.state_dict())
        total = {n: torch.zeros_like(value) for n, value in start.items()}
        for x, y, x_query, y_query in batch:
            module.load_state_dict(start)
            optimiser = torch.optim.SGD(module.parameters(), lr=rate)
            for _ in range(steps):
                optimiser.zero_grad()
                F.mse_loss(module(torch.cat([x, x_query])), torch.cat([y, y_query])).backward()
                optimiser.step()
            for n, value in module.state_dict().items():
                total[n] += (value - start[n]) / TASKS
        step = 1.0 * (1 - iteration / ITERATIONS)
        module.load_state_dict({n: start[n] + step * total[n] for n in start})
    return dict(module.named_parameters())


def test_reptile():
    pool = waves(ITERATIONS * TASKS)
    ours = trained(make(network(), preset("reptile", rate=0.1)), Waves(pool))
    assert_close(ours["params"], reptile(network(), pool, 5, 0.1))


def test_reptile_in_batches():
    """As published: batches in turn, by Adam whose first average keeps nothing."""
    pool = waves(ITERATIONS * TASKS)
    genome = preset("reptile-batches", rate=0.02, support={"batches": 5}, steps=4)
    ours = trained(make(network(), genome), Waves(pool))
    module = network()
    for iteration, batch in enumerate(meta_batches(pool)):
        start = copy.deepcopy(module.state_dict())
        total = {n: torch.zeros_like(value) for n, value in start.items()}
        for x, y, x_query, y_query in batch:
            x, y = torch.cat([x, x_query]), torch.cat([y, y_query])
            module.load_state_dict(start)
            optimiser = torch.optim.Adam(module.parameters(), lr=0.02, betas=(0.0, 0.999))
            for step in range(4):
                optimiser.zero_grad()
                part = slice(step % 3, None, 3)
                F.mse_loss(module(x[part]), y[part]).backward()
                optimiser.step()
            for n, value in module.state_dict().items():
                total[n] += (value - start[n]) / TASKS
        step = 1 - iteration / ITERATIONS
        module.load_state_dict({n: start[n] + step * total[n] for n in start})
    assert_close(ours["params"], dict(module.named_parameters()), rtol=1e-5, atol=1e-6)


def maml_plus_plus(module, pool, steps, rate, *, by_tensor=False):
    """Antoniou et al. (2019), as published with their code, at one epoch an iteration."""
    norms = ["1.weight", "1.bias"]
    initial = {n: p.detach() for n, p in module.named_parameters()}
    params = {n: v.clone().requires_grad_() for n, v in initial.items() if n not in norms}
    own = {n: initial[n].repeat(steps, 1).requires_grad_() for n in norms}
    layers = {n: n if by_tensor else n.split(".")[0] for n in params}
    rates = {
        layer: torch.full((steps,), rate, dtype=torch.float64).requires_grad_()
        for layer in dict.fromkeys(layers.values())
    }
    leaves = [*params.values(), *own.values(), *rates.values()]
    optimiser = torch.optim.Adam(leaves, lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, ITERATIONS, eta_min=1e-5)
    multi_step_epochs, first_order_epochs = 3, 6
    for epoch, batch in enumerate(meta_batches(pool)):
        second_order = epoch >= first_order_epochs
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            fast, losses = dict(params), []
            for step in range(steps):
                norm = {n: own[n][step] for n in norms}
                loss = F.mse_loss(functional_call(module, {**fast, **norm}, (x,)), y)
                grads = torch.autograd.grad(loss, list(fast.values()), create_graph=second_order)
                fast = {
                    n: fast[n] - rates[layers[n]][step] * g
                    for n, g in zip(fast, grads, strict=True)
                }
                outputs = functional_call(module, {**fast, **norm}, (x_query,))
                losses.append(F.mse_loss(outputs, y_query))
            weights = [0.0] * (steps - 1) + [1.0]
            if epoch < multi_step_epochs:
                decay = 1 / steps / multi_step_epochs
                early = max(1 / steps - epoch * decay, 0.03 / steps)
                last = min(1 / steps + epoch * (steps - 1) * decay, 1 - (steps - 1) * 0.03 / steps)
                weights = [early] * (steps - 1) + [last]
            total = sum(w * loss for w, loss in zip(weights, losses, strict=True))
            (total / TASKS).backward()
        optimiser.step()
        cosine.step()
    return params, {**{f"norm:{n}": v for n, v in own.items()}, **rates}


@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
@pytest.mark.parametrize("rates", ["layer-step", "tensor-step"])
def test_maml_plus_plus(plan, rates):
    pool = waves(ITERATIONS * TASKS)
    rule = preset("maml++", steps=3, rate=0.1, multi_step=0.25, anneal=0.5, rates=rates)
    ours = trained(make(normed(), rule), Waves(pool), plan)
    module = normed().train()
    module[1].track_running_stats = False
    module[1].running_mean = module[1].running_var = None
    by_tensor = rates == "tensor-step"
    params, learned = maml_plus_plus(module, pool, 3, 0.1, by_tensor=by_tensor)
    assert_close(ours["params"], params)
    assert_close(ours["learned"], learned)


PARTS = {"multi_step": 0.25, "anneal": 0.5, "affine": "step", "rates": "layer-step"}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_maml_plus_plus_is_switchable_alone(part):
    pool = waves(ITERATIONS * TASKS)
    plain = preset("maml", steps=3, rate=0.1)
    without = trained(make(normed(), plain), Waves(pool))
    rule = preset("maml", steps=3, rate=0.1, **{part: PARTS[part]})
    looped = trained(make(normed(), rule), Waves(pool), LOOP)
    assert_close(trained(make(normed(), rule), Waves(pool))["params"], looped["params"])
    assert not torch.allclose(looped["params"]["0.weight"], without["params"]["0.weight"])


@dataclass(frozen=True)
class Points(Waves):
    """Classes of a task of one's own, whose sides do not say how many they are."""

    pool: Any
    ways: int = 3

    def loss(self, predict, side):
        return F.cross_entropy(predict(side.inputs), side.targets)


def embedding():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def protonet(module, pool, distance):
    """Snell et al. (2017), algorithm 1."""
    module = copy.deepcopy(module)
    scale = torch.tensor(10.0, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([*module.parameters(), scale], lr=1e-3)
    for batch in meta_batches(pool):
        optimiser.zero_grad()
        for x, y, x_query, y_query in batch:
            means = torch.stack([module(x[y == label]).mean(0) for label in y.unique()])
            queries = module(x_query)
            if distance == "euclidean":
                logits = -(torch.cdist(queries, means) ** 2)
            else:
                logits = scale * F.cosine_similarity(queries[:, None], means[None], dim=-1)
            (F.cross_entropy(logits, y_query) / TASKS).backward()
        optimiser.step()
    return dict(module.named_parameters())


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
@pytest.mark.parametrize("ways", [None, 5], ids=["as many", "more"])
def test_prototypes(distance, plan, ways):
    pool = shapes(ITERATIONS * TASKS, ways=ways or 3)
    genome = preset("protonet", distance=distance, ways=ways)
    learner = learner_of(genome, Network(embedding()), Points(None))
    ours = trained(learner, Points(pool), plan)
    assert_close(ours["params"], protonet(embedding(), pool, distance))


def test_permuting_labels_permutes_predictions():
    pool = shapes(1)
    genome = preset("protonet", ways=None)
    learner = learner_of(genome, Network(embedding()), Points(None))
    support = part_of(pool.support, 0)
    order = torch.tensor([2, 0, 1])
    relabelled = support._replace(targets=order[support.targets])
    one, other = (
        learner.predict(learner.adapt(begin(learner, 0), s), pool.query.inputs[0])
        for s in (support, relabelled)
    )
    torch.testing.assert_close(one, other[:, order])


def test_schedules_equal_those_of_torch():
    rule = preset("maml", outer={"adam": {"rate": 1e-3, "schedule": "cosine"}})
    outer = make(network(), rule).traits.outer
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 20, eta_min=1e-5)
    for iteration in range(20):
        assert outer.rate * outer.factor(iteration / 20) == pytest.approx(cosine.get_last_lr()[0])
        reference.step()
        cosine.step()
    assert math.isclose(outer.factor(1.0), 0.01)


def assert_close(ours, theirs, rtol=1e-8, atol=1e-10):
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name].detach(), rtol=rtol, atol=atol, msg=name
        )
