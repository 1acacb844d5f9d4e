"""A task of classes whose episodes say what they are of, and laws that hold for every family."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from evometa.evaluate import LOOP, VMAP, Trainer, begin
from evometa.learner import Setting, make_learner
from evometa.network import Network
from evometa.study import Training
from evometa.task.episodes import part_of
from evometa.task.protocol import IGNORED, ClassBatch, EpisodeBatch
from tests.learner.laws import CPU, assert_same, grads_of

FEATURES = 4


@dataclass(frozen=True)
class Points:
    """Points around a centre for each class, in float64."""

    ways: int | tuple[int, int] = 3
    shots: int = 2
    queries: int = 2
    total: int = 70
    metrics: ClassVar = {"accuracy": "max", "query_loss": "min"}

    def available(self, split):
        return self.total

    def episodes(self, split, n, generator):
        ways = self.ways if isinstance(self.ways, int) else self.ways[1]
        centres = torch.randn(self.total, 3, generator=torch.Generator().manual_seed(5)) * 2
        classes = torch.stack(
            [torch.randperm(self.total, generator=generator)[:ways] for _ in range(n)]
        )
        count = self.shots + self.queries
        noise = torch.randn(n, ways, count, 3, generator=generator)
        x = (centres[classes].unsqueeze(2) + 0.3 * noise).double()
        labels = torch.arange(ways).view(1, -1, 1).expand(n, -1, count)
        k = self.shots
        return EpisodeBatch(
            ClassBatch(x[:, :, :k].flatten(1, 2), labels[:, :, :k].flatten(1), classes),
            ClassBatch(x[:, :, k:].flatten(1, 2), labels[:, :, k:].flatten(1), classes),
        )

    def loss(self, predict, side):
        return F.cross_entropy(predict(side.inputs), side.targets, ignore_index=IGNORED)

    def scores(self, predict, side):
        right = (predict(side.inputs).argmax(-1) == side.targets).double()
        return {"accuracy": right.mean(), "query_loss": self.loss(predict, side)}


def embedding(inputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, FEATURES)).double()


def setting(task, module=None, norm="inductive"):
    inputs = part_of(drawn(task, 1).support, 0).inputs
    module = module or embedding(inputs.shape[-1])
    return Setting(Network(module), task, norm, module(inputs).to("meta"))


def learner_on(task, rule, module=None, norm="inductive"):
    return make_learner(rule, setting(task, module, norm))


def drawn(task, n=4, seed=0, split="meta-train"):
    return task.episodes(split, n, torch.Generator().manual_seed(seed))


def moved(learner, seed=0, by=0.2):
    """Meta-parameters that are not where they begin, so that no number is special."""
    meta = begin(learner, seed)
    generator = torch.Generator().manual_seed(seed)
    for part in ("params", "learned"):
        for name, value in meta[part].items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            meta[part][name] = value + by * noise
    return meta


def predicted(learner, meta, support, inputs):
    return learner.predict(learner.adapt(meta, support), inputs)


def mapped_equals_looped(learner, episodes):
    _, loop = grads_of(learner, episodes, LOOP)
    _, vmap = grads_of(learner, episodes, VMAP)
    assert_same(vmap, loop, rtol=1e-8, atol=1e-11)
    return loop


def packed_equals_single(task, rule, iterations=3):
    """Two candidates of unlike weights, trained in a pack and each alone."""
    inputs = drawn(task, 1).support.inputs.shape[-1]
    learners = [learner_on(task, rule, embedding(inputs, seed)) for seed in (0, 1)]
    training = Training(iterations=iterations, tasks=3, validation=1)

    def trained(members, seeds):
        trainer = Trainer(members, task, training, seeds=seeds, plan=VMAP, device=CPU)
        trainer.run()
        return [result.meta for result in trainer.results()]

    together = trained(learners, [3, 4])
    for index, seed in enumerate((3, 4)):
        (alone,) = trained(learners[index : index + 1], [seed])
        for part in ("params", "learned"):
            assert_same(together[index][part], alone[part], rtol=1e-7, atol=1e-10)


def finite(learner, episodes):
    loss, grads = grads_of(learner, episodes, VMAP)
    assert math.isfinite(loss)
    assert all(bool(value.isfinite().all()) for value in grads.values())


def extremes(rule, ways=60):
    """Equal examples, one shot, many ways, a class without examples."""
    task = Points(ways=ways, shots=1, queries=1)
    learner, episodes = learner_on(task, rule), drawn(task, 2)
    finite(learner, episodes)
    same = episodes.support.inputs[:, :1].expand_as(episodes.support.inputs)
    finite(learner, episodes._replace(support=episodes.support._replace(inputs=same)))
    zero = episodes.support._replace(inputs=torch.zeros_like(same))
    finite(learner, episodes._replace(support=zero))
    small = Points(shots=2)
    learner, episodes = learner_on(small, rule), drawn(small, 2)
    missing = episodes.support._replace(targets=episodes.support.targets.clamp(max=1))
    finite(learner, episodes._replace(support=missing))
    side, query = part_of(missing, 0), part_of(episodes.query, 0)
    outputs = predicted(learner, begin(learner, 0), side, query.inputs)
    assert outputs.isfinite().all() and 2 not in outputs.argmax(-1)


def padding_changes_nothing(learner, meta, support, inputs):
    """Examples that are marked as padding, at the end and in between."""
    wanted = predicted(learner, meta, support, inputs)
    order = torch.tensor([0, 0, *range(1, len(support.targets)), 1])
    targets = support.targets[order]
    targets[1] = targets[-1] = IGNORED
    padded = support._replace(inputs=support.inputs[order], targets=targets)
    torch.testing.assert_close(predicted(learner, meta, padded, inputs), wanted)


def order_changes_nothing(learner, meta, support, inputs):
    order = torch.randperm(len(support.targets), generator=torch.Generator().manual_seed(1))
    other = support._replace(inputs=support.inputs[order], targets=support.targets[order])
    torch.testing.assert_close(
        predicted(learner, meta, other, inputs), predicted(learner, meta, support, inputs)
    )


def permuting_ways_permutes(learner, meta, support, inputs):
    order = torch.tensor([2, 0, 1])
    relabelled = support._replace(targets=order[support.targets])
    torch.testing.assert_close(
        predicted(learner, meta, support, inputs),
        predicted(learner, meta, relabelled, inputs)[:, order],
    )


def queries_do_not_see_each_other(learner, meta, support, inputs):
    together = predicted(learner, meta, support, inputs)
    alone = [predicted(learner, meta, support, each[None]) for each in inputs]
    torch.testing.assert_close(torch.cat(alone), together)
