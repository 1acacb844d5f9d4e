"""Ways of learning beyond gradient steps, from search to export."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from evometa.cli import app
from evometa.learner import preset
from evometa.records import Status
from evometa.reuse.export import export
from evometa.reuse.learner import load_learner
from evometa.reuse.stored import read_run
from evometa.store import read_table
from tests.reuse.conftest import make_run

STUDY = """
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import learner_space, preset
from evometa.task import Glyphs, Sinusoid

NAMES = {names}

study = Study(
    space=s.Struct(rule=learner_space()),
    build=lambda genome: {network},
    task={task},
    baselines={{name: {{"rule": preset(name, **genes)}} for name, genes in NAMES.items()}},
    training=Training(iterations=3, tasks=2, validation=6),
)
"""
SMALL = {
    "transfer": {"steps": 5},
    "baseline++": {"steps": 5},
    "in-context": {"width": 32, "ways": 5},
    "cnp": {"width": 32},
    "mann": {"width": 64, "rows": 32, "size": 20},
    "delta-rule": {},
    "matching-fce": {"ways": 5},
    "relation": {"ways": 5},
    "siamese": {"ways": 5},
    "gaussian": {"ways": 5},
    "logistic": {},
    "bayesian": {"kernel": "rbf"},
}
CLASSES = {
    "names": SMALL,
    "network": "nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Tanh())",
    "task": "Glyphs(ways=3, shots=2, queries=4, classes_per_split=(12, 6, 6), drawings=6)",
}
VALUES = {
    "names": {name: SMALL[name] for name in ("cnp", "delta-rule")},
    "network": "nn.Sequential(nn.Linear(1, 8), nn.Tanh())",
    "task": "Sinusoid(shots=5)",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return read_run(make_run(folder, STUDY.format(**CLASSES), len(SMALL)))


def test_all_are_searched_and_shown(run):
    table = read_table(run.place)
    assert set(table["status"].to_pylist()) == {Status.OK}, table["error"].to_pylist()
    for number, name in enumerate(SMALL):
        said = CliRunner().invoke(app, ["show", str(run.place), f"c{number:06d}"])
        assert said.exit_code == 0, said.output
        assert next(iter(preset(name))) in said.output


SLOW = {"baseline++", "in-context", "mann"}  # their programs are long, or those of others


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SMALL]
)
def test_it_is_loaded_and_exported(run, name, tmp_path):
    id_ = f"c{list(SMALL).index(name):06d}"
    assert export(run, id_, tmp_path / "out").difference < 1e-5
    learner = load_learner(run, id_, device="cpu")
    episodes = run.file.study.task.episodes("meta-test", 3, torch.Generator().manual_seed(0))
    x, y = episodes.support.inputs[0].numpy(), np.array(["a", "b", "c"])
    adapted = learner.adapt(x, y[episodes.support.targets[0].numpy()])
    assert set(adapted.predict(episodes.query.inputs[0].numpy())) <= {"a", "b", "c"}
    batch = learner.adapt(episodes.support.inputs, episodes.support.targets)
    assert batch.predict(episodes.query.inputs).shape == (3, 12)


@pytest.mark.parametrize("name", VALUES["names"])
def test_values_as_well(name, tmp_path):
    run = read_run(make_run(tmp_path, STUDY.format(**VALUES), 2))
    id_ = f"c{list(VALUES['names']).index(name):06d}"
    assert export(run, id_, tmp_path / "out").difference < 1e-5
