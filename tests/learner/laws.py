"""Small learners and episodes in float64, and the meta-gradient by any plan."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from evometa.evaluate import VMAP, begin
from evometa.evaluate.pack import Layout, Pack
from evometa.evaluate.program import Program
from evometa.learner import Setting, make_learner, stage_at
from evometa.network import Network, mlp
from evometa.task.episodes import over, part_of
from evometa.task.protocol import Batch, EpisodeBatch

CPU = torch.device("cpu")


class Waves:
    """A task whose episodes are a fixed pool, in float64, so that a plain loop can use them too."""

    metrics: ClassVar = {"query_loss": "min"}

    def __init__(self, pool):
        self.pool = pool

    def episodes(self, split, n, generator):
        return part_of(self.pool, slice(n))

    def loss(self, predict, side):
        return F.mse_loss(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        return {"query_loss": self.loss(predict, side)}


def waves(tasks=4, examples=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tasks, examples, 1, generator=generator, dtype=torch.float64)
    y = torch.sin(x + torch.arange(tasks).view(1, -1, 1, 1))
    return EpisodeBatch(Batch(x[0], y[0]), Batch(x[1], y[1]))


def shapes(tasks=4, ways=3, shots=2, queries=2, seed=0):
    """Episodes of classes: points around a centre each, in the order of the labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(tasks, ways, 1, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(tasks, ways, shots + queries, 3, generator=generator, dtype=torch.float64)
    x = centres + 0.3 * noise
    labels = torch.arange(ways).view(1, -1, 1).expand(tasks, -1, shots + queries)
    return EpisodeBatch(
        Batch(x[:, :, :shots].flatten(1, 2), labels[:, :, :shots].flatten(1)),
        Batch(x[:, :, shots:].flatten(1, 2), labels[:, :, shots:].flatten(1)),
    )


def network(seed=0, activation="tanh"):
    torch.manual_seed(seed)
    return mlp(1, [8, 8], 1, activation).double()


def normed(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(1, 6, bias=False), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1)
    ).double()


def make(module, rule, norm="transductive"):
    return learner_of(rule, Network(module), Waves(None), norm)


def learner_of(rule, network, task, norm="transductive", outputs=None):
    return make_learner(rule, Setting(network, task, norm, outputs))


def packed(episodes, members=1):
    """Give episodes the axis `candidates`."""
    return over(lambda tensor: tensor.expand(members, *tensor.shape), episodes)


def grads_of(learner, episodes, plan=VMAP, progress=1.0):
    """Return the loss and the meta-gradient by name."""
    meta, stage = begin(learner, 0), stage_at(learner, learner.traits, progress)
    layout = Layout.of(meta)
    program = Program(stage.learner, layout, plan)
    found = program(Pack.of([meta], [0.0], CPU), stage.numbers, packed(episodes))
    parts = layout.unflatten(found.grads[0])
    grads = {f"{part}.{name}": v for part, values in parts.items() for name, v in values.items()}
    return float(found.losses[0]), grads


def assert_same(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance)


def assert_packed_equals_single(learners, episodes, **tolerance):
    """A pack of learners of equal structure gives each the meta-gradient that it has alone."""
    metas = [begin(learner, seed) for seed, learner in enumerate(learners)]
    layout, stage = Layout.of(metas[0]), stage_at(learners[0], learners[0].traits, 1.0)
    program = Program(stage.learner, layout, VMAP)
    together = program(Pack.of(metas, [0.0], CPU), stage.numbers, packed(episodes, len(metas)))
    for place, meta in enumerate(metas):
        alone = program(Pack.of([meta], [0.0], CPU), stage.numbers, packed(episodes))
        torch.testing.assert_close(together.grads[place], alone.grads[0], **tolerance)
