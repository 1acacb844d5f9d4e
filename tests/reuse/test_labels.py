"""Labels that mean the same in every task keep their meaning in learners that are taken away."""

import numpy as np
import pytest
import torch

from evometa.errors import EvometaError
from evometa.reuse.export import export
from evometa.reuse.exported.learner import Learner
from evometa.reuse.learner import load_learner
from evometa.reuse.stored import read_run
from tests.reuse.conftest import make_run

SIGNS = """
import numpy as np
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset, prototype_space, ridge_space
from evometa.rule import rule_space
from evometa.task import Table

rng = np.random.default_rng(0)
x = rng.normal(size=1200)
rows = {
    "who": [int(k) for k in np.arange(1200) % 20],
    "x": x.tolist(),
    "z": rng.normal(size=1200).tolist(),
    "sign": [("low", "mid", "top")[int(v > -0.5) + int(v > 0.5)] for v in x],
}

study = Study(
    space=s.Struct(
        rule=s.Choice(gradient=rule_space(), prototypes=prototype_space(), ridge=ridge_space())
    ),
    build=lambda genome: nn.Linear(2, 3),
    task=Table(rows, task="who", target="sign", shots=6, queries=9),
    baselines={
        "MAML": {"rule": {"gradient": preset("maml", rate=0.5)}},
        "ProtoNet": {"rule": preset("protonet")},
        "ridge": {"rule": preset("ridge")},
    },
    training=Training(iterations=150, tasks=4, validation=20),
)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("signs"), SIGNS, 3))


@pytest.mark.slow
@pytest.mark.parametrize("id_", ["c000000", "c000001", "c000002"])
def test_labels_keep_their_meaning_where_some_are_not_shown(run, id_, tmp_path):
    learner = load_learner(run, id_)
    x = np.array([[k / 4, 0.3 * (-1) ** k] for k in (6, 5, 7, 1, 0, -1)], np.float32)
    y = ["top"] * 3 + ["mid"] * 3
    adapted = learner.adapt(x, np.array(y))
    assert adapted.classes.tolist() == ["low", "mid", "top"]
    assert adapted.predict(x).tolist() == y
    assert adapted.predict_proba(x).shape == (6, 3)
    with pytest.raises(EvometaError, match="'low', 'mid', 'top', but one is 'high'"):
        learner.adapt(x, np.array(["high", *y[1:]]))
    export(run, id_, tmp_path / "out")
    alone = Learner(tmp_path / "out")
    found = alone.adapt(torch.tensor(x), y)
    assert found.labels == ["low", "mid", "top"] and found.predict(torch.tensor(x)) == y
    outputs = found.outputs(torch.tensor(x)).softmax(-1).numpy()
    np.testing.assert_allclose(outputs, adapted.predict_proba(x), atol=1e-5)
    with pytest.raises(ValueError, match="one is 'high'"):
        alone.adapt(torch.tensor(x), ["high", *y[1:]])
    shown, labels, _, answers = alone.example()
    assert {*labels, *answers} <= {"low", "mid", "top"} and len(shown) == len(labels)
