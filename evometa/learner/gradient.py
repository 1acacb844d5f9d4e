"""The gradient family: adapt by a few steps of a learning rule (MAML; Finn et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor
from torch.func import grad

from evometa.learner.protocol import Examples, Meta
from evometa.network import Network, Norm, Tensors
from evometa.rule import Rule

Loss = Callable[[Tensor, Tensor], Tensor]
Scores = Callable[[Tensor, Tensor], dict[str, Tensor]]


class AdaptedNetwork(NamedTuple):
    """A network after the inner loop."""

    params: Tensors
    buffers: Tensors


@dataclass(frozen=True)
class GradientLearner:
    """Adapts by `rule.steps` updates on the support loss.

    Attributes:
        network: the network as a function.
        rule: the update.
        loss: mean loss of one episode's predictions and targets.
        scores: metrics of one episode's predictions and targets.
        norm: batch-norm protocol of the queries. `"transductive"`: statistics of the whole query
            set, as in the published MAML code. `"inductive"`: statistics of the support set under
            the adapted parameters, so that no query sees another.
        training: whether dropout and the like are active.
    """

    network: Network
    rule: Rule
    loss: Loss
    scores: Scores
    norm: str = "transductive"
    training: bool = True

    def evaluating(self) -> GradientLearner:
        """Return the same learner with dropout and the like switched off."""
        return replace(self, training=False)

    def init(self) -> Meta:
        """Return initial parameters, learned rates and buffers."""
        params = self.network.params
        adapting = {name: params[name] for name in self.rule.adapting(list(params))}
        return {
            "params": params,
            "learned": self.rule.learned(adapting),
            "buffers": self.network.buffers,
        }

    def adapt(self, meta: Meta, support: Examples) -> AdaptedNetwork:
        """Run the inner loop on one support set."""
        *_, params = self._inner_loop(meta, support, self.rule.steps)
        return self._ready(params, meta["buffers"], support[0])

    def trajectory(self, meta: Meta, support: Examples, steps: int) -> list[AdaptedNetwork]:
        """Run `steps` inner steps; return the network before the first and after each."""
        return [
            self._ready(params, meta["buffers"], support[0])
            for params in self._inner_loop(meta, support, steps)
        ]

    def predict(self, adapted: AdaptedNetwork, inputs: Tensor) -> Tensor:
        """Predict one episode's queries."""
        norm: Norm = "batch" if self.norm == "transductive" else "stored"
        return self._forward(adapted.params, adapted.buffers, inputs, norm)[0]

    def meta_loss(
        self, meta: Meta, support: Examples, query: Examples
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Adapt to the support set; return the query loss and the scores, all scalars."""
        predictions = self.predict(self.adapt(meta, support), query[0])
        return self.loss(predictions, query[1]), self.scores(predictions, query[1])

    def _inner_loop(self, meta: Meta, support: Examples, steps: int) -> Iterator[Tensors]:
        inputs, targets = support
        fixed, buffers = meta["params"], meta["buffers"]

        def support_loss(adapting: Tensors) -> Tensor:
            outputs, _ = self._forward({**fixed, **adapting}, buffers, inputs, "batch")
            return self.loss(outputs, targets)

        params = {name: fixed[name] for name in self.rule.adapting(list(fixed))}
        state = self.rule.init(params, meta["learned"])
        yield fixed
        for step in range(steps):
            grads = grad(support_loss)(params)
            if self.rule.order == 1:
                grads = {name: g.detach() for name, g in grads.items()}
            params, state = self.rule.update(grads, state, params, step)
            yield {**fixed, **params}

    def _ready(self, params: Tensors, buffers: Tensors, inputs: Tensor) -> AdaptedNetwork:
        if self.norm == "inductive" and self.network.has_batch_norm:
            _, buffers = self._forward(params, buffers, inputs, "record")
        return AdaptedNetwork(params, buffers)

    def _forward(
        self, params: Tensors, buffers: Tensors, inputs: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensors]:
        return self.network(params, buffers, inputs, norm=norm, training=self.training)
