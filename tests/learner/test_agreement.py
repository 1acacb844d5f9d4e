"""What a learner is trained on is what it does: its loss is that of what it predicts."""

import pytest
import torch
from torch import nn

from evometa.evaluate import begin
from evometa.learner import FAMILIES, PRESETS, preset, stage_at
from evometa.learner.order import shuffled
from evometa.learner.protocol import predictor
from evometa.network import Network
from evometa.task.episodes import joined, part_of
from tests.evaluate.test_presets import Points
from tests.learner.laws import Waves, learner_of, normed, shapes, waves

# Reptile is trained on weights that have seen the queries too
GRADIENT = [name for name in FAMILIES["gradient"].presets if "reptile" not in name]
# transfer is trained on all classes at once, and tells the loss of that
SPECIAL = {*FAMILIES["gradient"].presets, *FAMILIES["transfer"].presets}
OTHERS = [name for name in PRESETS if name not in SPECIAL]


def embedding(outputs=4):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(3, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, outputs)
    ).double()


def losses(learner, task, episodes):
    """Return the loss of meta-training, and that of predicting after adaptation."""
    support, query = part_of(episodes, 0)
    support = shuffled(support)  # as meta-training does where the order matters
    meta = begin(learner, 0)
    stage = stage_at(learner, learner.traits, 1.0)
    meta = {**meta, "stage": stage.numbers}
    told = stage.learner.meta_loss(meta, support, query).loss
    return told, task.loss(predictor(learner, learner.adapt(meta, support)), query)


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("norm", ["inductive", "transductive"])
@pytest.mark.parametrize("support", ["all", {"batches": 3}, {"stream": 3}], ids=str)
def test_the_loss_of_a_rule_is_that_of_its_predictions(name, norm, support):
    changes = {"multi_step": 0.0} if support != "all" and name == "maml++" else {}
    genome = preset(name, steps=2, rate=0.1, support=support, **changes)
    classes = "head" in genome
    if isinstance(support, dict) and "stream" in support and (classes or name == "imaml"):
        with pytest.raises(ValueError, match="stream"):
            learner_of(genome, Network(normed()), Points(None), norm)
        return
    task, episodes = (Points(None), shapes(1)) if classes else (Waves(None), waves(1))
    network = Network(embedding(3) if classes else normed())
    told, found = losses(learner_of(genome, network, task, norm), task, episodes)
    torch.testing.assert_close(told, found, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("norm", ["inductive", "transductive"])
def test_the_loss_of_another_family_is_that_of_its_predictions(name, norm):
    genome = preset(name)
    (genes,) = genome.values()
    genome = preset(name, ways=3) if "ways" in genes else genome
    task = Points(None)
    outputs = torch.empty(3, 4, dtype=torch.float64, device="meta")
    learner = learner_of(genome, Network(embedding()), task, norm, outputs)
    told, found = losses(learner, task, shapes(1))
    torch.testing.assert_close(told, found, rtol=1e-10, atol=1e-12)


def test_the_loss_of_reptile_is_that_of_weights_that_have_seen_all():
    task, episodes = Waves(None), waves(1)
    learner = learner_of(preset("reptile", steps=2, rate=0.1), Network(normed()), task)
    support, query = part_of(episodes, 0)
    adapted = learner.adapt(begin(learner, 0), joined(support, query))
    told, _ = losses(learner, task, episodes)
    torch.testing.assert_close(told, task.loss(predictor(learner, adapted), query))
