"""Small finished runs, made once."""

from pathlib import Path

import pytest

from evometa.launch import Data, Settings, Workers, prepare, start
from evometa.reuse.stored import read_run
from evometa.study import load_study

IMAGES = """
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.network import ConvBlock, conv_net
from evometa.learner import preset, prototype_space
from evometa.rule import rule_space, update_space
from evometa.task import Glyphs

space = s.Struct(
    width=s.Choice(4, 8),
    rule=s.Choice(
        gradient=rule_space(
            update=update_space(size=16),
            loss=s.Choice("task", "squared", "huber"),
            clip=s.Choice(0.0, 1.0),
        ),
        prototypes=prototype_space(),
    ),
)

def build(genome):
    blocks = [ConvBlock(1, genome["width"]), ConvBlock(genome["width"], 8, reduce="stride")]
    return conv_net(blocks, None if "prototypes" in genome["rule"] else 3)

def gradient(name, **genes):
    return {"width": 4, "rule": {"gradient": preset(name, **genes)}}

study = Study(
    space=space,
    build=build,
    task=Glyphs(ways=3, shots=2, queries=4),
    objectives={"accuracy": "max", "params": "min"},
    baselines={
        "MAML": gradient("maml", rate=0.1),
        "MAML++": gradient("maml++", rate=0.1, steps=2),
        "Meta-SGD": gradient("meta-sgd", rate=0.1, steps=2, adapts="body", clip=1.0),
        "Adam": gradient("adam", rate=0.01, steps=2, rates="layer"),
        "own": gradient(
            "meta-sgd",
            rate=0.1,
            loss="squared",
            update=["mul", "sqrt", "loss", "mul", "rate", "tanh", "mul", "gain", "gradient"],
        ),
        "ProtoNet": {"width": 4, "rule": preset("protonet", ways=5)},
        "cosine": {"width": 4, "rule": preset("protonet", ways=5, distance="cosine")},
    },
    training=Training(iterations=3, tasks=2, validation=6, norm="NORM"),
)
"""

WAVES = """
from evometa import Study, Training, halving
from evometa import space as s
from evometa.network import mlp
from evometa.learner import preset
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(4, 16)),
    build=lambda genome: mlp(1, [genome["width"]], 1),
    task=Sinusoid(shots=5),
    baselines={"narrow": {"width": 4}},
    rungs=halving(2),
    seeds=2,
    training=Training(iterations=6, tasks=4, validation=20),
)
"""


def make_run(folder: Path, source: str, candidates: int, **settings):
    """Search with a study file's text, and return the run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study_file.py"
    path.write_text(source)
    file = prepare(load_study(path), Data())
    wanted = Settings(candidates, **settings)
    start(file, folder / "run", wanted, Workers("serial"), lambda total, workers: Nobody())
    return folder / "run"


class Nobody:
    """Watches, and says nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def recorded(self, evaluation):
        """Look on."""

    def found(self, evaluation):
        """Look back."""

    def tick(self):
        """Wait."""


@pytest.fixture(scope="session", params=["transductive", "inductive", "per-step"])
def images(request, tmp_path_factory):
    """A run of the published rules, for each batch-norm protocol."""
    folder = tmp_path_factory.mktemp(request.param)
    return read_run(make_run(folder, IMAGES.replace("NORM", request.param), 7))


@pytest.fixture(scope="session")
def waves_folder(tmp_path_factory):
    """A run with rungs and seeds."""
    return make_run(tmp_path_factory.mktemp("waves"), WAVES, 8)


@pytest.fixture
def waves(waves_folder, tmp_path):
    """A copy of it, to change."""
    import shutil

    shutil.copytree(waves_folder, tmp_path / "run")
    return read_run(tmp_path / "run")
