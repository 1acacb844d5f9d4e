"""The memory-augmented network against a plain loop of the published equations, and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from evometa.evaluate import begin
from evometa.learner import Embedded, presentations, preset
from evometa.learner.mann import Mann
from evometa.learner.order import shuffled
from evometa.network import Network
from evometa.task import Sinusoid
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch
from tests.learner.points import (
    FEATURES,
    Points,
    drawn,
    embedding,
    extremes,
    learner_on,
    mapped_equals_looped,
    moved,
    order_changes_nothing,
    packed_equals_single,
    padding_changes_nothing,
    predicted,
    queries_do_not_see_each_other,
)

TASK = Points(shots=3)
SMALL = {"width": 6, "rows": 7, "size": 5, "heads": 2}
RULE = preset("mann", **SMALL)


def santoro(weights, rows, size, heads, labels, sequence):
    """Santoro et al. (2016), section 3.2, one row and one head after the other.

    `sequence` holds features and label of each step; a None label ends it. Returns the logits.
    """
    width = len(weights["cell.bias"]) // 4
    hidden, cell = torch.zeros(width).double(), torch.zeros(width).double()
    memory = [torch.full((size,), 1e-6).double() for _ in range(rows)]
    read_weights = [[0.0] * rows for _ in range(heads)]
    usage = [1e-6 * row / (rows - 1) for row in range(rows)]
    reads, last, said = torch.zeros(heads * size).double(), torch.zeros(labels).double(), []
    for features, label in sequence:
        total = (
            torch.cat([features, last]) @ weights["cell.inputs"]
            + torch.cat([hidden, reads]) @ weights["cell.memory"]
            + weights["cell.bias"]
        )
        write, keep, new, show = total.split(width)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        keys = torch.tanh(hidden @ weights["key.weight"] + weights["key.bias"]).split(size)
        adds = torch.tanh(hidden @ weights["add.weight"] + weights["add.bias"]).split(size)
        gates = torch.sigmoid(hidden @ weights["gate.weight"] + weights["gate.bias"])
        least = sorted(range(rows), key=lambda row: usage[row])[:heads]
        write_weights = [
            [
                gates[head] * read_weights[head][row] + (1 - gates[head]) * (row == least[head])
                for row in range(rows)
            ]
            for head in range(heads)
        ]
        memory[least[0]] = torch.zeros(size).double()
        memory = [
            memory[row] + sum(write_weights[head][row] * adds[head] for head in range(heads))
            for row in range(rows)
        ]
        read_weights = []
        for head in range(heads):
            cosines = [
                keys[head] @ row / torch.sqrt((keys[head] @ keys[head]) * (row @ row) + 1e-6)
                for row in memory
            ]
            read_weights.append(torch.stack(cosines).softmax(0).tolist())
        usage = [
            0.95 * usage[row]
            + sum(
                float(read_weights[head][row] + write_weights[head][row]) for head in range(heads)
            )
            for row in range(rows)
        ]
        reads = torch.cat(
            [sum(read_weights[h][r] * memory[r] for r in range(rows)) for h in range(heads)]
        )
        said.append(torch.cat([hidden, reads]) @ weights["out.weight"] + weights["out.bias"])
        if label is not None:
            last = F.one_hot(label, labels).double()
    return torch.stack(said)


def features_of(meta, inputs):
    module = embedding()
    module.load_state_dict({name: meta["params"][name] for name in module.state_dict()})
    with torch.no_grad():
        return module(inputs)


def test_it_is_the_published_network():
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    support = shuffled(support)  # the order in which it is read
    weights = {k[5:]: v for k, v in meta["params"].items() if k.startswith("head:")}
    shown, asked = features_of(meta, support.inputs), features_of(meta, query.inputs)
    adapted = learner.adapt(meta, support)
    for place, new in enumerate(asked):
        sequence = [*zip(shown, support.targets, strict=True), (new, None)]
        wanted = santoro(weights, 7, 5, 2, 3, sequence)
        torch.testing.assert_close(adapted.state.guesses, wanted[:-1], rtol=1e-8, atol=1e-10)
        found = learner.predict(adapted, query.inputs[place : place + 1])
        torch.testing.assert_close(found[0], wanted[-1], rtol=1e-8, atol=1e-10)


def test_the_order_given_does_not_matter_as_it_is_read_in_one_of_its_own():
    """Published, episodes come in random order, and the order matters."""
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    order_changes_nothing(learner, meta, support, query.inputs)


@pytest.mark.parametrize("target", ["task", "sequence"])
def test_laws(target):
    genome = preset("mann", **SMALL, target=target)
    learner = learner_on(TASK, genome)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    padding_changes_nothing(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    grads = mapped_equals_looped(learner, drawn(TASK))
    assert all(value.abs().max() > 0 for value in grads.values()), "all is trained"
    packed_equals_single(TASK, genome)


def test_extremes():
    extremes(RULE)
    extremes(preset("mann", **SMALL, strength=20.0), ways=30)


def test_the_objective_is_the_mean_over_the_sequence():
    task = Points(shots=1)
    learner = learner_on(task, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(task), 0)
    found = learner.meta_loss(meta, support, query)
    with_task = learner_on(task, preset("mann", **SMALL, target="task"))
    assert with_task.meta_loss(meta, support, query).objective == found.loss
    state = (
        Embedded(learner.network, Mann(FEATURES, 3, 6, 7, 5, 2), task.loss, 3)
        .adapt(meta, support)
        .state
    )
    assert state.loss.isfinite() and not torch.allclose(found.objective, found.loss)


def test_fewer_ways_are_told_apart_and_more_are_refused():
    learner = learner_on(Points(ways=4), preset("mann", **SMALL, ways=5))
    meta = begin(learner, 0)
    assert not learner.traits.any_ways and learner.head.most == 5
    for ways in (2, 5):
        support, query = part_of(drawn(Points(ways=ways)), 0)
        assert predicted(learner, meta, support, query.inputs).shape == (2 * ways, ways)
    support, _ = part_of(drawn(Points(ways=6)), 0)
    with pytest.raises(ValueError, match="tells 5 classes apart.*has 6"):
        learner.adapt(meta, support)


def test_presentations_count_how_often_a_class_was_seen():
    """A network that says the label which it was told last."""
    labels = 3
    head = Mann(1, labels, 4, 5, 2, 1)
    learner = Embedded(Network(torch.nn.Linear(1, 1).double()), head, TASK.loss, labels)
    meta = begin(learner, 0)
    for name, value in meta["params"].items():
        meta["params"][name] = torch.zeros_like(value)
    cell = torch.zeros(1 + labels, 16).double()
    for label in range(labels):
        cell[1 + label, 8 + label] = 9.0  # proposes the label
    meta["params"]["head:cell.inputs"] = cell
    meta["params"]["head:cell.bias"] = torch.tensor([9.0] * 4 + [-9.0] * 4 + [0] * 4 + [9] * 4)
    meta["params"]["head:cell.bias"] = meta["params"]["head:cell.bias"].double()
    meta["params"]["head:out.weight"] = torch.eye(6, labels).double()
    targets = torch.tensor([0, 0, 1, 1, 1, 2, 0, 0])
    side = Batch(torch.zeros(8, 1).double(), targets)
    state = learner.adapt(meta, side).state
    assert state.guesses[1:].argmax(1).tolist() == targets[:-1].tolist()
    found = [float(each) for each in presentations(state, side)]
    # the first of 0 (a guess, of nothing), of 1 and of 2; the second of 0 and 1; ...
    assert found[0] == pytest.approx((state.guesses[0].argmax() == 0).double() / 3)
    assert found[1:] == [1.0, 0.5, 1.0]
    assert math.isclose(float(state.loss), float(F.cross_entropy(state.guesses, targets)))


@pytest.mark.parametrize(
    "genes",
    [{"width": 0}, {"rows": 2}, {"heads": 1.5}, {"strength": 0}, {"target": "all"}, {"ways": 1}],
)
def test_genes_that_have_no_such_value_are_refused(genes):
    with pytest.raises(ValueError, match="must"):
        learner_on(TASK, preset("mann", **{**SMALL, **genes}))


def test_values_are_no_classes():
    with pytest.raises(ValueError, match="memory-augmented networks need a task of classes"):
        learner_on(Sinusoid(), RULE, torch.nn.Linear(1, 4))
