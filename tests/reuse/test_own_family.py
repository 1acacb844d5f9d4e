"""A family that a study file brings is treated like a built-in one, from search to export."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from evometa.cli import app
from evometa.launch import Workers, resume
from evometa.records import Status
from evometa.reuse.confirm import Confirmation, confirm
from evometa.reuse.export import export
from evometa.reuse.learner import load_learner
from evometa.reuse.rerun import EQUAL, rerun
from evometa.reuse.stored import read_run
from evometa.store import TIME_AND_PLACE, read_table
from tests.reuse.conftest import Nobody, make_run

STUDY = '''
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import Family, MetaLoss, Traits, learner_space, predictor, preset
from evometa.network import Network
from evometa.task import Glyphs


class Anchors(NamedTuple):
    params: Any
    buffers: Any
    anchors: Tensor


@dataclass(frozen=True)
class Projected:
    """Nearest class mean after a projection of the learner's own."""

    network: Network
    loss: Any
    ways: int
    features: int
    width: int
    scale: float

    @property
    def traits(self):
        return Traits(f"projected {self.width} {self.network.structure}", any_ways=True)

    def init(self, generator):
        drawn = torch.randn(self.features, self.width, generator=generator) / self.features**0.5
        return {
            "params": {**self.network.params, "own.projection": drawn},
            "learned": {},
            "constants": {"scale": torch.tensor(self.scale)},
            "buffers": dict(self.network.buffers),
            "stage": {},
        }

    def meta_loss(self, meta, support, query):
        loss = self.loss(predictor(self, self.adapt(meta, support)), query)
        return MetaLoss(loss, loss, {})

    def adapt(self, meta, support):
        embedded = self.embedded(meta["params"], meta["buffers"], support.inputs)
        labels = torch.arange(len(support.classes), device=embedded.device)
        members = (support.targets == labels.unsqueeze(1)).to(embedded.dtype)
        anchors = members @ embedded / members.sum(1, keepdim=True)
        return Anchors(meta["params"], meta["buffers"], anchors * meta["constants"]["scale"])

    def trajectory(self, meta, support, steps=None):
        return [self.adapt(meta, support)]

    def predict(self, adapted, inputs):
        embedded = self.embedded(adapted.params, adapted.buffers, inputs)
        return embedded @ adapted.anchors.T

    def embedded(self, params, buffers, inputs):
        own = {name: params[name] for name in self.network.params}
        outputs, _ = self.network(own, buffers, inputs, norm="batch", training=False)
        return outputs.flatten(1) @ params["own.projection"]


def make(genes, setting):
    features = setting.outputs.flatten(1).shape[1]
    return Projected(setting.network, setting.task.loss, setting.task.ways, features, **genes)


projected = Family(
    name="projected",
    make=make,
    space=lambda: s.Struct(width=s.Choice(4), scale=s.Float(0.5, 2.0)),
    presets={"plain": {"width": 4, "scale": 1.0}},
    formula=lambda genes, own: f"nearest of {genes['width']} projections",
)

study = Study(
    space=s.Struct(rule=s.Choice(projected=projected.space())),
    build=lambda genome: nn.Sequential(nn.Flatten(), nn.Linear(784, 8)),
    task=Glyphs(ways=3, queries=4, classes_per_split=(12, 6, 6), drawings=6),
    baselines={"plain": {"rule": {"projected": dict(projected.presets["plain"])}}},
    families=[projected],
    training=Training(iterations=4, tasks=2, validation=6),
)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("own"), STUDY, 6, pack=3, seed=4)


def test_it_is_searched_in_packs(place):
    table = read_table(place)
    assert set(table["status"].to_pylist()) == {Status.OK}
    assert len(set(table["signature"].to_pylist())) == 1


def test_resumed_equals_uninterrupted(place, tmp_path):
    run = make_run(tmp_path, STUDY, 3, pack=3, seed=4)
    resume(run, Workers("serial"), lambda total, workers: Nobody(), candidates=6)
    one, other = (
        read_table(path).drop_columns([*TIME_AND_PLACE, "adapt_bytes"]) for path in (place, run)
    )
    assert one.sort_by("told").equals(other.sort_by("told"))


def test_it_is_shown_and_reported(place):
    for command in (["top"], ["show", "c000001"], ["report"]):
        said = CliRunner().invoke(app, [command[0], str(place), *command[1:]])
        assert said.exit_code == 0, said.output
    assert "projected" in CliRunner().invoke(app, ["show", str(place), "c000001"]).output


def test_it_is_run_again_confirmed_loaded_and_exported(place, tmp_path):
    run = read_run(place)
    assert rerun(run, "c000000").verdict == EQUAL
    wanted = Confirmation(top=1, seeds=2, episodes=8)
    table = confirm(run, wanted, Workers("serial"), lambda total, workers: Nobody())
    assert set(table["status"].to_pylist()) == {Status.OK}
    learner = load_learner(run, "c000001", device="cpu")
    episodes = run.file.study.task.episodes("meta-test", 3, torch.Generator().manual_seed(0))
    x, y = episodes.support.inputs[0].numpy(), np.array(["a", "b", "c"])
    adapted = learner.adapt(x, y[episodes.support.targets[0].numpy()])
    assert set(adapted.predict(episodes.query.inputs[0].numpy())) <= {"a", "b", "c"}
    more = learner.adapt(np.concatenate([x, x + 0.1]), np.arange(6))
    assert more.predict_proba(x).shape == (3, 6), "any number of classes"
    folder = export(run, "c000001", tmp_path / "out").folder
    assert json.loads((folder / "learner.json").read_text())
