"""Packs: equal to single ones, undisturbed by neighbours, continued without a seam."""

import math
from functools import cache

import pytest
import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import LOOP, VMAP, Evaluator, Plan, Trainer
from evometa.learner import FAMILIES, preset
from evometa.network import Network, mlp
from evometa.records import Candidate, Status
from evometa.task import Glyphs, Sinusoid
from evometa.task.episodes import over
from tests.learner.laws import CPU, learner_of

TASK = Sinusoid(shots=5, queries=5, eval_queries=10)


def learner(seed=0, rate=0.05, rule="maml", build=lambda: mlp(1, [8, 8], 1), norm="transductive"):
    torch.manual_seed(seed)
    return learner_of(preset(rule, rate=rate), Network(build().double()), TASK, norm)


class Doubled(Sinusoid):
    """Episodes in float64."""

    def episodes(self, split, n, generator):
        return over(torch.Tensor.double, super().episodes(split, n, generator))


WIDE = Doubled(shots=5, queries=5, eval_queries=10)


def train(learners, seeds, plan=VMAP, iterations=30, until=None, checkpoints=(), task=WIDE):
    training = Training(iterations=iterations, tasks=4, validation=1)
    trainer = Trainer(
        learners, task, training, seeds=seeds, plan=plan, device=CPU, checkpoints=checkpoints
    )
    trainer.run(until)
    return trainer


def assert_equal_results(one, other, exact=False):
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-8, "atol": 1e-10}
    for part in ("params", "learned", "buffers"):
        for name, value in one.meta[part].items():
            torch.testing.assert_close(value, other.meta[part][name], **tolerance, msg=name)
    if exact:
        assert one.curve == other.curve
    else:
        for (a, x), (b, y) in zip(one.curve, other.curve, strict=True):
            assert a == b and x == pytest.approx(y, rel=1e-8)


SHORT = 12  # iterations: enough for schedules and averages to differ from their first values
RATES = (0.02, 0.05, 0.1)
PLANS = [
    VMAP,
    LOOP,
    Plan(tasks=3),
    Plan(tasks=3, candidates=2),
    Plan(tasks=1),
    Plan(tasks=0, candidates=1),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("rule", ["maml", "meta-sgd", "maml++", "reptile", "fomaml"])
def test_packed_equals_single_and_chunked_equals_whole(plan, rule):
    pack = [learner(seed, rate, rule) for seed, rate in enumerate(RATES)]
    together = train(pack, [7, 8, 9], plan, SHORT).results()
    for index in range(len(RATES)):
        assert_equal_results(together[index], single(rule, index))
        assert not together[index].diverged


@cache
def single(rule, index):
    (alone,) = train([learner(index, RATES[index], rule)], [7 + index], VMAP, SHORT).results()
    return alone


def batch_normed():
    return nn.Sequential(nn.Linear(1, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))


@pytest.mark.parametrize("norm", ["transductive", "inductive", "per-step"])
@pytest.mark.parametrize("rule", ["maml", "maml++"])
def test_batch_norm_packs(norm, rule):
    pack = [learner(seed, 0.05, rule, batch_normed, norm) for seed in range(2)]
    together = train(pack, [1, 2], VMAP, SHORT).results()
    for index in range(2):
        one = learner(index, 0.05, rule, batch_normed, norm)
        (alone,) = train([one], [1 + index], LOOP, SHORT).results()
        assert_equal_results(together[index], alone)


def test_per_step_statistics_are_those_of_their_step():
    steps = 3
    genome = preset("maml", steps=steps, rate=0.5)
    torch.manual_seed(0)
    made = learner_of(genome, Network(batch_normed().double()), TASK, "per-step")
    (result,) = train([made], [0], LOOP).results()
    means = result.meta["buffers"]["1.running_mean"]
    assert means.shape == (steps, 6)
    assert all((means[i] - means[j]).abs().max() > 1e-4 for i in range(steps) for j in range(i))


def test_a_member_that_diverges_leaves_the_others_bit_equal():
    healthy = train([learner(i, r) for i, r in enumerate(RATES)], [7, 8, 9]).results()
    ill = train([learner(0, 0.02), learner(1, 1e200), learner(2, 0.1)], [7, 8, 9]).results()
    assert "meta-iteration 1" in ill[1].diverged or "nan" in ill[1].diverged
    for index in (0, 2):
        assert_equal_results(ill[index], healthy[index], exact=True)


def test_training_stops_when_all_have_diverged():
    trainer = train([learner(0, 1e200), learner(1, 1e200)], [1, 2], iterations=400)
    assert trainer.iteration < 400
    assert all(result.diverged for result in trainer.results())


@pytest.mark.parametrize("rule", ["maml", "maml++", "meta-sgd"])
def test_continued_equals_uninterrupted(rule):
    def pack():
        return [learner(0, 0.05, rule), learner(1, 0.1, rule)]

    whole = train(pack(), [3, 4], iterations=40).results()
    first = train(pack(), [3, 4], iterations=40, until=17)
    kept = [first.checkpoint(index) for index in range(2)]
    second = train(pack(), [3, 4], iterations=40, checkpoints=kept)
    for one, other in zip(second.results(), whole, strict=True):
        assert_equal_results(one, other, exact=True)


def test_a_promoted_candidate_goes_on_alone_as_if_it_had_always_been():
    first = train([learner(0), learner(1), learner(2)], [3, 4, 5], iterations=40, until=20)
    first.keep([0, 2])
    first.run(30)
    second = train([learner(2)], [5], iterations=40, checkpoints=[first.checkpoint(1)])
    (alone,) = train([learner(2)], [5], iterations=40).results()
    assert_equal_results(second.results()[0], alone)


def test_dropout_goes_on_with_its_own_random_numbers():
    def build():
        return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    (whole,) = train([learner(build=build)], [3], LOOP).results()
    first = train([learner(build=build)], [3], LOOP, until=13)
    torch.rand(5)
    again = train([learner(build=build)], [3], LOOP, checkpoints=[first.checkpoint(0)])
    assert_equal_results(again.results()[0], whole, exact=True)


class Hungry(nn.Linear):
    """Runs out of memory when more than two tasks are mapped at once."""

    def forward(self, x):
        level = x
        while torch._C._functorch.is_functorch_wrapped_tensor(level):
            if torch._C._functorch.is_batchedtensor(level):
                bdim = torch._C._functorch.maybe_get_bdim(level)
                level = torch._C._functorch.get_unwrapped(level)
                if level.shape[bdim] > 2:
                    raise torch.OutOfMemoryError("not enough for so many")
            else:
                level = torch._C._functorch.get_unwrapped(level)
        return super().forward(x)


def test_out_of_memory_halves_the_chunk_and_goes_on():
    trainer = train([learner(0, build=lambda: Hungry(1, 1))], [3])
    assert str(trainer.plan) == "vmap:1x2"
    (alone,) = train([learner(0, build=lambda: nn.Linear(1, 1))], [3]).results()
    assert_equal_results(trainer.results()[0], alone)


class NoMemory(nn.Linear):
    calls = 0

    def forward(self, x):
        NoMemory.calls += 1
        if NoMemory.calls > 40:
            raise torch.OutOfMemoryError("nothing fits")
        return super().forward(x)


def test_a_single_task_that_does_not_fit_is_out_of_memory():
    (result,) = Evaluator(study(lambda g: NoMemory(1, 1)))([Candidate(0, {"x": 1}, 0)])
    assert result.status is Status.OOM


def study(build, task=TASK, **training):
    settings = {"iterations": 20, "tasks": 4, "validation": 12, **training}
    return Study(s.Struct(x=s.Choice(1)), build, task, training=Training(**settings))


def candidates(rates, rule="maml", **genes):
    return [
        Candidate(number, {"x": 1, **genes, "rule": preset(rule, rate=rate)}, seed=number)
        for number, rate in enumerate(rates)
    ]


def test_evaluations_of_a_pack_equal_single_ones():
    evaluate = Evaluator(study(lambda g: mlp(1, [6], 1)))
    pack = candidates((0.01, 0.05, 0.2))
    pack.insert(1, Candidate(7, {"x": 1, "rule": preset("anil")}, 7))  # of another structure
    together = evaluate(pack)
    assert [result.candidate for result in together] == pack
    for result, candidate in zip(together, pack, strict=True):
        (alone,) = evaluate([candidate])
        assert result.status is alone.status is Status.OK
        assert result.scores == pytest.approx(alone.scores, rel=1e-4)
        assert result.steps == pytest.approx(alone.steps, rel=1e-4)
        assert result.metrics["params"] == alone.metrics["params"]


def test_one_that_diverges_or_raises_is_named_alone():
    hasty = preset("maml", rate=0.02, outer={"sgd": {"rate": 1e30, "schedule": "constant"}})
    calm = preset("maml", rate=0.02, outer={"sgd": {"rate": 1e-3, "schedule": "constant"}})
    pack = [
        Candidate(number, {"x": 1, "rule": rule}, number)
        for number, rule in enumerate((calm, hasty, calm))
    ]
    first, second, third = Evaluator(study(lambda g: mlp(1, [6], 1)))(pack)
    assert (first.status, second.status, third.status) == (
        Status.OK,
        Status.DIVERGED,
        Status.OK,
    )
    assert "meta-iteration" in second.error


def test_dropout_is_not_packed():
    def build(genome):
        return nn.Sequential(nn.Linear(1, 6), nn.Dropout(0.2), nn.Linear(6, 1))

    evaluate = Evaluator(study(build))
    pack = candidates((0.01, 0.05))
    for result, candidate in zip(evaluate(pack), pack, strict=True):
        assert result.scores == evaluate([candidate])[0].scores


def test_steps_hold_the_mean_after_each_inner_step():
    evaluate = Evaluator(study(lambda g: mlp(1, [6], 1)))
    (result,) = evaluate([Candidate(0, {"x": 1, "rule": preset("maml", steps=3)}, 0)])
    assert len(result.steps) == 4
    assert result.steps[-1] == pytest.approx(result.metrics["query_loss"])


def test_convolutions_pack_too():
    glyphs = Glyphs(ways=3, queries=3, classes_per_split=(5, 5, 5), drawings=5).load(None)

    def build(genome):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
        )

    made = study(build, glyphs, iterations=3)
    pack = candidates((0.1, 0.3))
    mapped = Evaluator(made, plans={"convolution": "vmap"})(pack)
    looped = Evaluator(made)(pack)
    for one, other in zip(mapped, looped, strict=True):
        assert (one.plan, other.plan) == ("vmap", "loop")
        assert one.metrics["query_loss"] == pytest.approx(other.metrics["query_loss"], rel=1e-3)


def test_adaptation_memory_is_counted():
    evaluate = Evaluator(study(lambda g: mlp(1, [60], 1)))
    small = Evaluator(study(lambda g: mlp(1, [6], 1)))
    (one,), (other,) = evaluate(candidates([0.1])), small(candidates([0.1]))
    assert one.metrics["adapt_bytes"] > 5 * other.metrics["adapt_bytes"] > 0
    assert one.metrics["adapt_bytes"] == evaluate(candidates([0.1]))[0].metrics["adapt_bytes"]
    assert math.isfinite(one.metrics["adapt_seconds"])


UPDATES = [
    ["mul", "rate", "gradient"],
    ["mul", "rate", "tanh", "mul", "gain", "gradient"],
    ["mul", "rate", "add", "trace", "learned", 0.9, "gradient", "mul", 0.1, "parameter"],
    ["mul", "rate", "div", "gradient", "add", "norm", "gradient", "learned", 1.0],
]


def evolved(seed, update, steps=2):
    torch.manual_seed(seed)
    rule = preset("meta-sgd", rate=0.02 + 0.01 * seed, steps=steps, update=update)
    return learner_of(rule, Network(mlp(1, [8, 8], 1).double()), TASK)


@pytest.mark.parametrize("plan", [*PLANS], ids=str)
def test_different_updates_in_one_pack_equal_single_ones(plan):
    learners = [evolved(seed, update) for seed, update in enumerate(UPDATES)]
    structures = {one.traits.structure for one in learners}
    assert len({one.kin for one in learners}) == 1 < len(structures)
    together = train(
        FAMILIES["gradient"].mixing.together(learners), range(4), plan, SHORT
    ).results()
    for seed in range(len(UPDATES)):
        assert_equal_params(together[seed].meta, single_evolved(seed).meta)


@cache
def single_evolved(seed):
    (alone,) = train([evolved(seed, UPDATES[seed])], [seed], VMAP, SHORT).results()
    return alone


def test_a_pack_of_different_updates_shrinks_and_goes_on():
    learners = [evolved(seed, update) for seed, update in enumerate(UPDATES)]
    trainer = train(FAMILIES["gradient"].mixing.together(learners), range(4), until=10)
    trainer.keep([3, 1])
    trainer.run()
    for result, seed in zip(trainer.results(), (3, 1), strict=True):
        (alone,) = train([learners[seed]], [seed]).results()
        assert_equal_params(result.meta, alone.meta)


def assert_equal_params(one, other):
    for name, value in other["params"].items():
        torch.testing.assert_close(value, one["params"][name], rtol=1e-8, atol=1e-10, msg=name)


def test_the_evaluator_packs_candidates_whose_updates_differ():
    def candidate(number, update):
        return Candidate(number, {"rule": preset("meta-sgd", update=update)}, seed=number)

    study = Study(
        space=s.Struct(rule=s.Choice("any")),
        build=lambda genome: mlp(1, [8], 1),
        task=TASK,
        training=Training(iterations=20, tasks=4, validation=6),
    )
    evaluate = Evaluator(study)
    pack = [candidate(number, update) for number, update in enumerate(UPDATES)]
    bad = candidate(9, ["parameter"])
    results = evaluate([*pack, bad])
    assert [result.status for result in results] == [Status.OK] * 4 + [Status.INVALID]
    assert "does not depend on the gradient" in results[4].error
    for one, result in zip(pack, results, strict=False):
        (alone,) = evaluate([one])
        assert result.scores == pytest.approx(alone.scores, rel=1e-3)
        assert result.signature == alone.signature
