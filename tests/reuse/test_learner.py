"""A loaded learner predicts what the evaluation scored."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import evometa
from evometa.errors import EvometaError
from evometa.launch import Workers
from evometa.learner import Setting, make_learner, preset
from evometa.network import Network
from evometa.reuse.confirm import Confirmation, confirm
from evometa.reuse.example import Leaf, RangeWarning
from evometa.reuse.learner import _outputs, load_learner
from evometa.reuse.stored import read_run
from evometa.task import Glyphs
from tests.reuse.conftest import WAVES, Nobody, make_run

IDS = [f"c00000{number}" for number in range(7)]


@pytest.mark.parametrize("id_", IDS)
def test_it_predicts_what_the_search_scored(images, id_):
    stored = images.evaluation(id_)
    learner = load_learner(images, id_, device="cpu")
    episodes = images.evaluator().episodes()[0]
    adapted = learner.adapt(episodes.support.inputs, episodes.support.targets)
    right = adapted.predict(episodes.query.inputs) == episodes.query.targets
    np.testing.assert_allclose(right.double().mean(1), stored.scores, atol=1e-9)


def test_a_batch_of_tasks_equals_the_tasks_one_by_one(waves):
    learner = load_learner(waves, "c000001", device="cpu")
    generator = torch.Generator().manual_seed(0)
    (x, y), (new, _) = waves.file.study.task.episodes("meta-train", 4, generator)
    together = learner.adapt(x, y).predict(new)
    single = torch.stack([learner.adapt(x[i], y[i]).predict(new[i]) for i in range(4)])
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_rungs_of_another_task_are_gone_through_as_in_the_search(tmp_path):
    source = WAVES.replace("halving(2)", "(Rung(3, task=Sinusoid(shots=10)),)")
    source = source.replace("Training, halving", "Rung, Training")
    run = read_run(make_run(tmp_path, source, 3))
    episodes = run.evaluator().episodes()[0]
    adapted = load_learner(run, "c000000", device="cpu").adapt(*episodes.support)
    losses = (adapted.predict(episodes.query.inputs) - episodes.query.targets).square()
    stored = run.evaluation("c000000")
    assert stored.candidate.rung == 1
    np.testing.assert_allclose(losses.mean((1, 2)), stored.scores, rtol=1e-5)


@pytest.mark.parametrize("steps", [-1, 2.5])
def test_steps_that_cannot_be_are_refused(waves, steps):
    x = torch.zeros(5, 1)
    with pytest.raises(EvometaError, match="`steps >= 0` must hold"):
        load_learner(waves, "c000001").adapt(x, x, steps=steps)


def test_odd_arrays_are_taken_or_named(waves):
    learner = load_learner(waves, "c000001", device="cpu")
    x = np.linspace(-5, 5, 5)[:, None]
    turned = learner.adapt(x[::-1], np.sin(x[::-1])).predict(x)
    np.testing.assert_allclose(turned, learner.adapt(x, np.sin(x)).predict(x), rtol=1e-4)
    learner.adapt(x, torch.zeros(5, 1, dtype=torch.bfloat16))
    for y in (["a"] * 5, [[1], [2, 3], [1], [2], [3]]):
        with pytest.raises(EvometaError, match="targets must be"):
            learner.adapt(x, y)


def test_labels_of_any_kind_come_back(images):
    learner = load_learner(images, "c000005", device="cpu")
    episodes = images.evaluator().episodes()[0]
    x, y = episodes.support.inputs[0], episodes.support.targets[0]
    names = np.array(["cat", "dog", "eel"])[y.numpy()]
    adapted = learner.adapt(x.numpy(), names)
    found = adapted.predict(episodes.query.inputs[0].numpy())
    plain = learner.adapt(x, y * 10).predict(episodes.query.inputs[0])
    assert isinstance(plain, torch.Tensor) and isinstance(found, np.ndarray)
    assert found.tolist() == [["cat", "dog", "eel"][v // 10] for v in plain.tolist()]
    assert adapted.classes.tolist() == ["cat", "dog", "eel"]
    chances = adapted.predict_proba(episodes.query.inputs[0])
    np.testing.assert_allclose(chances.sum(-1), 1.0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::evometa.reuse.learner.TransductiveWarning")
def test_prototypes_take_classes_of_different_sizes(images):
    learner = load_learner(images, "c000005", device="cpu")
    episodes = images.evaluator().episodes()[0]
    x, y = episodes.support.inputs[0], episodes.support.targets[0]
    kept = torch.tensor([0, 1, 2, 3, 4])
    assert sorted(set(y.tolist())) == sorted(set(y[kept].tolist()))
    assert learner.adapt(x[kept], y[kept]).predict(x[:1]).shape == (1,)


@pytest.mark.filterwarnings("ignore::evometa.reuse.learner.TransductiveWarning")
def test_more_classes_than_the_network_has_outputs_are_refused(images):
    x = images.evaluator().episodes()[0].support.inputs[0][:4]
    learner = load_learner(images, "c000000", device="cpu")
    assert learner.adapt(x, torch.tensor([0, 1, 0, 1])).predict_proba(x).shape == (4, 2)
    with pytest.raises(EvometaError, match="tells 3 classes apart, but these examples have 4"):
        learner.adapt(x, torch.arange(4))
    any_number = load_learner(images, "c000005", device="cpu")
    assert any_number.adapt(x, torch.arange(4)).predict(x).tolist() == [0, 1, 2, 3]


def test_real_values_with_and_without_an_axis_of_outputs(waves):
    learner = load_learner(waves, "c000001", device="cpu")
    x = torch.linspace(-5, 5, 5)[:, None]
    column = learner.adapt(x, x.sin()).predict(x)
    flat = learner.adapt(x, x.sin()[:, 0]).predict(x)
    assert column.shape == (5, 1) and torch.equal(column[:, 0], flat)


def test_steps_may_be_chosen(waves):
    learner = load_learner(waves, "c000001", device="cpu")
    x = torch.linspace(-5, 5, 5)[:, None]
    none = learner.adapt(x, x.sin(), steps=0).predict(x)
    other = learner.adapt(x, x.cos() + 3, steps=0).predict(x)
    assert torch.equal(none, other)
    assert not torch.equal(none, learner.adapt(x, x.sin(), steps=5).predict(x))


def test_confirmed_weights_are_used_and_nothing_is_trained(waves):
    before = []
    load_learner(waves, "c000001", progress=lambda *numbers: before.append(numbers))
    assert before
    confirm(
        waves,
        Confirmation(seeds=1, episodes=3, only=["c000001"]),
        Workers("serial"),
        lambda *_: Nobody(),
    )
    after = []
    learner = evometa.load_learner(
        str(waves.place), "c000001", progress=lambda *numbers: after.append(numbers)
    )
    assert not after and "confirmation" in learner.trained


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(5), torch.zeros(5), "inputs must have the shape"),
        (torch.zeros(0, 1), torch.zeros(0, 1), "inputs must have the shape"),
        (torch.zeros(5, 1), torch.zeros(4, 1), "one target each"),
        (torch.zeros(5, 1), torch.zeros(5, 2), "1 values each"),
    ],
)
def test_wrong_shapes_are_named(waves, x, y, said):
    learner = load_learner(waves, "c000001", device="cpu")
    with pytest.raises(EvometaError, match=said):
        learner.adapt(x, y)


def test_numbers_that_a_type_cannot_hold_are_named():
    leaf = Leaf("", (1,), torch.uint8, 0.0, 255.0)
    assert leaf.read(torch.tensor([[7]])).dtype == torch.uint8
    with pytest.raises(EvometaError, match="uint8 as in meta-training, but got torch.int64 from"):
        leaf.read(torch.tensor([[300], [-1]]))


def test_as_many_classes_as_the_task_may_have_are_told_apart():
    task = Glyphs(ways=(2, 4), queries=1, classes_per_split=(8, 5, 5), drawings=8).load(None)
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(784, 4)))
    learner = make_learner(preset("maml"), Setting(network, task, "inductive"))
    few = replace(task, ways=2).episodes("meta-train", 1, torch.Generator().manual_seed(0))
    assert _outputs(few, learner, task) == (None, 4)


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("own", [torch.float32, torch.int64, torch.uint8])
def test_complex_inputs_are_refused_by_every_type(own, kind):
    leaf = Leaf("['x']", (1,), own, 0.0, 1.0)
    wanted = re.escape(f"inputs['x'] must be {str(own)[6:]} as in meta-training, but got {kind}")
    with pytest.raises(EvometaError, match=wanted):
        leaf.read(torch.ones(2, 1, dtype=kind))
    with pytest.raises(EvometaError, match=wanted):
        leaf.read(torch.ones(2, 1, dtype=kind).numpy())


def test_tokens_above_those_of_meta_training_are_said_so():
    leaf = Leaf("", (2,), torch.int64, 1.0, 49.0)
    with pytest.warns(RangeWarning, match="from 0 to 60, but in meta-training from 1 to 49"):
        leaf.read(torch.tensor([[0, 60]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        leaf.read(torch.tensor([[0, 49]]))
        Leaf("", (2,), torch.bool, 0.0, 0.0).read(torch.tensor([[True, False]]))
