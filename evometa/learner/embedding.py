"""A network as an embedding, with the batch-norm protocols of learners that adapt no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evometa.learner.protocol import MetaLoss, Tensors
from evometa.network import Network, Norm

MOMENTUM = 0.1  # of running batch-norm statistics, as PyTorch's own


@dataclass(frozen=True)
class Embedding:
    """A network whose outputs are features of an example.

    Attributes:
        network: the network; outputs of any shape are flattened.
        norm: batch-norm protocol. `"inductive"`: support and queries by the statistics of the
            support set; `"transductive"`: both by those of their own set; `"per-step"`: when
            scored, by running averages of meta-training, as published with prototypes.
        training: whether dropout and the like are active.
    """

    network: Network
    norm: str
    training: bool

    def support(self, params: Tensors, buffers: Tensors, inputs: Any) -> tuple[Tensor, Tensors]:
        """Return the features of a support set, `(examples, features)`, and the buffers after."""
        return self._embed(
            params, buffers, inputs, "record" if self.norm == "inductive" else self._new
        )

    def queries(self, params: Tensors, buffers: Tensors, inputs: Any) -> tuple[Tensor, Tensors]:
        """Return the features of new examples, `(examples, features)`, and the buffers after."""
        return self._embed(params, buffers, inputs, self._new)

    def told(self, objective: Tensor, loss: Tensor, buffers: Tensors) -> MetaLoss:
        """Return what an episode tells the outer loop, from its losses and the last buffers."""
        names = self.network.statistics if self.norm == "per-step" and self.training else ()
        return MetaLoss(objective, loss, {name: buffers[name] for name in names})

    @property
    def _new(self) -> Norm:
        if self.norm == "inductive":
            return "stored"
        if self.norm == "per-step":
            return "record" if self.training else "stored"
        return "batch"

    def _embed(
        self, params: Tensors, buffers: Tensors, inputs: Any, norm: Norm
    ) -> tuple[Tensor, Tensors]:
        own = {name: params[name] for name in self.network.params}
        outputs, seen = self.network(own, buffers, inputs, norm=norm, training=self.training)
        if self.norm == "per-step" and norm == "record":
            moved = {
                name: torch.lerp(
                    buffers[name], seen[name].detach().to(buffers[name].dtype), MOMENTUM
                )
                for name in self.network.statistics
            }
            seen = {**buffers, **moved}
        return outputs.flatten(1), seen


def is_embedding(outputs: Any, what: str) -> None:
    """Refuse a network whose outputs are no features.

    Args:
        outputs: of the network for one support set; None where they are not known.
        what: who needs features.

    Raises:
        ValueError: if it returns more than one tensor.
    """
    if outputs is not None and not isinstance(outputs, Tensor):
        raise ValueError(
            f"{what} need a network that returns one tensor, but it returns a "
            f"{type(outputs).__name__}"
        )
