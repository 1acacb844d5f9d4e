"""Conditional neural processes against a plain loop, and their laws."""

import pytest
import torch
from torch import nn

from evometa.evaluate import begin
from evometa.learner import Setting, make_learner, preset
from evometa.network import Network
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch
from tests.learner.laws import Waves, waves
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
from tests.learner.worlds import Navigate

TASK, VALUES = Points(), Waves(waves(12))
RULE = preset("cnp", width=6, depth=2, target="likelihood")


def network_of(meta, part):
    """The encoder or decoder as a module of torch."""
    found = {k[5:]: v for k, v in meta["params"].items() if k.startswith(f"head:{part}.")}
    layers = []
    for layer in range(len(found) // 2):
        weight = found[f"{part}.{layer}"]
        linear = nn.Linear(*weight.shape).double()
        linear.load_state_dict({"weight": weight.T, "bias": found[f"{part}.{layer}.bias"]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def known(meta, inputs):
    module = embedding(inputs.shape[-1])
    module.load_state_dict({name: meta["params"][name] for name in module.state_dict()})
    return module(inputs)


def test_values_are_decoded_beside_the_mean_code():
    learner = learner_on(VALUES, RULE)
    meta, (support, query) = moved(learner), part_of(waves(12), 0)
    encoder, decoder = network_of(meta, "encoder"), network_of(meta, "decoder")
    with torch.no_grad():
        pairs = zip(known(meta, support.inputs), support.targets, strict=True)
        code = sum(encoder(torch.cat(pair)) for pair in pairs) / len(support.targets)
        said = [decoder(torch.cat([new, code])) for new in known(meta, query.inputs)]
        mean = torch.stack([each[:1] for each in said])
        deviation = torch.stack([0.1 + 0.9 * nn.functional.softplus(each[1:]) for each in said])
        density = torch.distributions.Normal(mean, deviation).log_prob(query.targets)
    torch.testing.assert_close(predicted(learner, meta, support, query.inputs), mean)
    found = learner.meta_loss(meta, support, query)
    torch.testing.assert_close(found.objective, -density.mean())
    torch.testing.assert_close(found.loss, nn.functional.mse_loss(mean, query.targets))
    other = learner_on(VALUES, preset("cnp", width=6, depth=2, target="task"))
    assert other.meta_loss(meta, support, query).objective == found.loss


def test_classes_are_decoded_beside_the_mean_code_of_each():
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    encoder, decoder = network_of(meta, "encoder"), network_of(meta, "decoder")
    with torch.no_grad():
        shown, asked = known(meta, support.inputs), known(meta, query.inputs)
        codes = [encoder(shown[support.targets == label]).mean(0) for label in range(3)]
        wanted = [[decoder(torch.cat([new, code])) for code in codes] for new in asked]
        wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(predicted(learner, meta, support, query.inputs), wanted)


def test_laws_of_classes():
    learner = learner_on(TASK, RULE)
    meta, (support, query) = moved(learner), part_of(drawn(TASK), 0)
    for law in (order_changes_nothing, padding_changes_nothing, permuting_ways_permutes):
        law(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    mapped_equals_looped(learner, drawn(TASK))
    packed_equals_single(TASK, RULE)
    extremes(RULE)


def test_laws_of_values():
    learner = learner_on(VALUES, RULE)
    meta, (support, query) = moved(learner), part_of(waves(12), 0)
    order_changes_nothing(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    mapped_equals_looped(learner, waves())
    packed_equals_single(VALUES, RULE)
    one = waves()._replace(support=Batch(*(each[:, :1] for each in waves().support)))
    finite(learner, one)


def test_any_number_of_values():
    """The width of a target comes from the task."""
    pool = waves(12)
    wide = type(pool)(*(Batch(s.inputs, torch.cat([s.targets, s.targets], 2)) for s in pool))
    learner = learner_on(Waves(wide), RULE)
    support, query = part_of(wide, 0)
    assert predicted(learner, begin(learner, 0), support, query.inputs).shape == (6, 2)


def test_a_policy_has_no_targets():
    made = Setting(Network(nn.Linear(2, 2)), Navigate(), "inductive", torch.empty(4, 2))
    with pytest.raises(ValueError, match="need a support set with `targets`"):
        make_learner(RULE, made)


@pytest.mark.parametrize("genes", [{"width": 0}, {"depth": 0.5}, {"target": "mean"}])
def test_genes_that_have_no_such_value_are_refused(genes):
    with pytest.raises(ValueError, match="must"):
        learner_on(TASK, preset("cnp", **genes))
