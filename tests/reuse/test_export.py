"""An export adapts with PyTorch alone, as the learner did that was searched."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file

from evometa.errors import EvometaError
from evometa.reuse.export import _load, export
from evometa.reuse.learner import load_learner
from evometa.reuse.plain.network import read_safetensors
from evometa.reuse.stored import read_run
from tests.reuse.conftest import WAVES, make_run
from tests.reuse.test_learner import IDS

ALONE = """
import json, sys

sys.path[:0] = sys.argv[1:3]
from learner import Learner
from network import read_safetensors
from pathlib import Path

task = read_safetensors(Path(sys.argv[1]) / "task.safetensors")
adapted = Learner().adapt(task["support_inputs"], task["support_targets"])
outputs = adapted.outputs(task["query_inputs"])
one = adapted.outputs(task["query_inputs"][:1])
there = [name for name in ("evometa", "safetensors", "numpy", "pyarrow") if name in sys.modules]
print(json.dumps([outputs.tolist(), list(one.shape), there]))
"""


@pytest.fixture(scope="session")
def torch_alone(tmp_path_factory):
    """A folder of packages that holds PyTorch with what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    wanted, known = ["torch"], set()
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return folder


def in_another_process(folder, packages):
    command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", ALONE, str(folder), str(packages)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    outputs, shape, there = json.loads(found.stdout.splitlines()[-1])
    assert not there
    return torch.tensor(outputs), shape


@pytest.mark.parametrize("id_", IDS)
def test_every_rule_and_norm_is_checked_as_it_is_written(images, id_, tmp_path):
    found = export(images, id_, tmp_path / "out")
    assert found.difference < 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not confirmed" in card and images.kept["file_sha256"] in card


@pytest.mark.slow
@pytest.mark.parametrize("images", ["inductive"], indirect=True)
@pytest.mark.parametrize("id_", ["c000001", "c000005"])
def test_pytorch_alone_computes_the_same(images, id_, tmp_path, torch_alone):
    export(images, id_, tmp_path / "out")
    outputs, shape = in_another_process(tmp_path / "out", torch_alone)
    task = read_safetensors(tmp_path / "out" / "task.safetensors")
    learner = load_learner(images, id_, device="cpu").learner
    meta = load_learner(images, id_, device="cpu").meta
    with torch.no_grad():
        adapted = learner.adapt(meta, (task["support_inputs"], task["support_targets"]))
        wanted = learner.predict(adapted, task["query_inputs"])
    torch.testing.assert_close(outputs, wanted, rtol=1e-3, atol=1e-4)
    assert shape == [1, 3]


@pytest.mark.slow
def test_the_example_runs(waves, tmp_path):
    export(waves, "c000001", tmp_path / "out")
    found = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "example.py")], capture_output=True, text=True
    )
    assert "mean squared error on 100 new examples" in found.stdout, found.stderr


def test_weights_are_read_as_safetensors_writes_them(tmp_path):
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.zeros(0, 2),
        "numbers": torch.arange(5),
        "half": torch.randn(7).bfloat16(),
    }
    save_file(tensors, tmp_path / "file", {"structure": "text"})
    found = read_safetensors(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype


def test_a_folder_with_something_in_it_is_left_alone(waves, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(EvometaError, match="is not empty"):
        export(waves, "c000001", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == ["mine.txt"]


def plain_learner(folder):
    return _load(folder).Learner(folder)


def test_targets_without_an_axis_are_taken_as_the_learner_takes_them(waves, tmp_path):
    export(waves, "c000001", tmp_path / "out")
    plain = plain_learner(tmp_path / "out")
    x = torch.linspace(-5, 5, 5)[:, None]
    column = plain.adapt(x, x.sin()).predict(x)
    assert torch.equal(column, plain.adapt(x, x.sin()[:, 0]).predict(x))
    with pytest.raises(ValueError, match="1 values each"):
        plain.adapt(x, torch.zeros(5, 3))


@pytest.mark.parametrize("images", ["transductive"], indirect=True)
def test_classes_that_were_not_seen_are_not_predicted(images, tmp_path):
    learner = load_learner(images, "c000000", device="cpu")
    export(images, "c000000", tmp_path / "out")
    episodes = images.evaluator().episodes()[0]
    x, new = episodes.support.inputs[0][:4], episodes.query.inputs[0]
    y = torch.tensor([0, 1, 0, 1])
    plain = plain_learner(tmp_path / "out").adapt(x, y)
    assert plain.outputs(new).shape == (len(new), 2)
    assert torch.equal(plain.predict(new), learner.adapt(x, y).predict(new))


def test_networks_without_batch_norm_need_no_protocol(tmp_path):
    source = WAVES.replace("iterations=6,", 'iterations=3, norm="per-step",')
    run = read_run(make_run(tmp_path, source, 1))
    assert export(run, "c000000", tmp_path / "out").difference < 1e-6


OWN_LOSS = WAVES.replace(
    "study = Study(",
    """
class Absolute(Sinusoid):
    def loss(self, predictions, targets):
        return (predictions - targets).abs().mean()

study = Study(""",
).replace("task=Sinusoid(", "task=Absolute(")


def test_what_pytorch_alone_could_not_run_is_refused_and_nothing_is_left(tmp_path):
    run = read_run(make_run(tmp_path, OWN_LOSS, 1))
    with pytest.raises(EvometaError, match="the loss of Absolute is none of .* use load_learner"):
        export(run, "c000000", tmp_path / "out")
    assert not (tmp_path / "out").exists()
