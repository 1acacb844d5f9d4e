"""How the support is taken: all at once, in parts, or in its order, one slice after the other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa.evaluate import LOOP, VMAP, begin
from evometa.learner import Setting, make_learner, preset
from evometa.network import Network, Padded
from evometa.rule import make_rule
from evometa.task import Glyphs
from evometa.task.episodes import joined, part_of, some_of
from evometa.task.protocol import IGNORED, ClassBatch
from tests.learner.laws import assert_same, grads_of, make, network, waves

RATE = 0.1


def plain(module, x, y, slices):
    """Gradient descent on one slice after the other, by autograd alone; the weights after each."""
    params = {name: value.detach().clone() for name, value in module.named_parameters()}
    line = [params]
    for part in slices:
        leaves = {name: value.requires_grad_() for name, value in params.items()}
        loss = F.mse_loss(functional_call(module, leaves, (x[part],)), y[part])
        grads = torch.autograd.grad(loss, list(leaves.values()))
        params = {
            name: (value - RATE * grad).detach()
            for (name, value), grad in zip(leaves.items(), grads, strict=True)
        }
        line.append(params)
    return line


def taken(support, steps=1):
    module = network()
    learner = make(module, preset("maml", steps=steps, rate=RATE, support=support))
    return module, learner, part_of(waves(1).support, 0)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_stream_is_learned_one_slice_after_the_other(mapped):
    module, learner, side = taken({"stream": 2}, steps=1)
    learner = learner if mapped else make(module, preset("maml", rate=RATE, support={"stream": 2}))
    line = list(learner.trajectory(begin(learner, 0), side))
    reference = plain(module, *side, [slice(0, 2), slice(2, 4), slice(4, 6)])
    assert len(line) == 4
    for own, other in zip(line, reference, strict=True):
        assert_same(own.params, other)


def test_several_updates_on_each_slice_and_a_last_slice_that_is_short():
    module, learner, side = taken({"stream": 4}, steps=2)
    line = list(learner.trajectory(begin(learner, 0), side))
    both = [slice(0, 4), slice(4, 6)]
    reference = plain(module, *side, [part for part in both for _ in range(2)])
    assert len(line) == 3, "the learner after each slice, not after each update"
    for own, other in zip(line, reference[::2], strict=True):
        assert_same(own.params, other)


def test_parts_take_turns_and_mix_what_is_sorted():
    module, learner, side = taken({"batches": 2}, steps=4)
    line = list(learner.trajectory(begin(learner, 0), side))
    parts = [slice(start, None, 3) for start in (0, 1, 2, 0)]
    for own, other in zip(line, plain(module, *side, parts), strict=True):
        assert_same(own.params, other)


@pytest.mark.parametrize("support", [{"stream": 6}, {"stream": 9}, {"batches": 6}])
def test_one_slice_is_all_of_it(support):
    _, learner, _ = taken(support, steps=2)
    _, whole, _ = taken("all", steps=2)
    _, ours = grads_of(learner, waves(), VMAP)
    _, theirs = grads_of(whole, waves(), VMAP)
    assert_same(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("support", [{"stream": 2}, {"batches": 2}])
@pytest.mark.parametrize("name", ["maml", "reptile", "lslr", "adam"])
def test_mapped_equals_looped(support, name):
    learner = make(network(), preset(name, steps=2, rate=RATE, support=support))
    _, loop = grads_of(learner, waves(), LOOP)
    _, mapped = grads_of(learner, waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "support", ["some", {"stream": 0}, {"batches": 1.5}, {"stream": 1, "x": 2}]
)
def test_what_is_no_way_to_take_a_support_is_refused(support):
    with pytest.raises(ValueError, match="`support` must be 'all'"):
        make_rule(preset("maml", support=support))
    with pytest.raises(ValueError, match="`multi_step` must be 0"):
        make_rule(preset("maml++", support={"stream": 1}))


def test_the_classes_of_a_side_are_no_examples():
    side = ClassBatch(torch.arange(6.0), torch.arange(6) % 3, torch.tensor([7, 8, 9]))
    few = some_of(side, slice(0, 2))
    assert few.inputs.tolist() == [0, 1] and few.classes.tolist() == [7, 8, 9]
    assert joined(side, few).targets.shape == (8,)


@pytest.mark.parametrize("name", ["maml", "momentum"])
@pytest.mark.parametrize("mapped", [True, False])
def test_slices_of_padding_alone_teach_nothing(name, mapped):
    task = Glyphs(ways=3, shots=3, queries=2, drawings=6, sampling="unequal").load(None)
    episodes = task.episodes("meta-train", 1, torch.Generator().manual_seed(1))
    support, query = part_of(episodes, 0)
    real = support.inputs.mask
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    module(support.inputs.values)
    net = Network(module)
    genome = preset(name, support={"stream": 2}, steps=2)
    learner = make_learner(genome, Setting(net if mapped else net.unmapped, task, "inductive"))
    longer = support._replace(
        inputs=Padded(*(torch.cat([leaf, leaf[:1].expand_as(leaf)]) for leaf in support.inputs)),
        targets=torch.cat([support.targets, torch.full_like(support.targets, IGNORED)]),
    )
    longer.inputs.mask[len(real) :] = False
    meta = begin(learner, 0)
    one, other = (learner.meta_loss(meta, side, query) for side in (support, longer))
    assert one.loss.isfinite()
    torch.testing.assert_close(one.loss, other.loss)
