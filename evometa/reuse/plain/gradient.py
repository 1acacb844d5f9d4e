"""Adapt to a new task by gradient steps, with PyTorch alone.

learner = Learner()
adapted = learner.adapt(x, y)  # x of shape (examples, ...); y: classes 0, 1, ..., or values
adapted.predict(x_new)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from network import Network, Tensors
from rule import update
from torch import Tensor


class Learner:
    """The meta-trained network, and the rule that it adapts by.

    Args:
        folder: of the exported files.
        device: where to adapt.
    """

    def __init__(self, folder: Path | None = None, device: str = "cpu") -> None:
        self.network = Network(folder or Path(__file__).parent, device)
        self.facts = self.network.facts
        self.meta = self.network.meta

    def adapt(self, x: Tensor, y: Tensor, steps: int | None = None) -> Adapted:
        """Learn a task from labelled examples.

        Args:
            x: shape `(examples, ...)`.
            y: classes from 0, shape `(examples,)`; or values, shape `(examples, outputs)`.
            steps: inner steps; default as many as in meta-training.
        """
        x, y = self.network.inputs(x), self.network.targets(y)
        params, sizes = self.meta["params"], self.facts["sizes"]
        initial = vector = self._flat(params)
        memory: Any = None
        count = self.facts["steps"] if steps is None else steps
        for step in range(count):
            with torch.enable_grad():
                vector = vector.detach().requires_grad_()
                now = self._at_step({**params, **self._named(vector)}, step)
                outputs, _ = self._forward(now, self._buffers(step), x)
                loss = self._loss(outputs, y)
                (gradient,) = torch.autograd.grad(loss, vector)
            with torch.no_grad():
                vector, memory = update(
                    vector,
                    gradient,
                    initial,
                    self._rate(step),
                    loss.detach(),
                    step,
                    sizes,
                    memory=memory,
                    **self._extras(),
                )
        last = max(count - 1, 0)
        adapted = self._at_step({**params, **self._named(vector.detach())}, last)
        buffers = self._buffers(last)
        if self.facts["norm"] == "inductive" and self.facts["batch_norm"]:
            with torch.no_grad():  # queries are normalised by the statistics of the examples
                _, buffers = self.network(adapted, buffers, x, "record")
        classes = int(y.max()) + 1 if self.facts["classes"] else None
        return Adapted(self, adapted, buffers, classes)

    def _forward(self, params: Tensors, buffers: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        norm = "stored" if "record" not in self.facts["programs"] else "record"
        return self.network(params, buffers, x, norm)

    def _loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        name = self.facts["loss"]
        if name == "cross_entropy":
            return F.cross_entropy(outputs, y)
        if not y.is_floating_point():
            y = F.one_hot(y, outputs.shape[-1]).to(outputs.dtype)
        return F.huber_loss(outputs, y) if name == "huber" else F.mse_loss(outputs, y.to(outputs))

    def _rate(self, step: int) -> Tensor:
        """Return one rate, one a layer, or one a weight."""
        learned, kind = self.meta["learned"], self.facts["rates"]
        if kind == "fixed":
            return self.meta["constants"]["rate"]
        if kind == "shared":
            return learned["rate"]
        if kind == "parameter":
            return self._flat(learned)
        rows = [learned[layer] for layer in self.facts["layers"]]
        if kind == "layer-step":
            rows = [row[min(step, self.facts["steps"] - 1)] for row in rows]
        return torch.stack(rows)

    def _extras(self) -> dict[str, Any]:
        learned = self.meta["learned"]
        extras: dict[str, Any] = {
            name: self._flat({n: learned[f"{name}:{n}"] for n in self.facts["adapting"]})
            for name in self.facts["extras"]
        }
        if "update:constants" in learned:
            extras["constants"] = learned["update:constants"]
        return extras

    def _at_step(self, params: Tensors, step: int) -> Tensors:
        """Put a step's own batch-norm weights and biases among the parameters."""
        at = min(step, self.facts["steps"] - 1)
        own = {
            name.removeprefix("norm:"): value[at]
            for name, value in self.meta["learned"].items()
            if name.startswith("norm:")
        }
        return {**params, **own}

    def _buffers(self, step: int) -> Tensors:
        """Return the buffers, with a step's own batch-norm statistics among them."""
        buffers = dict(self.meta["buffers"])
        for name in self.facts["statistics"] if self.facts["norm"] == "per-step" else ():
            buffers[name] = buffers[name][min(step, self.facts["steps"] - 1)]
        return buffers

    def _flat(self, tensors: Tensors) -> Tensor:
        return torch.cat([tensors[name].reshape(-1) for name in self.facts["adapting"]])

    def _named(self, vector: Tensor) -> Tensors:
        params = {name: self.meta["params"][name] for name in self.facts["adapting"]}
        pieces = vector.split([value.numel() for value in params.values()])
        shapes = zip(params.items(), pieces, strict=True)
        return {name: piece.view(value.shape) for (name, value), piece in shapes}


@dataclass(frozen=True)
class Adapted:
    """A network that has seen the examples of a task."""

    learner: Learner
    params: Tensors
    buffers: Tensors
    classes: int | None

    def outputs(self, x: Tensor) -> Tensor:
        """Return logits of the classes that were seen, or values; shape `(examples, ...)`."""
        facts, network = self.learner.facts, self.learner.network
        stored = facts["norm"] != "transductive" and facts["batch_norm"]
        norm = "stored" if stored else "record"
        with torch.no_grad():
            found = network(self.params, self.buffers, network.inputs(x), norm)[0]
        return found[:, : self.classes]  # classes that the examples did not have are none

    def predict(self, x: Tensor) -> Tensor:
        """Return the likeliest class of each input, or its values."""
        outputs = self.outputs(x)
        return outputs.argmax(-1) if self.learner.facts["classes"] else outputs
