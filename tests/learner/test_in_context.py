"""The in-context learner against a plain transformer with random label codes, and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from evometa.evaluate import begin
from evometa.learner import preset
from evometa.task import Sinusoid
from evometa.task.episodes import part_of
from tests.learner.points import (
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
    permuting_ways_permutes,
    predicted,
    queries_do_not_see_each_other,
)

TASK = Points()
WIDTH, HEADS, DEPTH = 8, 2, 2
RULE = preset("in-context", width=WIDTH, heads=HEADS, depth=DEPTH, ways=3)


def transformer(weights, scale, shown, labels, new, codes):
    """One query beside the support set, token by token; codes are rows of orthonormal vectors."""
    tokens = [*shown, new]
    content = [token @ weights["embed"] for token in tokens]
    code = [codes[label] for label in labels] + [torch.zeros_like(codes[0])]
    size = WIDTH // HEADS
    for layer in range(DEPTH):
        own = {
            name.split(".", 1)[1]: value
            for name, value in weights.items()
            if name.startswith(f"{layer}.")
        }
        normed = [F.layer_norm(each, (WIDTH,)) for each in content]
        after, code_after = [], []
        for token in range(len(tokens)):
            reads, told = [], code[token]
            for head in range(HEADS):
                part = slice(head * size, (head + 1) * size)
                query = (normed[token] @ own["query"])[part]
                scores = torch.stack(
                    [
                        query @ (normed[other] @ own["key"])[part] / math.sqrt(size)
                        + own["agreement"][head] * (code[token] @ code[other])
                        for other in range(len(shown))  # of the query, nobody sees anything
                    ]
                ).softmax(0)
                values = [(normed[other] @ own["value"])[part] for other in range(len(shown))]
                reads.append(sum(s * v for s, v in zip(scores, values, strict=True)))
                mixed = sum(s * c for s, c in zip(scores, code[:-1], strict=True))
                told = told + own["code"][head] * mixed
            moved_on = content[token] + torch.cat(reads) @ own["out"]
            hidden = F.layer_norm(moved_on, (WIDTH,)) @ own["perceptron.0"]
            hidden = F.relu(hidden + own["perceptron.0.bias"])
            after.append(moved_on + hidden @ own["perceptron.1"] + own["perceptron.1.bias"])
            code_after.append(told)
        content, code = after, code_after
    return scale * codes @ code[-1]


@pytest.mark.parametrize("dimension", [3, 11])
def test_whichever_codes_were_drawn_it_is_a_transformer_with_these(dimension):
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    generator = torch.Generator().manual_seed(dimension)
    square = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    codes = torch.linalg.qr(square).Q[:3]
    module = embedding()
    module.load_state_dict({name: meta["params"][name] for name in module.state_dict()})
    weights = {k[5:]: v for k, v in meta["params"].items() if k.startswith("head:")}
    found = predicted(learner, meta, support, query.inputs)
    with torch.no_grad():
        shown, asked = module(support.inputs), module(query.inputs)
        scale = meta["learned"]["scale"]
        for place, new in enumerate(asked):
            wanted = transformer(weights, scale, shown, support.targets, new, codes)
            torch.testing.assert_close(found[place], wanted, rtol=1e-8, atol=1e-10)


def test_laws():
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    for law in (order_changes_nothing, padding_changes_nothing, permuting_ways_permutes):
        law(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    grads = mapped_equals_looped(learner, drawn(TASK))
    unused = {key for key, value in grads.items() if value.abs().max() == 0}
    last = f"params.head:{DEPTH - 1}."  # its content is of no more use
    assert all(key.startswith(last) for key in unused), "all else is trained"
    packed_equals_single(TASK, RULE)


def test_extremes():
    extremes(RULE)


def test_any_number_of_ways():
    learner = learner_on(Points(ways=5), preset("in-context", ways=5))
    meta = begin(learner, 0)
    for ways in (2, 60):
        support, query = part_of(drawn(Points(ways=ways, shots=1)), 0)
        assert predicted(learner, meta, support, query.inputs).shape == (2 * ways, ways)


def test_values_are_no_classes():
    with pytest.raises(ValueError, match="in-context learners need a task of classes"):
        learner_on(Sinusoid(), RULE, torch.nn.Linear(1, 4))


@pytest.mark.parametrize("genes", [{"heads": 3}, {"depth": 0}, {"width": 8.0}])
def test_genes_that_have_no_such_value_are_refused(genes):
    with pytest.raises(ValueError, match="must"):
        learner_on(TASK, preset("in-context", **genes))
