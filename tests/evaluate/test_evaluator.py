"""Evaluations depend on genome, seed and study alone, and failures have names."""

import math

import pytest
import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import Evaluator
from evometa.learner import preset
from evometa.network import mlp
from evometa.records import Candidate, Status
from evometa.task import Sinusoid

QUICK = preset("maml", rate=0.05, outer={"adam": {"rate": 0.01, "schedule": "constant"}})
HASTY = preset("maml", rate=1e-4, outer={"adam": {"rate": 0.2, "schedule": "constant"}})
TASK = Sinusoid(shots=5, queries=5, eval_queries=10)


def study(build=lambda g: mlp(1, [g["width"]], 1), **training):
    settings = {"iterations": 20, "tasks": 4, "validation": 12, **training}
    return Study(
        space=s.Struct(width=s.Int(1, 9)), build=build, task=TASK, training=Training(**settings)
    )


def candidate(number=0, seed=3, **genes):
    return Candidate(number, {"width": 6, "rule": preset("maml", rate=0.05), **genes}, seed)


def test_equal_candidates_give_equal_results_in_any_company():
    evaluate = Evaluator(study())
    (alone,) = evaluate([candidate()])
    torch.rand(7)
    other, again = evaluate([candidate(1, seed=8, width=3), candidate()])
    assert alone.status is Status.OK
    for name in ("query_loss", "params", "macs"):
        assert alone.metrics[name] == again.metrics[name]
    assert alone.scores == again.scores
    assert alone.curve == again.curve
    assert alone.scores != other.scores


def test_torchs_global_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Evaluator(study())([candidate()])
    assert torch.equal(torch.rand(3), expected)


def test_scores_are_those_of_the_common_episodes():
    (result,) = Evaluator(study(), seed=5)([candidate()])
    assert len(result.scores) == 12
    assert result.metrics["query_loss"] == pytest.approx(sum(result.scores) / 12)
    assert result.metrics["adapt_seconds"] > 0
    assert result.peak_memory_bytes > 0
    assert (result.norm, result.plan, result.device) == ("inductive", "vmap", "cpu")
    (one,), (two,) = (Evaluator(study(), seed=seed).episodes() for seed in (5, 6))
    assert not torch.equal(one.support.inputs, two.support.inputs)


def test_meta_training_learns():
    (short,) = Evaluator(study(iterations=2))([candidate(rule=QUICK)])
    (long,) = Evaluator(study(iterations=200))([candidate(rule=QUICK)])
    assert long.metrics["query_loss"] < short.metrics["query_loss"]
    assert long.curve[-1][0] == 200


class Brittle(nn.Linear):
    """Turns to NaN as soon as its weight has moved far enough."""

    def forward(self, x):
        moved = (self.weight.detach() - 0.6).abs().sum()
        return super().forward(x) + torch.where(moved > 0.3, math.nan, 0.0)


def brittle(genome):
    module = Brittle(1, 1)
    nn.init.constant_(module.weight, 0.6)
    return module


def test_divergence_is_named_with_its_iteration():
    (result,) = Evaluator(study(brittle))([candidate(rule=HASTY)])
    assert result.status is Status.DIVERGED
    assert "meta-iteration" in result.error
    assert not result.metrics


def test_user_errors_while_training_come_with_their_traceback():
    calls = []

    class Bomb(nn.Linear):
        def forward(self, x):
            calls.append(1)
            if len(calls) > 30:
                raise RuntimeError("the bomb went off")
            return super().forward(x)

    (result,) = Evaluator(study(lambda g: Bomb(1, 1)))([candidate()])
    assert result.status is Status.ERROR
    assert "the bomb went off" in result.error and "Traceback" in result.error


def test_no_memory_is_named():
    calls = []

    class Hungry(nn.Linear):
        def forward(self, x):
            calls.append(1)
            if len(calls) > 30:
                raise torch.OutOfMemoryError("not enough")
            return super().forward(x)

    (result,) = Evaluator(study(lambda g: Hungry(1, 1)))([candidate()])
    assert result.status is Status.OOM
