"""The gate: what cannot work is rejected in milliseconds, with its reason."""

import time

import pytest
import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.evaluate import LOOP, VMAP, Evaluator, Rejected, admit
from evometa.evaluate.curvature import check_curvature
from evometa.learner import preset
from evometa.network import ConvBlock, Network, conv_net, mlp
from evometa.records import Candidate, Status
from evometa.task import Glyphs, Sinusoid
from evometa.task.episodes import part_of

CPU = torch.device("cpu")
RULE = s.Choice(None)


class NoSecondDerivative(nn.Module):
    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return 2 * ctx.saved_tensors[0] * grad

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.Square.apply(self.linear(x))


class Branching(nn.Linear):
    """Looks at values, so it can run neither on the meta device nor under vmap."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class InfiniteSlope(nn.Linear):
    def forward(self, x):
        return super().forward(x).abs().sub(super().forward(x).abs()).sqrt()


def study(build, **training):
    task = Sinusoid(shots=4, queries=4, eval_queries=8)
    training = {"iterations": 5, "tasks": 2, "validation": 4, **training}
    return Study(
        space=s.Struct(x=s.Choice(1)), build=build, task=task, training=Training(**training)
    )


def genome(rule="maml", **changes):
    return {"x": 1, "rule": preset(rule, **changes)}


def fails(genome):
    raise KeyError("width")


def unequal(genome):
    return nn.Sequential(nn.Linear(1, 1), nn.Flatten(0), nn.Unflatten(0, (2, -1)))


def a_tuple(genome):
    return nn.Sequential(nn.Linear(1, 1), nn.LSTM(1, 1))


REJECTED = {
    "build raises": (fails, genome(), "build raised KeyError: 'width'"),
    "no module": (lambda g: None, genome(), "must return a torch.nn.Module, got NoneType"),
    "wrong inputs": (lambda g: nn.Linear(3, 1), genome(), r"run on inputs of shape \(4, 1\)"),
    "wrong outputs": (lambda g: nn.Linear(1, 2), genome(), "predictions must have shape"),
    "not one an example": (unequal, genome(), r"for 4 examples it returned shape \(2, 2\)"),
    "a tuple": (a_tuple, genome(), "must return one prediction an example"),
    "nothing to learn": (lambda g: nn.Flatten(), genome(), "no trainable parameters"),
    "not finite": (lambda g: InfiniteSlope(1, 1), genome(), "does not depend on its input"),
    "no body": (lambda g: nn.Linear(1, 1), genome("boil"), "no such parameters"),
    "explodes": (lambda g: mlp(1, [8], 1), genome(rate=1e6, steps=5), "lower the rule's rate"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_work_is_rejected_with_its_reason(name):
    build, point, reason = REJECTED[name]
    started = time.perf_counter()
    with pytest.raises(Rejected, match=reason):
        admit(study(build), point, 0, CPU)
    assert time.perf_counter() - started < 5
    (evaluation,) = Evaluator(study(build))([Candidate(0, point, seed=0)])
    assert evaluation.status is Status.INVALID
    assert evaluation.error
    assert not evaluation.metrics


def test_what_has_no_second_derivative_is_first_order_only():
    made = study(lambda g: NoSecondDerivative())
    admission = admit(made, genome(), 0, CPU)
    assert admission.note.startswith("first-order only: no second derivative")
    assert admission.learner.traits.order == 1
    (evaluation,) = Evaluator(made)([Candidate(0, genome(), seed=0)])
    (first_order,) = Evaluator(made)([Candidate(0, genome("fomaml"), seed=0)])
    assert evaluation.status is Status.OK
    assert evaluation.note == admission.note
    assert evaluation.scores == first_order.scores


class Fused(nn.Module):
    """Fused attention, whose kernel has no second derivative."""

    def __init__(self):
        super().__init__()
        self.inputs, self.output = nn.Linear(1, 24), nn.Linear(8, 1)

    def forward(self, x):
        q, k, v = self.inputs(x).view(1, -1, 3, 1, 8).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.output(attended.reshape(-1, 8))


def test_fused_attention_falls_back_to_plain_operations():
    admission = admit(study(lambda g: Fused()), genome(), 0, CPU)
    assert admission.note == "without fused attention and cuDNN's recurrent cells"
    assert admission.learner.traits.order == 2
    assert admit(study(lambda g: Fused()), genome("fomaml"), 0, CPU).note == ""


@pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_cells_are_second_order(cell):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = cell(1, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.cell(x.unsqueeze(1))[0].squeeze(1))

    admission = admit(study(lambda g: Recurrent()), genome(), 0, CPU)
    assert admission.learner.traits.order == 2
    assert "first-order" not in admission.note


def test_dropout_is_seen():
    def build(genome):
        return nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    assert admit(study(build), genome(), 0, CPU).random
    assert not admit(study(lambda g: mlp(1, [4], 1)), genome(), 0, CPU).random


def test_first_order_needs_no_second_derivative():
    admit(study(lambda g: NoSecondDerivative()), genome("fomaml"), 0, CPU)


def test_modules_that_look_at_values_are_looped():
    admission = admit(study(lambda g: Branching(1, 1)), genome(), 0, CPU)
    assert admission.plan == LOOP
    assert admission.cost.params == 2


def test_costs_are_counted():
    admission = admit(study(lambda g: mlp(1, [40, 40], 1)), genome(), 0, CPU)
    assert admission.cost.params == 1761
    assert admission.cost.macs == 40 + 40 * 40 + 40
    assert admission.plan == VMAP


CELL = 4 * 4 * (4 + 4) + 4 * 4  # weights of an LSTM of size 4 that reads as many numbers


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("protonet", 0),
        ("siamese", 4 + 1),  # a weight of each difference, and a shift
        ("matching-fce", 3 * CELL + 4 * 4 * 4),
        ("transfer", 0),  # new tasks do not need the classifier of all classes
        ("cavia", 5 * 4),  # from each number of the context to each output
    ],
)
def test_weights_that_a_learner_needs_besides_the_network_are_counted(name, own):
    task = Glyphs(ways=3, size=8, queries=2, drawings=4, classes_per_split=(9, 4, 4)).load(None)
    made = Study(
        space=s.Struct(a=s.Choice(1)),
        build=lambda g: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
        task=task,
        training=Training(iterations=1, tasks=1, validation=1),
    )
    admitted = admit(made, {"a": 1, "rule": preset(name)}, 0, CPU)
    assert admitted.cost.params == 64 * 4 + 4 + own


def test_lazy_modules_and_convolutions_work():
    glyphs = Glyphs(ways=3, queries=3, classes_per_split=(5, 5, 5), drawings=5).load(None)
    made = Study(
        space=s.Struct(x=s.Choice(1)),
        build=lambda g: nn.Sequential(
            nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3)
        ),
        task=glyphs,
        training=Training(iterations=2, tasks=2, validation=3),
    )
    admission = admit(made, genome(), 0, CPU)
    assert admission.plan == LOOP
    assert admission.cost.params == 4 * 9 + 4 + 8 + 4 * 13 * 13 * 3 + 3
    assert admission.cost.macs == 4 * 9 * 13 * 13 + 4 * 13 * 13 * 3


def test_the_signature_sees_structure_and_not_numbers():
    def signature(point, width=8):
        return admit(study(lambda g: mlp(1, [width], 1)), point, 0, CPU).signature

    assert signature(genome(rate=0.1)) == signature(genome(rate=0.2))
    different = [genome(), genome(steps=2), genome("fomaml"), genome("anil"), genome("meta-sgd")]
    assert len({signature(point) for point in different}) == 5
    assert signature(genome()) != signature(genome(), width=9)


def test_kinks_are_not_taken_for_missing_derivatives():
    """Steep normalisation before pooling puts many kinks within a step of the parameters."""
    glyphs = Glyphs(ways=5, queries=3, classes_per_split=(9, 9, 9), drawings=5).load(None)

    def build(genome):
        torch.manual_seed(genome)
        blocks = [ConvBlock(1, 8, kernel=5, skip=True, activation="leaky_relu")]
        blocks += [ConvBlock(8, 16, kernel=5), ConvBlock(16, 16, kernel=5)]
        return conv_net(blocks, 5, head="flatten")

    support = glyphs.episodes("meta-train", 1, torch.Generator().manual_seed(0)).support
    for seed in range(12):
        module = build(seed)
        module(support.inputs[0])
        check_curvature(Network(module), glyphs.loss, part_of(support, 0))
