"""Plans: written and read, chosen, fitted into memory; all compute the same."""

import shutil

import pytest
import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.errors import StoreError, StudyError
from evometa.evaluate import (
    LOOP,
    VMAP,
    Evaluator,
    Plan,
    Trainer,
    admit,
    calibrate,
    calibration,
    parse_plan,
)
from evometa.evaluate.calibration import fitting
from evometa.evaluate.checkpoint import load_checkpoint, save_checkpoint
from evometa.evaluate.memory import peak_bytes
from evometa.evaluate.plan import default_plan
from evometa.evaluate.settings import numerics
from evometa.learner import preset
from evometa.network import ConvBlock, Network, conv_net, mlp
from evometa.records import Candidate, Status
from evometa.task import Glyphs, Sinusoid
from evometa.task.episodes import over
from tests.learner.laws import CPU, assert_same, grads_of, learner_of, make, network, normed, waves

TEXTS = [
    "loop",
    "vmap",
    "vmap:allx8",
    "vmap:4x8",
    "vmap:4xall",
    "loop+channels_last",
    "vmap+compile",
    "vmap:2x8+compile+graph",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_plan_is_read_as_it_is_written(text):
    assert str(parse_plan(text)) == text
    assert parse_plan(str(parse_plan(text))) == parse_plan(text)


def test_short_forms():
    assert parse_plan("vmap:8") == Plan(tasks=8)
    assert parse_plan("vmap:1x1") == LOOP


@pytest.mark.parametrize("text", ["", "fast", "loop:3", "vmap:", "vmap:-1", "vmap+turbo", "vmap:x"])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(StudyError, match="a plan must be"):
        parse_plan(text)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling needs a C++ compiler")
@pytest.mark.parametrize(("name", "base"), [("maml++", "vmap"), ("maml", "loop")])
def test_compiled_equals_plain(name, base):
    module = normed() if name == "maml++" else network()
    learner = make(module, preset(name, steps=2, rate=0.1))
    loss, grads = grads_of(learner, waves(2), parse_plan(base))
    compiled_loss, compiled = grads_of(learner, waves(2), parse_plan(f"{base}+compile"))
    assert loss == pytest.approx(compiled_loss, rel=1e-10)
    assert_same(compiled, grads, rtol=1e-8, atol=1e-10)


def images(norm="batch"):
    glyphs = Glyphs(ways=3, queries=3, classes_per_split=(5, 5, 5), drawings=5).load(None)
    torch.manual_seed(0)
    module = conv_net([ConvBlock(1, 4, norm=norm), ConvBlock(4, 4, reduce="stride")], 3)
    drawn = glyphs.episodes("meta-train", 3, torch.Generator().manual_seed(0))
    module(drawn.support.inputs[0])
    episodes = over(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, drawn)
    learner = learner_of(preset("maml", rate=0.1), Network(module.double()), glyphs)
    return learner, episodes


@pytest.mark.parametrize("text", ["vmap", "vmap:allx2", "loop+channels_last", "vmap+channels_last"])
def test_plans_of_convolutions_compute_the_same(text):
    learner, episodes = images()
    loss, grads = grads_of(learner, episodes, LOOP)
    other, planned = grads_of(learner, episodes, parse_plan(text))
    assert loss == pytest.approx(other, rel=1e-10)
    assert_same(planned, grads, rtol=1e-6, atol=1e-9)


def test_defaults_follow_from_network_and_device():
    assert default_plan("convolution", CPU) == LOOP
    assert default_plan("dense", CPU) == VMAP
    assert default_plan("convolution", torch.device("cuda")) == VMAP


def study(build=lambda g: mlp(1, [40, 40], 1), **training):
    settings = {"iterations": 20, "tasks": 16, "validation": 4, **training}
    task = Sinusoid(shots=5, queries=5, eval_queries=10)
    return Study(s.Struct(x=s.Choice(1)), build, task, training=Training(**settings))


def test_calibration_keeps_what_is_clearly_faster():
    made = study()
    genome = {"x": 1, "rule": preset("maml")}
    assert calibrate(made, [admit(made, genome, 0, CPU)], CPU) == {"dense": VMAP}
    assert calibrate(made, [], CPU) == {}


@pytest.mark.parametrize(("again", "chosen"), [(0.01, VMAP), (0.9, LOOP)])
def test_a_machine_that_was_busy_for_a_moment_does_not_choose_the_plan(monkeypatch, again, chosen):
    times = {VMAP: iter([1.0, again]), LOOP: iter([0.1])}
    monkeypatch.setattr(calibration, "_seconds", lambda *each: next(times[each[2]]))
    made = study()
    admitted = admit(made, {"x": 1, "rule": preset("maml")}, 0, CPU)
    assert calibrate(made, [admitted], CPU) == {"dense": chosen}


def test_channels_are_moved_in_convolutions_alone(monkeypatch):
    """Whatever the clock says."""
    clock = iter(range(10_000, 0, -1))
    monkeypatch.setattr(calibration, "_seconds", lambda *_: float(next(clock)))
    monkeypatch.setattr(calibration, "WORTHWHILE", 1.0)
    made = study()
    plans = calibrate(made, [admit(made, {"x": 1, "rule": preset("maml")}, 0, CPU)], CPU)
    assert not plans["dense"].channels_last


def test_the_plan_is_recorded_and_can_be_overridden():
    candidate = Candidate(0, {"x": 1, "rule": preset("maml")}, 0)
    results = {}
    for text in ("vmap", "loop", "vmap:allx4"):
        (result,) = Evaluator(study(), plans={"dense": text})([candidate])
        assert (result.status, result.plan) == (Status.OK, text)
        results[text] = result.metrics["query_loss"]
    assert results["loop"] == pytest.approx(results["vmap"], rel=1e-3)
    assert results["vmap:allx4"] == pytest.approx(results["vmap"], rel=1e-3)


def test_chunks_fit_into_memory():
    assert fitting(VMAP, 10, 10_000, candidates=4, tasks=8) == VMAP
    assert fitting(VMAP, 10, 170, candidates=4, tasks=8) == Plan(candidates=2)
    assert fitting(VMAP, 10, 35, candidates=4, tasks=8) == Plan(candidates=1, tasks=3)
    assert fitting(VMAP, 10, 5, candidates=4, tasks=8) == LOOP
    assert fitting(LOOP, 10, 5, candidates=4, tasks=8) == LOOP


def test_memory_is_counted_with_what_a_graph_keeps():
    x = torch.zeros(1000)

    def chain(length, keep):
        leaf = x.clone().requires_grad_(keep)
        value = leaf
        for _ in range(length):
            value = value.exp()
        return value

    assert peak_bytes(lambda: chain(10, keep=False)) == 3 * 4000
    assert peak_bytes(lambda: chain(10, keep=True)) == 11 * 4000


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_precision_is_a_setting_and_is_put_back(precision):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark
    candidate = Candidate(0, {"x": 1, "rule": preset("maml", rate=0.001)}, 0)
    (result,) = Evaluator(study(precision=precision))([candidate])
    (exact,) = Evaluator(study())([candidate])
    assert result.status is Status.OK
    assert result.metrics["query_loss"] == pytest.approx(exact.metrics["query_loss"], rel=0.1)
    assert (result.scores == exact.scores) is (precision != "bfloat16")
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark) == before


def test_deterministic_mode_is_put_back():
    with numerics(Training(deterministic=True), CPU):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def trained(until, checkpoints=()):
    torch.manual_seed(0)
    task = Sinusoid(shots=5, queries=5)
    learner = learner_of(preset("meta-sgd"), Network(nn.Linear(1, 1)), task)
    training = Training(iterations=20, tasks=4)
    trainer = Trainer(
        [learner], task, training, seeds=[1], plan=VMAP, device=CPU, checkpoints=checkpoints
    )
    trainer.run(until)
    return trainer, learner.traits.structure


def test_a_checkpoint_survives_the_disk(tmp_path):
    path = tmp_path / "c000000.safetensors"
    first, structure = trained(9)
    save_checkpoint(path, first.checkpoint(0), structure)
    again, _ = trained(20, [load_checkpoint(path, structure)])
    whole, _ = trained(20)
    (one,), (other,) = again.results(), whole.results()
    assert one.curve == other.curve
    for part in ("params", "learned"):
        for name, value in other.meta[part].items():
            assert torch.equal(one.meta[part][name], value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path):
    path = tmp_path / "c000000.safetensors"
    first, structure = trained(3)
    with pytest.raises(StoreError, match="safetensors file"):
        load_checkpoint(path, structure)
    save_checkpoint(path, first.checkpoint(0), structure)
    with pytest.raises(StoreError, match="another learner"):
        load_checkpoint(path, "another")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match="safetensors file"):
        load_checkpoint(path, structure)
    with pytest.raises(StoreError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "x", first.checkpoint(0), structure)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
@pytest.mark.parametrize("text", ["loop", "vmap", "vmap+graph", "vmap+compile", "vmap:1x2+graph"])
@pytest.mark.parametrize("rule", ["maml", "maml++"])
def test_cuda_equals_cpu(text, rule):
    """In float64, from the same episodes."""
    results = []
    for device, plan in ((CPU, LOOP), (torch.device("cuda"), parse_plan(text))):
        torch.manual_seed(0)
        task = Sinusoid(shots=5, queries=5)
        learner = learner_of(preset(rule), Network(mlp(1, [8], 1)), task)
        training = Training(iterations=30, tasks=4)
        trainer = Trainer([learner], task, training, seeds=[1], plan=plan, device=device)
        trainer.run()
        results.append(trainer.results()[0])
    for name, value in results[0].meta["params"].items():
        torch.testing.assert_close(
            results[1].meta["params"][name].cpu(), value, rtol=1e-3, atol=1e-4
        )
