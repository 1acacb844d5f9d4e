"""Whose topic is a short text? A task, a way of learning and a measure of one's own.

A task draws episodes, any pytrees of tensors, and judges a learner on them: here a text is a dict
of words and their weights, and each topic has a favourite word. A way of learning is a `Family`:
a learner's five functions, and what a search needs to know of them. It is searched beside the
built-in ones. A measure is a metric that you take yourself: here the time to learn three topics.

    evometa search search_spaces/topics.py --executor serial
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import Family, MetaLoss, Traits, learner_space, preset
from evometa.metrics import Measure, Metric
from evometa.task import Batch, EpisodeBatch, split_seed


@dataclass(frozen=True)
class Topics:
    """Texts of eight words, three of which are the favourite of the text's topic."""

    ways: int = 3
    metrics: ClassVar = {"accuracy": "max", "query_loss": Metric("min", summary="median")}

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):  # every tensor begins with n
        stream = torch.Generator().manual_seed(split_seed(split, generator))
        topic = torch.arange(self.ways).repeat(n, 10)
        favourite = torch.rand(n, 100, generator=stream).argsort(1).gather(1, topic)
        words = torch.randint(100, (*topic.shape, 8), generator=stream)
        words[..., :3] = favourite.unsqueeze(-1)
        weights = torch.rand(words.shape, generator=stream)
        parts = slice(5 * self.ways), slice(5 * self.ways, None)
        return EpisodeBatch(
            *(Batch({"words": words[:, p], "weights": weights[:, p]}, topic[:, p]) for p in parts)
        )

    def loss(self, predict, side):
        return F.cross_entropy(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        logits = predict(side.inputs)
        accuracy = (logits.argmax(-1) == side.targets).float().mean()
        return {"accuracy": accuracy, "query_loss": F.cross_entropy(logits, side.targets)}

    def describe(self):
        return {"name": "Topics", "ways": self.ways}


@dataclass(frozen=True)
class Neighbours:
    """Predicts by the examples of the support, the nearer the more (Vinyals et al., 2016)."""

    network: Any
    task: Any
    sharpness: float

    @property
    def traits(self):
        return Traits(structure=f"neighbours {self.network.structure}")

    def init(self, generator):  # what is trained, what is fixed, what is carried along
        own = {"params": self.network.params, "buffers": self.network.buffers}
        learned = {"sharpness": torch.tensor(self.sharpness)}
        return {**own, "learned": learned, "constants": {}, "stage": {}}

    def adapt(self, meta, support):
        labels = torch.eye(self.task.ways, device=support.targets.device)[support.targets]
        return meta, self.features(meta, support.inputs), labels

    def trajectory(self, meta, support, steps=None):
        return [self.adapt(meta, support)]

    def predict(self, adapted, inputs):
        meta, examples, labels = adapted
        near = self.features(meta, inputs) @ examples.T * meta["learned"]["sharpness"]
        return (near.softmax(-1) @ labels + 1e-6).log()

    def meta_loss(self, meta, support, query):
        loss = self.task.loss(partial(self.predict, self.adapt(meta, support)), query)
        return MetaLoss(loss, loss, {})

    def features(self, meta, inputs):
        params, buffers = meta["params"], meta["buffers"]
        found, _ = self.network(params, buffers, inputs, norm="batch", training=False)
        return F.normalize(found, dim=-1)


neighbours = Family(
    name="neighbours",
    make=lambda genes, setting: Neighbours(setting.network, setting.task, **genes),
    space=lambda: s.Struct(sharpness=s.Float(1.0, 30.0, log=True)),
    formula=lambda genes, primitives: "class ← argmaxₖ Σ softmax(a · cos(f(x), f(xᵢ))) [yᵢ = k]",
)


class Bag(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.embed, self.head = nn.Embedding(100, width), nn.Linear(width, outputs)

    def forward(self, text):  # the dict, with its int64 words, as the task gives it
        return self.head((self.embed(text["words"]) * text["weights"].unsqueeze(-1)).mean(1))


def milliseconds(candidate):
    started = time.perf_counter()
    candidate.adapt()(candidate.inputs)
    return 1e3 * (time.perf_counter() - started)


study = Study(
    space=s.Struct(width=s.Int(8, 64), rule=learner_space(neighbours)),
    build=lambda genome: Bag(genome["width"], 3 if "gradient" in genome["rule"] else 16),
    task=Topics(),
    families=[neighbours],
    objectives={"accuracy": "max", "params": "min"},
    measures={"ms": Measure(milliseconds, "min")},
    baselines={"MAML": {"width": 32, "rule": {"gradient": preset("maml", rate=0.5)}}},
    training=Training(iterations=300, tasks=4, validation=100),
    candidates=60,
)
