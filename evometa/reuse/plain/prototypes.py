"""Adapt to a new task by the means of its classes, with PyTorch alone.

learner = Learner()
adapted = learner.adapt(x, y)  # x of shape (examples, ...); y: classes 0, 1, ...
adapted.predict(x_new)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from network import Network, Tensors
from torch import Tensor


class Learner:
    """The meta-trained embedding.

    Args:
        folder: of the exported files.
        device: where to adapt.
    """

    def __init__(self, folder: Path | None = None, device: str = "cpu") -> None:
        self.network = Network(folder or Path(__file__).parent, device)
        self.facts = self.network.facts
        self.meta = self.network.meta

    @torch.no_grad()
    def adapt(self, x: Tensor, y: Tensor, steps: int | None = None) -> Adapted:
        """Learn a task from labelled examples.

        Args:
            x: shape `(examples, ...)`.
            y: classes from 0, shape `(examples,)`; there must be an example of each.
            steps: there are none; it is here for other learners.
        """
        del steps
        y = self.network.targets(y)
        norm = "stored" if "record" not in self.facts["programs"] else "record"
        outputs, after = self.network(
            self.meta["params"], self.meta["buffers"], self.network.inputs(x), norm
        )
        features = outputs.flatten(1)
        members = F.one_hot(y).T.to(features.dtype)
        if not members.any(1).all():
            raise ValueError(f"there must be an example of each class from 0, got {y.tolist()}")
        prototypes = members @ features / members.sum(1, keepdim=True)
        buffers = after if self.facts["norm"] == "inductive" else self.meta["buffers"]
        return Adapted(self, prototypes, buffers)


@dataclass(frozen=True)
class Adapted:
    """The mean of each class, shape `(classes, features)`."""

    learner: Learner
    prototypes: Tensor
    buffers: Tensors

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """Return logits: how similar an input is to each class, shape `(examples, classes)`."""
        learner, facts = self.learner, self.learner.facts
        stored = facts["norm"] != "transductive" and facts["batch_norm"]
        outputs, _ = learner.network(
            learner.meta["params"],
            self.buffers,
            learner.network.inputs(x),
            "stored" if stored else "record",
        )
        features = outputs.flatten(1)
        if facts["distance"] == "cosine":
            similar = F.normalize(features, dim=-1) @ F.normalize(self.prototypes, dim=-1).T
        else:
            similar = -(features.unsqueeze(1) - self.prototypes).square().sum(-1)
        return {**learner.meta["learned"], **learner.meta["constants"]}["scale"] * similar

    def predict(self, x: Tensor) -> Tensor:
        """Return the likeliest class of each input."""
        return self.outputs(x).argmax(-1)
