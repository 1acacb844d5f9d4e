"""Fast weights against a plain loop, and their laws."""

import numpy as np
import pytest
import torch
from torch import nn

from evometa.evaluate import begin
from evometa.learner import Embedded, preset
from evometa.learner.delta import Delta
from evometa.learner.order import shuffled
from evometa.network import Network
from evometa.task import Sinusoid
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch
from tests.learner.points import (
    Points,
    drawn,
    embedding,
    extremes,
    finite,
    learner_on,
    mapped_equals_looped,
    moved,
    order_changes_nothing,
    packed_equals_single,
    padding_changes_nothing,
    permuting_ways_permutes,
    predicted,
    queries_do_not_see_each_other,
)

TASK, RULE = Points(), preset("delta-rule")


def reference(features, values, new, write):
    """Schlag et al. (2021), equation by equation, in numpy."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    memory = np.zeros((values.shape[1], features.shape[1]))
    for key, value in zip(unit, values, strict=True):
        memory += write * np.outer(value - memory @ key, key)
    return new / np.linalg.norm(new, axis=1, keepdims=True) @ memory.T


def test_it_is_the_published_recursion():
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    support = shuffled(support)  # the order in which it is read
    module = embedding()
    module.load_state_dict(meta["params"])
    with torch.no_grad():
        features, new = (module(side.inputs).numpy() for side in (support, query))
    learned = {name: float(value) for name, value in meta["learned"].items()}
    write = 2 / (1 + np.exp(-learned["write"]))
    read = reference(features, np.eye(3)[support.targets.numpy()], new, write)
    found = predicted(learner, meta, support, query.inputs)
    np.testing.assert_allclose(found, learned["scale"] * read + learned["shift"], rtol=1e-6)


def test_orthonormal_keys_are_associated_exactly():
    module = nn.Linear(5, 5, bias=False).double()
    torch.nn.init.orthogonal_(module.weight)
    learner = Embedded(Network(module), Delta(classes=False), Sinusoid().loss, None)
    values = torch.randn(4, 2, dtype=torch.float64)
    support = Batch(torch.eye(5, dtype=torch.float64)[:4], values)
    meta = begin(learner, 0)
    assert torch.allclose(predicted(learner, meta, support, support.inputs), values, atol=1e-10)
    order_changes_nothing(learner, meta, support, support.inputs)


def test_the_last_of_equal_keys_counts_most_and_no_other_order_matters():
    learner = learner_on(TASK, RULE)
    meta, side = begin(learner, 0), part_of(drawn(TASK).support, 0)
    same = side._replace(inputs=side.inputs[:1].expand_as(side.inputs))
    for last in range(3):
        order = torch.tensor([k for k in range(3) if k != last] + [last])
        told = same._replace(inputs=same.inputs[:3], targets=order)
        assert predicted(learner, meta, told, side.inputs[:1]).argmax() == last
    order_changes_nothing(learner, moved(learner), side, side.inputs)


@pytest.mark.parametrize("rule", ["delta", "hebbian"])
def test_laws(rule):
    genome = preset("delta-rule", rule=rule, write=0.7)
    learner = learner_on(TASK, genome)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    padding_changes_nothing(learner, meta, support, query.inputs)
    permuting_ways_permutes(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    grads = mapped_equals_looped(learner, drawn(TASK))
    assert {"learned.write", "learned.scale"} <= {k for k, v in grads.items() if v.abs().max() > 0}
    packed_equals_single(TASK, genome)
    extremes(genome)


def test_values_are_learned_as_well():
    task = Sinusoid(shots=5)
    module = nn.Sequential(nn.Linear(1, 8), nn.Tanh())  # in float32, as its waves
    finite(learner_on(task, RULE, module), drawn(task))


def test_the_order_in_which_it_is_read_says_nothing_of_the_labels():
    """Sorted labels would be learned."""
    task = Points(ways=5, shots=3)
    episodes = drawn(task, 30)
    sides = [shuffled(part_of(episodes.support, row)) for row in range(30)]
    orders = [tuple(side.targets.tolist()) for side in sides]
    assert len(set(orders)) == 30 and tuple(sorted(orders[0])) not in orders
    first = torch.tensor([order[0] for order in orders]).bincount(minlength=5)
    assert (first > 0).all(), "any label may come first"
    for row, side in enumerate(sides):
        given = part_of(episodes.support, row)
        pairs = {(*x.tolist(), int(y)) for x, y in zip(side.inputs, side.targets, strict=True)}
        assert pairs == {
            (*x.tolist(), int(y)) for x, y in zip(given.inputs, given.targets, strict=True)
        }
    mapped = torch.func.vmap(lambda x, y, c: shuffled(type(sides[0])(x, y, c)).targets)
    assert torch.equal(mapped(*episodes.support), torch.stack([s.targets for s in sides]))
    learner = learner_on(task, RULE)
    meta, (support, query) = moved(learner), part_of(episodes, 0)
    given = learner.meta_loss(meta, support, query).loss
    plain = task.loss(lambda x: predicted(learner, meta, support, x), query)
    torch.testing.assert_close(given, plain)


@pytest.mark.parametrize("genes", [{"rule": "oja"}, {"write": 2.0}, {"write": 0}, {"scale": 0}])
def test_genes_that_have_no_such_value_are_refused(genes):
    with pytest.raises(ValueError, match="must"):
        learner_on(TASK, preset("delta-rule", **genes))
