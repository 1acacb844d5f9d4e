"""An export adapts with PyTorch alone, as the learner did that was searched."""

import json
import subprocess
import sys
import warnings
from importlib import metadata

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file
from typer.testing import CliRunner

from evometa.cli import app
from evometa.errors import EvometaError
from evometa.reuse.export import export
from evometa.reuse.exported.learner import Learner, read_safetensors
from evometa.reuse.learner import load_learner
from evometa.reuse.stored import read_run
from tests.reuse.conftest import WAVES, make_run
from tests.reuse.test_learner import IDS

ALONE = """
import json, sys

sys.path[:0] = sys.argv[1:3]
from learner import Learner

learner = Learner()
x, y, new, _ = learner.example()
adapted = learner.adapt(x, y)
outputs = adapted.outputs(new)
one = adapted.outputs(new[:1])
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


CASES = [("inductive", id_) for id_ in IDS]  # each norm with steps, its own statistics, prototypes
CASES += [(norm, id_) for norm in ("transductive", "per-step") for id_ in (IDS[1], IDS[5])]


@pytest.mark.parametrize(("images", "id_"), CASES, indirect=["images"])
def test_every_rule_and_norm_computes_what_the_learner_does(images, id_, tmp_path):
    found = export(images, id_, tmp_path / "out")
    assert found.difference < 1e-6
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not confirmed" in card and images.kept["file_sha256"] in card
    learner, alone = load_learner(images, id_, device="cpu"), Learner(tmp_path / "out")
    x, y, new, _ = alone.example()
    for examples in (2, 3, len(y)):
        for queries in (1, 3, len(new)):
            part = x[:examples], y[:examples]
            wanted = quietly(learner, *part, new[:queries])
            found = alone.adapt(*part).outputs(new[:queries]).softmax(-1)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def quietly(learner, x, y, new):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few queries together are few
        return learner.adapt(x, y).predict_proba(new)


@pytest.mark.slow
@pytest.mark.parametrize("images", ["inductive"], indirect=True)
@pytest.mark.parametrize("id_", ["c000001", "c000005"])
def test_pytorch_alone_computes_the_same(images, id_, tmp_path, torch_alone):
    export(images, id_, tmp_path / "out")
    outputs, shape = in_another_process(tmp_path / "out", torch_alone)
    x, y, new, _ = Learner(tmp_path / "out").example()
    wanted = quietly(load_learner(images, id_, device="cpu"), x, y, new)
    torch.testing.assert_close(outputs.softmax(-1), wanted, rtol=1e-3, atol=1e-4)
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


def test_targets_without_an_axis_are_taken_as_the_learner_takes_them(waves, tmp_path):
    export(waves, "c000001", tmp_path / "out")
    plain = Learner(tmp_path / "out")
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
    plain = Learner(tmp_path / "out").adapt(x, y)
    assert plain.outputs(new).shape == (len(new), 2)
    assert torch.equal(plain.predict(new), learner.adapt(x, y).predict(new))


def test_networks_without_batch_norm_need_no_protocol(tmp_path):
    source = WAVES.replace("iterations=6,", 'iterations=3, norm="per-step",')
    run = read_run(make_run(tmp_path, source, 1))
    assert export(run, "c000000", tmp_path / "out").difference < 1e-6


def test_fewer_steps_are_those_of_the_learner(tmp_path):
    source = WAVES.replace(
        'baselines={"narrow": {"width": 4}}',
        'baselines={"LSLR": {"width": 4, "rule": preset("lslr", rate=0.01, steps=3)}}',
    ).replace("width=s.Int(4, 16)", "width=s.Int(4, 16), rule=rule_space()")
    source = source.replace(
        "from evometa.task", "from evometa.rule import rule_space\nfrom evometa.task"
    )
    run = read_run(make_run(tmp_path, source, 1))
    export(run, "c000000", tmp_path / "out")
    learner, alone = load_learner(run, "c000000", device="cpu"), Learner(tmp_path / "out")
    x, y, new, _ = alone.example()
    for steps in range(4):
        wanted = learner.adapt(x, y, steps=steps).predict(new)
        torch.testing.assert_close(alone.adapt(x, y, steps).outputs(new), wanted)
    for steps in (4, -1, 0.5):
        with pytest.raises(ValueError, match="from 0 to 3"):
            alone.adapt(x, y, steps)


LOSSES = {
    "as it is written": "(predict(side.inputs) - side.targets).abs().mean()",
    "by the length": "(predict(side.inputs) - side.targets).abs().sum() / len(side.targets)",
    "of some": "(predict(side.inputs) - side.targets)[side.targets > 0].abs().sum()",
    "with numbers of its own": "(WEIGHTS * (predict(side.inputs) - side.targets)).abs().mean()",
    "one after the other": "sum((predict(x[None]) - y).abs().mean() for x, y in zip(*side))",
    "one way or the other": "(predict(side.inputs) - side.targets).abs().mean() "
    "* (3 if len(side.targets) < 7 else 1)",
    "by a value": "predict(side.inputs).abs().mean() * int(side.targets.sum())",
}
LIMITS = {
    "one after the other": (5, 5),
    "one way or the other": (1, 6),
}


def own_loss(folder, text):
    source = WAVES.replace(
        "study = Study(",
        f"""
import torch
WEIGHTS = torch.tensor([2.0])

class Own(Sinusoid):
    mappable = False

    def loss(self, predict, side):
        return {text}

study = Study(""",
    ).replace("task=Sinusoid(", "task=Own(")
    return read_run(make_run(folder, source, 1))


@pytest.mark.parametrize("name", list(LOSSES)[:-1])
def test_a_loss_of_ones_own_is_exported_for_the_lengths_that_it_holds_for(name, tmp_path):
    run = own_loss(tmp_path, LOSSES[name])
    export(run, "c000000", tmp_path / "out")
    learner, alone = load_learner(run, "c000000", device="cpu"), Learner(tmp_path / "out")
    x = torch.linspace(-5, 5, 40)[:, None]
    least, most = LIMITS.get(name, (1, None))
    for count in (2, 5, 6, 40):
        if least <= count <= (most or count):
            wanted = learner.adapt(x[:count], x[:count].sin()).predict(x)
            found = alone.adapt(x[:count], x[:count].sin()).predict(x)
            torch.testing.assert_close(found, wanted)
        else:
            with pytest.raises(ValueError, match=f"{most} examples, got {count}"):
                alone.adapt(x[:count], x[:count].sin())


def test_what_pytorch_alone_could_not_run_is_refused_and_nothing_is_left(tmp_path):
    run = own_loss(tmp_path, LOSSES["by a value"])
    with pytest.raises(EvometaError, match="cannot be written as a program: .* use load_learner"):
        export(run, "c000000", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", ["inductive"], indirect=True)
def test_prototypes_take_other_numbers_of_classes(images, tmp_path):
    export(images, "c000006", tmp_path / "out")
    learner, alone = load_learner(images, "c000006", device="cpu"), Learner(tmp_path / "out")
    x, new = torch.rand(9, 1, 28, 28), torch.rand(4, 1, 28, 28)
    for labels in ([5, 5, 5, 5, 5, 5, 5, 5, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [3] * 9):
        y = torch.tensor(labels)
        wanted = quietly(learner, x, y, new)
        found = alone.adapt(x, y)
        torch.testing.assert_close(found.outputs(new).softmax(-1), wanted)
        assert set(found.predict(new).tolist()) <= set(labels)
        words = [f"class {label}" for label in labels]
        assert alone.adapt(x, words).predict(new) == [
            f"class {label}" for label in found.predict(new).tolist()
        ]
    with pytest.raises(ValueError, match="no steps to choose from"):
        alone.adapt(x, y, 0)


WORDS = """
import torch
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.task import Batch, EpisodeBatch

class Words:
    metrics = {"query_loss": "min"}

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):
        side = lambda k: Batch(
            {
                "words": torch.randint(0, 2**40, (n, k, 6), generator=generator),
                "mask": torch.rand(n, k, 6, generator=generator) < 0.7,
            },
            torch.arange(k).remainder(3).expand(n, k),
        )
        return EpisodeBatch(side(6), side(4))

    def loss(self, predict, side):
        return nn.functional.cross_entropy(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        return {"query_loss": self.loss(predict, side)}

    def describe(self):
        return {"name": "words"}

class Bag(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, width), nn.Linear(width, 3)

    def forward(self, given):
        assert given["words"].dtype == torch.int64
        found = self.embed((given["words"] - 2**39).remainder(11))  # exact as whole numbers alone
        return self.head((found * given["mask"].unsqueeze(-1)).sum(1))

study = Study(
    space=s.Struct(width=s.Int(4, 8)),
    build=lambda genome: Bag(genome["width"]),
    task=Words(),
    training=Training(iterations=2, tasks=2, validation=4),
)
"""


def test_whole_numbers_and_dicts_stay_what_they_are(tmp_path):
    run = read_run(make_run(tmp_path, WORDS, 1))
    export(run, "c000000", tmp_path / "out")
    learner, alone = load_learner(run, "c000000", device="cpu"), Learner(tmp_path / "out")
    words, mask = torch.randint(0, 2**40, (5, 6)), torch.rand(5, 6) < 0.5
    x, y = {"mask": mask, "words": words}, torch.tensor([0, 1, 1, 2, 0])
    wanted = learner.adapt(x, y).predict_proba(x)
    torch.testing.assert_close(alone.adapt(x, y).outputs(x).softmax(-1), wanted)
    assert "`['words']`: int64" in (tmp_path / "out" / "README.md").read_text()
    example = alone.example()
    assert len(alone.adapt(*example[:2]).predict(example[2])) == len(example[3])
    for wrong, message in (
        ({"mask": mask}, r"must hold .*, but \['words'\] is not there"),
        ({"mask": mask, "words": words.float()}, "must be int64, got torch.float32"),
        ({"mask": mask, "words": words[:, :5]}, r"the shape \(examples, 6\), got \(5, 5\)"),
        ({"mask": mask, "words": words[:4]}, "equally many"),
        ({"mask": mask, "words": words - 2**40}, "at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            alone.adapt(wrong, y)
    with pytest.warns(UserWarning, match="reach up to .*: predictions there are guesses"):
        alone.inputs({"mask": mask, "words": words + 2**41}, "examples")
    with pytest.raises(ValueError, match="must be int64, got torch.complex64"):
        alone.adapt({"mask": mask, "words": words.to(torch.complex64)}, y)
    with pytest.raises(ValueError, match="5 examples, but 4 targets"):
        alone.adapt(x, y[:4])
    with pytest.raises(ValueError, match="tells 3 classes apart"):
        alone.adapt(x, torch.arange(5))
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        alone.adapt(x, y.float())


OWN_PRIMITIVE = (
    WAVES.replace(
        "study = Study(",
        """
import torch
from evometa.rule import rule_space, update_space

def softly(x):
    return HALF * torch.tanh(x)

HALF = 0.5
study = Study(""",
    )
    .replace(
        "width=s.Int(4, 16)",
        "width=s.Int(4, 16), rule=rule_space(update=update_space(own=[s.Primitive('softly', "
        "('same',), function=softly)]))",
    )
    .replace(
        '{"narrow": {"width": 4}}',
        '{"own": {"width": 4, "rule": preset("maml", '
        'update=["mul", "rate", "softly", "gradient"])}}',
    )
)


def test_a_primitive_of_ones_own_is_exported_though_it_cannot_be_written_out(tmp_path):
    run = read_run(make_run(tmp_path, OWN_PRIMITIVE, 1))
    assert export(run, "c000000", tmp_path / "out").difference < 1e-6
    assert not (tmp_path / "out" / "rule.py").exists()
    assert "rule.py" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("images", ["transductive"], indirect=True)
def test_card_and_show_say_what_queries_one_at_a_time_are_worth(images, tmp_path):
    evaluation = images.evaluation("c000005")
    together, alone = (evaluation.metrics[f"{name}accuracy"] for name in ("", "one_by_one_"))
    card = (export(images, "c000005", tmp_path / "out").folder / "README.md").read_text()
    assert f"accuracy was {together:.4g} for all queries" in card
    assert f"{alone:.4g} one at a time" in card
    said = CliRunner().invoke(app, ["show", str(images.place), "c000005"]).output
    assert "one_by_one_accuracy" in said
