"""Networks of all kinds as candidates: alone or in a pack they are what they are, or refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import Evaluator
from evometa.records import Candidate, Status
from evometa.task import Sinusoid
from tests.network.test_modules import REFUSED, Keeping

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "sin": torch.sin}


class Net(nn.Module):
    """A network whose activation, loops and scale do not print."""

    def __init__(self, act, loops=1, scale=1.0):
        super().__init__()
        self.act, self.loops, self.scale = act, loops, scale
        self.a, self.b = nn.Linear(1, 8), nn.Linear(8, 1)

    def forward(self, inputs):
        hidden = self.a(inputs)
        for _ in range(self.loops):
            hidden = self.act(hidden) * self.scale
        return self.b(hidden)


class Fitted(nn.Module):
    """A network of another test, between this task's inputs and targets."""

    def __init__(self, inner):
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(1, 3), inner, nn.Linear(2, 1)

    def forward(self, inputs):
        return self.after(self.inner(self.before(inputs)))


def study(build):
    return Study(
        space=s.Struct(x=s.Int(1, 99)),
        build=build,
        task=Sinusoid(shots=5),
        training=Training(iterations=10, tasks=4, validation=6),
    )


def test_a_pack_gives_each_candidate_its_own_network():
    builds = [lambda act=act: Net(act) for act in ACTIVATIONS.values()]
    builds += [lambda: Net(F.relu, loops=2, scale=0.5), lambda: Net(F.relu, scale=0.5)]
    builds += [lambda by=by: Net(lambda x: torch.sin(x * by)) for by in (2, 3)]
    evaluate = Evaluator(study(lambda genome: builds[genome["x"] - 1]()))
    pack = [Candidate(x, {"x": x + 1}, 7) for x in range(len(builds))]
    together = evaluate(pack)
    assert len({one.signature for one in together}) == len(builds)
    for candidate, result in zip(pack, together, strict=True):
        (alone,) = evaluate([candidate])
        assert result.scores == pytest.approx(alone.scores, rel=1e-4)
        assert result.signature == alone.signature


def test_networks_that_differ_in_numbers_share_a_pack():
    evaluate = Evaluator(study(lambda genome: Net(lambda x: torch.sin(x * 2))))
    found = evaluate([Candidate(x, {"x": x + 1}, x) for x in range(3)])
    assert len({one.signature for one in found}) == 1
    assert all(one.status is Status.OK for one in found)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "lazy"])
def test_a_network_that_cannot_work_is_refused_and_leaves_nothing(kind):
    def build(genome):
        return Fitted(REFUSED[kind][0]()) if genome["x"] == 1 else Net(torch.tanh)

    evaluate = Evaluator(study(build))
    good = Candidate(1, {"x": 2}, 0)
    refused, beside = evaluate([Candidate(0, {"x": 1}, 0), good])
    assert refused.status is Status.INVALID
    assert "cannot be trained here" in refused.error
    assert beside.scores == evaluate([good])[0].scores


@pytest.mark.parametrize("plan", ["vmap", "loop"])
def test_a_refusal_does_not_depend_on_the_plan(plan):
    evaluate = Evaluator(study(lambda genome: Fitted(Keeping())), plans={"dense": plan})
    (found,) = evaluate([Candidate(0, {"x": 1}, 0)])
    assert found.status is Status.INVALID
    assert "state" in found.error
