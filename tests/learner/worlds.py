"""Tasks of unlike kinds for the laws of the contract: worlds, dicts, tokens."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from evometa.task import Batch, EpisodeBatch, split_seed

HORIZON, NOISE = 6, 0.1


def stream(split, generator):
    return torch.Generator().manual_seed(split_seed(split, generator))


@dataclass(frozen=True)
class Navigate:
    """A point walks to a hidden goal; the side holds the goal and the noise of all steps."""

    rollouts: int = 8
    metrics: ClassVar = {"return": "max"}
    surrogate: ClassVar = True

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):
        own, k = stream(split, generator), 2 * self.rollouts
        goal = (torch.rand(n, 1, 2, generator=own) - 0.5).expand(n, k, 2)
        noise = torch.randn(n, k, HORIZON, 2, generator=own)
        sides = ({"goal": goal[:, i::2], "noise": noise[:, i::2]} for i in range(2))
        return EpisodeBatch(*sides)

    def rolled(self, policy, side):
        at = torch.zeros_like(side["goal"])
        log_probability = gain = 0.0
        for step in range(HORIZON):
            mean = policy(at)
            action = (mean + NOISE * side["noise"][:, step]).detach()
            log_probability = log_probability - ((action - mean) ** 2).sum(-1) / (2 * NOISE**2)
            at = at + action.clamp(-0.2, 0.2)
            gain = gain - ((at - side["goal"]) ** 2).sum(-1)
        return log_probability, gain

    def loss(self, policy, side):
        log_probability, gain = self.rolled(policy, side)
        return -(log_probability * (gain - gain.mean()).detach()).mean()

    def scores(self, policy, side):
        return {"return": self.rolled(policy, side)[1].mean()}

    def describe(self):
        return {"name": "Navigate"}


@dataclass(frozen=True)
class Outside(Navigate):
    """The same in a simulator outside of PyTorch."""

    mappable: ClassVar = False

    def rolled(self, policy, side):
        at, goal = np.zeros(side["goal"].shape, np.float32), side["goal"].numpy()
        seen, actions, gain = [], [], np.zeros(len(goal), np.float32)
        with torch.no_grad():  # the simulator acts; what it did is judged below
            for step in range(HORIZON):
                seen.append(torch.from_numpy(at.copy()))
                action = policy(seen[-1]) + NOISE * side["noise"][:, step]
                actions.append(action)
                at = at + action.numpy().clip(-0.2, 0.2)
                gain -= ((at - goal) ** 2).sum(-1)
        means = policy(torch.cat(seen)).unflatten(0, (HORIZON, -1))
        distance = (torch.stack(actions) - means).square().sum(-1)
        return -(distance / (2 * NOISE**2)).sum(0), torch.from_numpy(gain)


@dataclass(frozen=True)
class Waves:
    """Sine waves whose inputs are a tensor, or a dict with a part that does not matter."""

    keyed: bool = False
    metrics: ClassVar = {"query_loss": "min"}

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):
        own = stream(split, generator)
        x = torch.rand(n, 12, 1, generator=own) * 4 - 2
        y = torch.sin(x + torch.rand(n, 1, 1, generator=own) * 3)
        tokens = torch.randint(5, (n, 12), generator=own)
        inputs = {"x": x, "tokens": tokens} if self.keyed else x
        parts = ([tree[:, :6], tree[:, 6:]] for tree in (x, y, tokens))
        (x1, x2), (y1, y2), (t1, t2) = parts
        if self.keyed:
            return EpisodeBatch(
                Batch({"x": x1, "tokens": t1}, y1), Batch({"x": x2, "tokens": t2}, y2)
            )
        del inputs
        return EpisodeBatch(Batch(x1, y1), Batch(x2, y2))

    def loss(self, predict, side):
        return F.mse_loss(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        return {"query_loss": self.loss(predict, side)}

    def describe(self):
        return {"name": "Waves", "keyed": self.keyed}


@dataclass(frozen=True)
class Words:
    """Which of three kinds of token stands first in a sequence of whole numbers?"""

    ways: int = 3
    shots: int = 2
    metrics: ClassVar = {"accuracy": "max", "query_loss": "min"}

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):
        own = stream(split, generator)
        kinds = torch.stack([torch.randperm(9, generator=own)[:3] for _ in range(n)])
        labels = torch.arange(3).repeat(self.shots + 2).expand(n, -1)
        tokens = torch.randint(9, (n, labels.shape[1], 5), generator=own)
        tokens[:, :, 0] = kinds.gather(1, labels)
        cut = 3 * self.shots
        first, second = ([tree[:, :cut], tree[:, cut:]] for tree in (tokens, labels))
        return EpisodeBatch(Batch(first[0], second[0]), Batch(first[1], second[1]))

    def loss(self, predict, side):
        return F.cross_entropy(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        logits = predict(side.inputs)
        right = (logits.argmax(-1) == side.targets).float().mean()
        return {"accuracy": right, "query_loss": F.cross_entropy(logits, side.targets)}

    def describe(self):
        return {"name": "Words"}
