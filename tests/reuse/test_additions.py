"""What a rule adds to a network, or sees besides, is loaded and exported like all else."""

import numpy as np
import pytest
import torch

from evometa.records import Status
from evometa.reuse.export import export
from evometa.reuse.exported.learner import Learner
from evometa.reuse.learner import load_learner
from evometa.reuse.stored import read_run
from evometa.store import read_table
from tests.reuse.conftest import make_run

STUDY = """
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.rule import LEARNED, rule_space, update_space
from evometa.task import Glyphs

def build(genome):
    layers = nn.AvgPool2d(7), nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 4)
    return nn.Sequential(*layers)

few = {"steps": 2, "rate": 0.1}
own = {"head": "network"}
study = Study(
    space=s.Struct(
        rule=rule_space(
            head=s.Choice("network", "prototypes"),
            adapts=s.Choice("all", context=s.Int(1, 9), film=s.Int(1, 9)),
            update=update_space(learned=[*LEARNED]),
        )
    ),
    build=build,
    task=Glyphs(ways=3, shots=2, queries=4, drawings=8),
    baselines={
        "proto-maml": {"rule": preset("proto-maml", **few)},
        "meta-curvature": {"rule": preset("meta-curvature", **own, **few)},
        "cavia": {"rule": preset("cavia", **own, **few)},
        "meta-lstm": {"rule": preset("meta-lstm", **own, steps=2)},
    },
    training=Training(iterations=3, tasks=2, validation=6),
)
"""
NAMES = ["proto-maml", "meta-curvature", "cavia", "meta-lstm"]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("additions"), STUDY, 4, pack=1, seed=1)


def test_all_are_searched(place):
    table = read_table(place)
    assert set(table["status"].to_pylist()) == {Status.OK}, table["error"].to_pylist()


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_each_is_loaded_and_exported(place, tmp_path, number):
    run = read_run(place)
    id_ = f"c{number:06d}"
    learner = load_learner(run, id_, device="cpu")
    episodes = run.file.study.task.episodes("meta-test", 1, torch.Generator().manual_seed(0))
    x, y = episodes.support.inputs[0], episodes.support.targets[0]
    adapted = learner.adapt(x.numpy(), y.numpy())
    new = episodes.query.inputs[0]
    assert np.isin(adapted.predict(new.numpy()), y.numpy()).all()
    if NAMES[number] == "proto-maml":
        more = learner.adapt(torch.cat([x, x]).numpy(), np.arange(12))
        assert more.predict_proba(new.numpy()).shape == (len(new), 12), "any number of classes"
    made = export(run, id_, tmp_path / "out")
    assert made.difference < 1e-4
    outside = Learner(made.folder).adapt(x, y)
    wanted = torch.as_tensor(adapted.predict_proba(new.numpy()))
    torch.testing.assert_close(outside.outputs(new).softmax(-1), wanted, rtol=1e-3, atol=1e-4)
