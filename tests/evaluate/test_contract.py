"""Laws of the contract: every kind of task, whatever the way of learning and the plan."""

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evometa import Rung, Study, Training
from evometa import space as s
from evometa.evaluate import VMAP, Evaluator, Trainer, admit, begin, parse_plan
from evometa.evaluate.pack import Layout, Pack
from evometa.evaluate.program import Program
from evometa.learner import (
    PRESETS,
    Family,
    MetaLoss,
    Setting,
    Traits,
    make_learner,
    predictor,
    preset,
    stage_at,
)
from evometa.network import ConvBlock, Network, conv_net, mlp
from evometa.records import Candidate, Status
from evometa.rule import KNOWN
from evometa.task import Glyphs, Sinusoid
from evometa.task.episodes import over, part_of
from tests.learner.worlds import Navigate, Outside, Waves, Words

CPU = torch.device("cpu")


def study(task, build, rule, training=None, **options):
    training = Training(**{"iterations": 6, "tasks": 3, "validation": 6, **(training or {})})
    made = Study(s.Struct(x=s.Choice(1)), build, task, training=training, **options)
    return made, {"x": 1, "rule": rule}


def evaluated(task, build, rule, plan="vmap", training=None, seed=3, **options):
    made, genome = study(task, build, rule, training, **options)
    plans = dict.fromkeys(("dense", "convolution"), plan)
    (result,) = Evaluator(made, plans=plans)([Candidate(0, genome, seed)])
    return result


def policy(genome):
    return mlp(2, [16], 2, "tanh")


@pytest.mark.parametrize("order", [1, 2])
def test_an_ordinary_policy_meta_learns_in_a_world_by_loop_and_by_vmap(order):
    outer = {"adam": {"rate": 0.01, "schedule": "constant"}}
    rule = preset("maml", rate=0.1, order=order, outer=outer)
    looped = evaluated(Navigate(), policy, rule, "loop")
    mapped = evaluated(Navigate(), policy, rule, "vmap")
    assert looped.status is mapped.status is Status.OK, looped.error + mapped.error
    assert looped.scores == pytest.approx(mapped.scores, rel=1e-3)
    assert mapped.note == "", "the gradient of a surrogate is not judged as a loss's"
    long = {"iterations": 120, "tasks": 16, "validation": 40}
    trained = evaluated(Navigate(), policy, rule, "vmap", long)
    assert trained.steps[1] > mapped.steps[1] + 0.5, "better than after six meta-iterations"
    assert trained.steps[1] > trained.steps[0] + 0.2, "better after adapting than before"


def test_a_world_outside_is_looped_and_learned():
    rule = preset("maml", rate=0.05, order=1)
    outside = evaluated(Outside(), policy, rule, "vmap+compile")
    assert (outside.status, outside.plan) == (Status.OK, "loop"), outside.error
    inside = evaluated(Navigate(), policy, rule, "loop")
    assert outside.scores == pytest.approx(inside.scores, rel=1e-4)


def test_a_dict_reaches_forward_as_it_is_and_equals_the_same_data_as_a_tensor():
    class Keyed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(1, [8], 1, "tanh")

        def forward(self, inputs):
            assert inputs["tokens"].dtype == torch.int64
            return self.net(inputs["x"])

    for plan in ("loop", "vmap"):
        plain = evaluated(Waves(), lambda g: mlp(1, [8], 1, "tanh"), preset("maml"), plan)
        keyed = evaluated(Waves(keyed=True), lambda g: Keyed(), preset("maml"), plan)
        assert keyed.status is Status.OK, keyed.error
        assert keyed.scores == plain.scores


class Embedder(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, outputs)

    def forward(self, tokens):
        assert tokens.dtype == torch.int64
        return self.head(self.table(tokens[..., 0]).tanh())


@pytest.mark.parametrize("rule", ["maml", "anil", "protonet"])
@pytest.mark.parametrize("plan", ["loop", "vmap"])
def test_whole_numbers_stay_whole(rule, plan):
    genome = preset(rule) if rule != "protonet" else preset(rule, ways=None)
    result = evaluated(Words(), lambda g: Embedder(3), genome, plan)
    assert result.status is Status.OK, result.error


@dataclass(frozen=True)
class OldForm(Sinusoid):
    """The loss written of outputs and targets."""

    def loss(self, predict, side):
        return self.old(predict(side.inputs), side.targets)

    @staticmethod
    def old(predictions, targets):
        return F.mse_loss(predictions, targets)


def test_a_loss_of_outputs_gives_the_same_bits():
    def build(genome):
        return mlp(1, [8], 1)

    for plan in ("loop", "vmap"):
        new = evaluated(Sinusoid(), build, preset("maml"), plan)
        old = evaluated(OldForm(), build, preset("maml"), plan)
        assert (old.scores, old.curve) == (new.scores, new.curve)


# ---------------------------------------------------------------- families of the user's own


class Anchors(NamedTuple):
    params: Any
    buffers: Any
    anchors: Tensor


@dataclass(frozen=True)
class Projected:
    """A toy: nearest class mean after a projection of the learner's own, drawn at random."""

    network: Network
    loss: Any
    most: int
    features: int
    width: int

    @property
    def traits(self):
        return Traits(f"projected {self.width} {self.network.structure}", any_ways=True)

    def init(self, generator):
        drawn = torch.randn(self.features, self.width, generator=generator) / self.features**0.5
        return {
            "params": {**self.network.params, "own.projection": drawn},
            "learned": {},
            "constants": {},
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta, support, query):
        loss = self.loss(predictor(self, self.adapt(meta, support)), query)
        return MetaLoss(loss, loss, {})

    def adapt(self, meta, support):
        embedded = self.embedded(meta["params"], meta["buffers"], support.inputs)
        ways = support.classes.shape[0] if hasattr(support, "classes") else self.most
        one_hot = (support.targets == torch.arange(ways, device=embedded.device)[:, None]).float()
        anchors = one_hot @ embedded / one_hot.sum(1, keepdim=True).clamp(min=1)
        return Anchors(meta["params"], meta["buffers"], anchors)

    def trajectory(self, meta, support, steps=None):
        return [self.adapt(meta, support)]

    def predict(self, adapted, inputs):
        embedded = self.embedded(adapted.params, adapted.buffers, inputs)
        return -(embedded[:, None] - adapted.anchors).square().sum(-1)

    def embedded(self, params, buffers, inputs):
        own = {name: params[name] for name in self.network.params}
        outputs, _ = self.network(own, buffers, inputs, norm="batch", training=False)
        return outputs.flatten(1) @ params["own.projection"]


def make_projected(genes, setting):
    if not isinstance(genes["width"], int):
        raise ValueError("`width` must be a whole number")
    features = setting.outputs.flatten(1).shape[1]
    return Projected(
        setting.network, setting.task.loss, setting.task.ways, features, genes["width"]
    )


PROJECTED = Family(
    name="projected",
    make=make_projected,
    space=lambda: s.Struct(width=s.Int(2, 8)),
    formula=lambda genes, own: f"nearest mean of {genes['width']} projections",
)


class Kept(NamedTuple):
    params: Any
    memory: Tensor


@dataclass(frozen=True)
class Recurrent:
    """A toy: a policy whose memory lives through a trial, by a hand-written cell."""

    network: Network
    loss: Any

    @property
    def traits(self):
        return Traits(f"recurrent {self.network.structure}", memory=True)

    def init(self, generator):
        own = {
            name: 0.3 * torch.randn(shape, generator=generator)
            for name, shape in {"own.in": (2, 4), "own.back": (4, 4), "own.out": (4, 2)}.items()
        }
        params = {**self.network.params, **own}
        return {"params": params, "learned": {}, "constants": {}, "buffers": {}, "stage": {}}

    def predict(self, adapted, inputs):
        params, memory = adapted
        own = {name: params[name] for name in self.network.params}
        outputs, _ = self.network(own, {}, inputs, norm="batch", training=False)
        memory = (inputs @ params["own.in"] + memory @ params["own.back"]).tanh()
        return outputs + memory @ params["own.out"], Kept(params, memory)

    def adapt(self, meta, support):
        empty = torch.zeros(1, 4, device=meta["params"]["own.in"].device)
        walk = predictor(self, Kept(meta["params"], empty))
        self.loss(walk, support)
        return walk.adapted._replace(memory=walk.adapted.memory.mean(0, keepdim=True))

    def trajectory(self, meta, support, steps=None):
        return [self.adapt(meta, support)]

    def meta_loss(self, meta, support, query):
        loss = self.loss(predictor(self, self.adapt(meta, support)), query)
        return MetaLoss(loss, loss, {})


RECURRENT = Family(
    name="recurrent",
    make=lambda genes, setting: Recurrent(setting.network, setting.task.loss),
    space=lambda: s.Struct(on=s.Choice(True)),
)


@pytest.mark.parametrize("plan", ["loop", "vmap"])
def test_a_learner_with_memory_is_carried_through_a_rollout(plan):
    own = {"families": [RECURRENT]}
    result = evaluated(Navigate(), policy, {"recurrent": {"on": True}}, plan, **own)
    assert result.status is Status.OK, result.error
    other = evaluated(Navigate(), policy, {"recurrent": {"on": True}}, "loop", **own)
    assert result.scores == pytest.approx(other.scores, rel=1e-3)


def test_memory_goes_on_within_a_walk_and_starts_anew_for_the_next():
    learner = Recurrent(Network(policy(None)), Navigate().loss)
    meta = begin(learner, 0)
    start, x = Kept(meta["params"], torch.zeros(1, 4)), torch.ones(3, 2)
    one, other = predictor(learner, start), predictor(learner, start)
    first, second = one(x), one(x)
    assert not torch.equal(first, second)
    assert torch.equal(other(x), first)


def glyphs(**options):
    given = {"ways": 3, "queries": 3, "classes_per_split": (8, 5, 5), "drawings": 8, **options}
    return Glyphs(**given).load(None)


def flat_net(outputs):
    return lambda g: nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))


@pytest.mark.parametrize("plan", ["loop", "vmap"])
def test_a_family_of_ones_own_is_packed_like_a_built_in_one(plan):
    made, genome = study(glyphs(), flat_net(6), {"projected": {"width": 3}}, families=[PROJECTED])
    evaluate = Evaluator(made, plans={"dense": plan})
    pack = evaluate([Candidate(number, genome, seed=number) for number in range(3)])
    for number, result in enumerate(pack):
        assert result.status is Status.OK, result.error
        (alone,) = evaluate([Candidate(number, genome, seed=number)])
        assert result.scores == pytest.approx(alone.scores, rel=1e-4)
    assert len({result.signature for result in pack}) == 1
    assert len({result.scores for result in pack}) == 3, "weights of its own follow the seed"


INIT = """
import torch
from tests.evaluate.test_contract import *
made, genome = study(glyphs(), flat_net(6), {"projected": {"width": 3}}, families=[PROJECTED])
admission = admit(made, genome, 11, CPU)
print(float(admission.meta["params"]["own.projection"].double().sum()))
"""


def test_the_same_seed_gives_the_same_start_in_every_process_and_everywhere():
    runs = [subprocess.run([sys.executable, "-c", INIT], capture_output=True, text=True)]
    exec(INIT.replace("print(", "here.append("), globals(), {"here": (here := [])})
    assert [float(run.stdout) for run in runs] == here, runs[0].stderr
    made, genome = study(glyphs(), flat_net(6), {"projected": {"width": 3}}, families=[PROJECTED])
    admission = admit(made, genome, 11, CPU)
    trainer = Trainer(
        [admission.learner],
        made.task,
        made.training,
        seeds=[0],
        plan=VMAP,
        device=CPU,
        metas=[admission.meta],
    )
    begun = trainer.pack.meta(0)["params"]["own.projection"]
    assert torch.equal(begun, admission.meta["params"]["own.projection"])
    assert torch.equal(begun, begin(admission.learner, 11)["params"]["own.projection"])


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize("rule", ["maml", "protonet", "projected"])
def test_permuting_ways_permutes_results(rule):
    task = glyphs(shots=2)
    genome = {"projected": {"width": 4}} if rule == "projected" else preset(rule)
    made, _ = study(task, flat_net(3), genome, families=[PROJECTED])
    setting = Setting(Network(flat_net(3)(None)), task, "inductive", torch.zeros(6, 3))
    learner = make_learner(genome, setting, made.all_families)
    meta = begin(learner, 0)
    if rule == "maml":  # a head that treats all ways alike
        meta["params"]["1.weight"] = torch.zeros(3, 784)
        meta["params"]["1.bias"] = torch.zeros(3)
    support, query = part_of(task.episodes("meta-train", 1, torch.Generator().manual_seed(0)), 0)
    order = torch.tensor([2, 0, 1])
    relabelled = support._replace(targets=order[support.targets])
    one, other = (
        learner.predict(learner.adapt(meta, side), query.inputs) for side in (support, relabelled)
    )
    torch.testing.assert_close(one, other[:, order])


def normed(outputs):
    def build(genome):
        return conv_net([ConvBlock(1, 4), ConvBlock(4, 4)], outputs, head="flatten")

    return build


@pytest.mark.parametrize("norm", ["inductive", "transductive"])
@pytest.mark.parametrize("rule", ["maml", "protonet"])
@pytest.mark.parametrize("mapped", [True, False])
def test_padded_equals_unpadded(norm, rule, mapped):
    """Classes of unequal size: the padding of a batch against each episode without it."""
    task = glyphs(shots=3, drawings=6, sampling="unequal")
    episodes = task.episodes("meta-train", 4, torch.Generator().manual_seed(1))
    real = episodes.support.inputs.mask
    assert not real.all()
    torch.manual_seed(0)
    module = normed(3)(None)
    module(episodes.support.inputs.values[0])
    network = Network(module.double())
    if not mapped:
        network = network.unmapped
    genome = preset(rule, rate=0.1, steps=2) if rule == "maml" else preset(rule, ways=None)
    learner = make_learner(genome, Setting(network, task, norm))
    meta = begin(learner, 0)
    meta = {part: {k: v.double() for k, v in values.items()} for part, values in meta.items()}
    wide = over(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, episodes)
    for row in range(4):
        support, query = part_of(wide, row)
        cut = support._replace(
            inputs=support.inputs.values[real[row]], targets=support.targets[real[row]]
        )
        one = learner.meta_loss(meta, support, query)
        other = learner.meta_loss(meta, cut, query)
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(one.objective, other.objective, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("sampling", ["equal", "unequal"])
@pytest.mark.parametrize("rule", ["maml", "protonet"])
def test_ways_and_shots_vary_from_one_meta_batch_to_the_next(sampling, rule):
    task = glyphs(ways=(2, 4), shots=(1, 4), sampling=sampling)
    result = evaluated(task, flat_net(4), preset(rule), "loop", {"iterations": 8, "validation": 20})
    assert result.status is Status.OK, result.error
    assert len(result.scores) == 20
    pack = Evaluator(study(task, flat_net(4), preset(rule))[0], plans={"dense": "vmap"})
    both = pack([Candidate(n, {"x": 1, "rule": preset(rule)}, n) for n in range(2)])
    assert [each.status for each in both] == [Status.OK] * 2, both[0].error


@dataclass(frozen=True)
class Missing(Words):
    """Label 2 never comes in the support."""

    def episodes(self, split, n, generator):
        support, query = Words.episodes(self, split, n, generator)
        return support._replace(targets=support.targets.clamp(max=1)), query


def test_a_class_without_examples_is_never_predicted_and_no_nan():
    task = Words()
    setting = Setting(Network(Embedder(3)), task, "inductive")
    learner = make_learner(preset("protonet", ways=None), setting)
    support, query = part_of(task.episodes("meta-train", 1, torch.Generator().manual_seed(0)), 0)
    absent = support._replace(targets=support.targets.clamp(max=1))
    meta = begin(learner, 0)
    leaves = {k: v.requires_grad_() for k, v in meta["params"].items()}
    loss = learner.meta_loss({**meta, "params": leaves}, absent, query).loss
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    assert all(bool(grad.isfinite().all()) for grad in grads if grad is not None)
    assert 2 not in learner.predict(learner.adapt(meta, absent), query.inputs).argmax(-1)


def test_protonet_never_wants_more_ways_than_there_are():
    result = evaluated(glyphs(), flat_net(6), preset("protonet"))
    assert result.status is Status.OK, result.error


# ---------------------------------------------------------------- plans and rungs


# of the known updates, which are expressions of one grammar, one
GRAMMAR = set(KNOWN) - {"adam"}
FAMILY_RULES = [*(name for name in PRESETS if name not in GRAMMAR), "projected", "recurrent"]


@pytest.mark.parametrize("name", FAMILY_RULES)
@pytest.mark.parametrize("plan", ["loop", "vmap", "vmap:1x2"])
def test_all_families_and_plans_leave_no_tensor_on_another_device(name, plan):
    meta_device = torch.device("meta")
    task = Navigate() if name == "recurrent" else glyphs()
    module = (
        policy(None)
        if name == "recurrent"
        else nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 26 * 26, 3)
        )
    )
    own = {"projected": {"width": 3}} if name == "projected" else {"recurrent": {"on": True}}
    genome = own if name in own else preset(name)
    families = study(task, policy, genome, families=[PROJECTED, RECURRENT])[0].all_families
    for norm in ("inductive", "per-step"):
        setting = Setting(Network(module), task, norm, torch.zeros(3, 3))
        learner = make_learner(genome, setting, families)
        pack = Pack.of([begin(learner, 0)] * 2, [0.0] * 2, meta_device)
        episodes = task.episodes("meta-train", 4, torch.Generator().manual_seed(0))
        moved = over(lambda leaf: leaf.unflatten(0, (2, 2)).to(meta_device), episodes)
        for progress in (0.0, 1.0):
            stage = stage_at(learner, learner.traits, progress)
            numbers = {key: value.to(meta_device) for key, value in stage.numbers.items()}
            program = Program(stage.learner, Layout.of(pack.meta(0)), parse_plan(plan))
            found = program(pack, numbers, moved)
            assert found.grads.shape == pack.flat.shape
            assert all(leaf.is_meta for leaf in pytree.tree_leaves(found))


def test_a_rung_limits_the_steps_of_a_rule_that_stands_in_a_choice_of_families():
    task, build = Waves(), lambda g: mlp(1, [8], 1)
    for rule in (preset("maml", steps=5), {"gradient": preset("maml", steps=5)}):
        made, genome = study(task, build, rule, rungs=[Rung(iterations=2, steps=1)])
        cheap, full = (Evaluator(made)([Candidate(0, genome, 0, rung=r)])[0] for r in (0, 1))
        assert (len(cheap.steps), len(full.steps)) == (2, 6)


@dataclass(frozen=True)
class Ranked(Waves):
    """A metric to be maximised whose name says nothing, and one that is no mean."""

    metrics: ClassVar = {"fit": "max"}

    def scores(self, predict, side):
        return {"fit": -self.loss(predict, side)}


def test_a_direction_is_what_the_task_declares():
    made, genome = study(Ranked(), lambda g: mlp(1, [8], 1), preset("maml"), {"later": 3})
    assert dict(made.objectives) == {"fit": "max"}
    (result,) = Evaluator(made)([Candidate(0, genome, 0)])
    assert result.metrics["later_fit"] == pytest.approx(min(result.steps[1:]))


def test_a_transductive_learner_says_what_it_scores_one_by_one():
    task = glyphs(queries=5)
    together = evaluated(task, normed(3), preset("protonet"), training={"norm": "transductive"})
    inductive = evaluated(task, normed(3), preset("protonet"))
    assert "one_by_one_accuracy" in together.metrics
    assert "one_by_one_accuracy" not in inductive.metrics
    plain = evaluated(task, flat_net(3), preset("protonet"), training={"norm": "transductive"})
    assert plain.metrics["one_by_one_accuracy"] == plain.metrics["accuracy"]


def test_losses_of_policies_are_not_refused_but_missing_derivatives_are():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(2, [4], 2, "tanh")

        def forward(self, x):
            outputs = self.net(x)
            return outputs + (outputs.detach() ** 2)  # its derivative is not what it seems

    result = evaluated(Navigate(), lambda g: Cut(), preset("maml", rate=0.05))
    assert result.note.startswith("first-order only"), (result.status, result.error)


def test_replace_keeps_what_a_task_is():
    assert replace(glyphs(), ways=2).available("meta-train") == 8


@pytest.mark.parametrize("rule", ["reptile", "protonet"])
def test_episodes_of_meta_dataset_suit_all_ways_of_learning(rule):
    task = glyphs(drawings=40, sampling="meta-dataset")
    result = evaluated(task, flat_net(50), preset(rule), "vmap", {"iterations": 2, "validation": 4})
    assert result.status is Status.OK, result.error


def test_streams_of_different_length_are_scored_together():
    rule = preset("maml", support={"stream": 2}, steps=1)
    task = glyphs(ways=(2, 4), shots=(1, 4))
    training = {"iterations": 2, "validation": 12, "later": 3}
    result = evaluated(task, flat_net(4), rule, "loop", training)
    assert result.status is Status.OK, result.error
    assert result.steps[-1] == pytest.approx(result.metrics["accuracy"])


def test_a_single_query_passes_batch_norm_of_one_value_a_channel():
    def build(genome):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    training = {"iterations": 1, "validation": 4, "norm": "transductive"}
    result = evaluated(glyphs(ways=3), build, preset("maml"), "loop", training)
    assert result.status is Status.OK, result.error
