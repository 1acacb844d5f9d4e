"""Laws of the gradient family, against plain loops and finite differences."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import FAMILIES, preset
from evometa.task.episodes import part_of
from tests.learner.laws import assert_same, grads_of, make, network, normed, waves

GRADIENT = FAMILIES["gradient"].presets
VALUES = [name for name, genes in GRADIENT.items() if "head" not in genes]


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("steps", [1, 3])
def test_mapped_equals_looped(name, steps):
    learner = make(network(), preset(name, steps=steps, rate=0.1))
    loop_loss, loop = grads_of(learner, waves(), LOOP)
    vmap_loss, mapped = grads_of(learner, waves(), VMAP)
    assert loop_loss == pytest.approx(vmap_loss, rel=1e-12)
    assert_same(mapped, loop, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["maml", "anil", "boil", "meta-sgd"])
def test_second_order_equals_finite_differences(name):
    learner = make(network(), preset(name, steps=2, rate=0.1))
    episodes = waves(tasks=2)
    _, grads = grads_of(learner, episodes, VMAP)
    for part in ("params", "learned"):
        for key in begin(learner, 0)[part]:
            meta = copy.deepcopy(begin(learner, 0))
            flat = meta[part][key].view(-1)
            h, values = 1e-6, []
            for sign in (1, -1):
                flat[0] += sign * h
                with torch.no_grad():
                    losses = vmap(learner.meta_loss, (None, 0, 0))
                    total = losses(meta, *episodes).loss.mean()
                values.append(total.item())
                flat[0] -= sign * h
            numeric = (values[0] - values[1]) / (2 * h)
            assert grads[f"{part}.{key}"].view(-1)[0].item() == pytest.approx(
                numeric, rel=1e-4, abs=1e-8
            )


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_is_the_gradient_at_the_adapted_point(steps):
    module = network()
    _, grads = grads_of(make(module, preset("fomaml", steps=steps, rate=0.1)), waves(1), LOOP)
    adapted = copy.deepcopy(module)
    optimiser = torch.optim.SGD(adapted.parameters(), lr=0.1)
    support, query = waves(1)
    for _ in range(steps):
        optimiser.zero_grad()
        F.mse_loss(adapted(support.inputs[0]), support.targets[0]).backward()
        optimiser.step()
    adapted.zero_grad()
    F.mse_loss(adapted(query.inputs[0]), query.targets[0]).backward()
    reference = {f"params.{k}": v.grad for k, v in adapted.named_parameters()}
    assert_same(grads, reference, rtol=1e-10, atol=1e-12)


def reference_maml(module, episodes, steps, rate, adapts):
    """The published algorithm with nothing but autograd: one task after the other."""
    names = [n for n, _ in module.named_parameters()]
    params = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    head = {names[-1], names[-2]}
    chosen = [n for n in names if adapts == "all" or (n in head) == (adapts == "head")]
    total = 0.0
    for task in range(len(episodes.support.inputs)):
        fast = dict(params)
        for _ in range(steps):
            out = torch.func.functional_call(module, fast, episodes.support.inputs[task])
            loss = F.mse_loss(out, episodes.support.targets[task])
            gradients = torch.autograd.grad(loss, [fast[n] for n in chosen], create_graph=True)
            fast.update({n: fast[n] - rate * g for n, g in zip(chosen, gradients, strict=True)})
        out = torch.func.functional_call(module, fast, episodes.query.inputs[task])
        total = total + F.mse_loss(out, episodes.query.targets[task])
    (total / len(episodes.support.inputs)).backward()
    return {f"params.{n}": p.grad for n, p in params.items()}


@pytest.mark.parametrize("steps", [1, 3])
def test_reptiles_gradient_is_the_way_back_from_the_adapted_weights(steps):
    """Nichol et al. (2018): start minus end of a descent on all examples, mean over tasks."""
    module, episodes = network(), waves(3)
    learner = make(module, preset("reptile", steps=steps, rate=0.1))
    loss, grads = grads_of(learner, episodes, LOOP)
    names = [name for name, _ in module.named_parameters()]
    reference, losses = dict.fromkeys(names, 0.0), []
    for task in range(3):
        support, query = part_of(episodes, task)
        adapted = copy.deepcopy(module)
        optimiser = torch.optim.SGD(adapted.parameters(), lr=0.1)
        for _ in range(steps):
            optimiser.zero_grad()
            both = (torch.cat(pair) for pair in zip(support, query, strict=True))
            x, y = both
            F.mse_loss(adapted(x), y).backward()
            optimiser.step()
        ends, starts = dict(adapted.named_parameters()), dict(module.named_parameters())
        reference = {n: reference[n] + (starts[n] - ends[n]).detach() / 3 for n in names}
        losses.append(F.mse_loss(adapted(query.inputs), query.targets).item())
    assert_same(grads, {f"params.{n}": v for n, v in reference.items()}, rtol=1e-10, atol=1e-12)
    assert loss == pytest.approx(sum(losses) / 3, rel=1e-12)


@pytest.mark.parametrize(("name", "adapts"), [("maml", "all"), ("anil", "head"), ("boil", "body")])
def test_presets_equal_the_published_algorithm(name, adapts):
    module = network()
    _, grads = grads_of(make(module, preset(name, steps=2, rate=0.1)), waves(), LOOP)
    reference = reference_maml(module, waves(), 2, 0.1, adapts)
    assert_same(grads, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rates", ["shared", "layer", "tensor", "tensor-step", "parameter"])
def test_learned_equal_rates_act_as_a_fixed_one(rates):
    fixed = make(network(), preset("maml", steps=2, rate=0.1))
    learned = make(network(), preset("maml", steps=2, rate=0.1, rates=rates))
    _, ours = grads_of(learned, waves(), VMAP)
    _, theirs = grads_of(fixed, waves(), VMAP)
    assert_same({k: ours[k] for k in theirs}, theirs, rtol=1e-10, atol=1e-12)
    assert all(ours[k].abs().max() > 0 for k in ours if k.startswith("learned."))


@pytest.mark.parametrize(("name", "moves"), [("anil", {"4.weight", "4.bias"}), ("boil", None)])
def test_only_the_chosen_part_adapts(name, moves):
    learner = make(network(), preset(name, steps=2, rate=0.1))
    meta = begin(learner, 0)
    adapted = learner.adapt(meta, part_of(waves(1).support, 0)).params
    moved = {k for k, v in adapted.items() if not torch.equal(v, meta["params"][k])}
    assert moved == (moves or set(meta["params"]) - {"4.weight", "4.bias"})


def test_permuting_tasks_permutes_scores():
    learner = make(network(), preset("maml", rate=0.1))
    episodes = waves()
    order = torch.tensor([2, 0, 3, 1])
    permuted = part_of(episodes, order)
    run = vmap(learner.meta_loss, (None, 0, 0))
    one = run(begin(learner, 0), *episodes).loss
    other = run(begin(learner, 0), *permuted).loss
    torch.testing.assert_close(one[order], other)


@pytest.mark.parametrize("norm", ["transductive", "inductive", "per-step"])
def test_batch_norm_maps_over_tasks(norm):
    learner = make(normed(), preset("maml", steps=2, rate=0.1), norm)
    _, loop = grads_of(learner, waves(), LOOP)
    _, mapped = grads_of(learner, waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-9, atol=1e-11)


def test_transductive_batch_norm_equals_the_module_in_training():
    module = normed()
    learner = make(module, preset("maml", steps=1, rate=0.1))
    adapted = learner.adapt(begin(learner, 0), part_of(waves(1).support, 0))
    twin = copy.deepcopy(module)
    twin.load_state_dict({**twin.state_dict(), **adapted.params})
    queries = waves(1).query.inputs[0]
    torch.testing.assert_close(learner.predict(adapted, queries), twin.train()(queries))


def test_per_step_statistics_are_running_averages_of_what_each_step_sees():
    """MAML++: the support before the step; at the last also the queries. They begin at 0 and 1,
    and normalise what is predicted after the step."""
    module, steps, rate = normed(), 3, 0.3
    learner = make(module, preset("maml", steps=steps, rate=rate), "per-step")
    meta, (support, query) = begin(learner, 0), part_of(waves(1), 0)
    found = learner.meta_loss(meta, support, query)

    means, spreads = torch.zeros(steps, 6).double(), torch.ones(steps, 6).double()

    def see(params, side, step):
        """Return the loss of a module in training; move the averages of a step by a tenth."""
        moved = side.inputs @ params["0.weight"].detach().T
        means[step] += 0.1 * (moved.mean(0) - means[step])
        spreads[step] += 0.1 * (moved.var(0, correction=0) - spreads[step])
        return F.mse_loss(functional_call(module.train(), params, (side.inputs,)), side.targets)

    params = {name: value.detach() for name, value in module.named_parameters()}
    for step in range(steps):
        leaves = {name: value.requires_grad_() for name, value in params.items()}
        grads = torch.autograd.grad(see(leaves, support, step), list(leaves.values()))
        params = {n: (leaves[n] - rate * g).detach() for n, g in zip(leaves, grads, strict=True)}
    torch.testing.assert_close(found.loss, see(params, query, steps - 1), check_dtype=False)
    reference = {"1.running_mean": means, "1.running_var": spreads}
    assert_same(found.buffers, reference)

    trained = {**meta, "buffers": {**meta["buffers"], **found.buffers}}
    for at, now in enumerate(learner.trajectory(trained, support)):
        rows = {name: each[max(at - 1, 0)] for name, each in reference.items()}
        scored = functional_call(module.eval(), {**now.params, **rows}, (query.inputs,))
        torch.testing.assert_close(learner.predict(now, query.inputs), scored)


def test_inductive_queries_do_not_see_each_other():
    queries = waves(1).query.inputs[0]
    support = part_of(waves(1).support, 0)
    for norm, alone_equals_together in (("inductive", True), ("transductive", False)):
        learner = make(normed(), preset("maml", steps=1, rate=0.1), norm)
        adapted = learner.adapt(begin(learner, 0), support)
        together = learner.predict(adapted, queries)
        halves = torch.cat(
            [learner.predict(adapted, queries[:3]), learner.predict(adapted, queries[3:])]
        )
        assert torch.allclose(together, halves) is alone_equals_together


def test_the_users_module_is_left_alone():
    module = normed()
    before = copy.deepcopy(module.state_dict())
    grads_of(make(module, preset("maml")), waves(), VMAP)
    after = module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None for p in module.parameters())


def test_frozen_parameters_stay():
    module = network()
    module[0].weight.requires_grad_(False)
    learner = make(module, preset("maml", rate=0.1))
    assert "0.weight" not in begin(learner, 0)["params"]
    loss, _ = grads_of(learner, waves(), VMAP)
    assert loss > 0


def test_body_of_a_single_layer_is_refused():
    with pytest.raises(ValueError, match="no such parameters"):
        make(nn.Linear(1, 1), preset("boil")).init(None)
