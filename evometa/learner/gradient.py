"""The gradient family: adapt by a few steps of a learning rule (MAML; Finn et al., 2017)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from evometa.learner.losses import inner_loss
from evometa.learner.protocol import Examples, Learner, Loss, Meta, MetaLoss, Stage, Tensors
from evometa.network import Network, Norm
from evometa.rule import MixedRule, Outer, Rule

MOMENTUM = 0.1  # of per-step batch-norm statistics, as PyTorch's own running averages
STEP_LOSS_FLOOR = 0.03  # MAML++: least weight of an early step's loss, over the number of steps


class AdaptedNetwork(NamedTuple):
    """A network at a point of the inner loop."""

    params: Tensors
    buffers: Tensors


@dataclass(frozen=True)
class GradientLearner:
    """Adapts by `rule.steps` updates on the support loss.

    Attributes:
        network: the network as a function.
        rule: the update, and which parts of MAML++ are in use.
        loss: mean loss of one episode's predictions and targets.
        norm: batch-norm protocol. `"transductive"`: queries are normalised by the statistics of
            the whole query set, as in the published MAML code. `"inductive"`: by those of the
            support set under the adapted parameters, so that no query sees another. `"per-step"`:
            when scored, support and query by running averages of meta-training, one set a step
            (Antoniou et al., 2019).
        training: whether dropout and the like are active.
        mapped: whether the functions are called within `vmap`.
        order: order of derivative; None for the rule's own.
        all_steps: whether the losses after all steps count, weighed by `stage`.
    """

    network: Network
    rule: Rule
    loss: Loss
    norm: str = "transductive"
    training: bool = True
    mapped: bool = True
    order: int | None = None
    all_steps: bool = False

    @property
    def structure(self) -> str:
        """Text that is equal for learners which differ only in numbers."""
        return f"gradient\n{self.network.structure}\n{self.rule.structure}\n{self.norm}"

    @property
    def steps(self) -> int:
        """Inner steps in meta-training."""
        return self.rule.steps

    @property
    def kin(self) -> str:
        """Text that is equal for learners which differ in numbers and in their rules' updates."""
        return f"gradient\n{self.network.structure}\n{self.rule.frame}\n{self.norm}"

    @property
    def alone(self) -> GradientLearner:
        """The learner without those that it shares a pack with."""
        return replace(self, rule=self.rule.alone)

    def together(self, learners: Sequence[Any]) -> list[Learner]:
        """Return learners of equal `kin` as learners of equal structure."""
        rules = tuple(learner.rule for learner in learners)
        return [
            replace(learner, rule=MixedRule(rules, place)) for place, learner in enumerate(learners)
        ]

    @property
    def outer(self) -> Outer:
        """How the outer loop trains it."""
        return self.rule.outer

    @property
    def second_order(self) -> bool:
        """Whether the rule ever differentiates through the inner gradient."""
        return self.rule.order_at(1.0) == 2

    def first_order(self) -> GradientLearner:
        """Return the same learner with a first-order rule."""
        return replace(self, rule=self.rule.first_order())

    def training_task(self, task: Any) -> Any:
        """Return the task itself."""
        return task

    def prepared(self, *, training: bool, mapped: bool) -> GradientLearner:
        """Return the same learner for meta-training or scoring, mapped by `vmap` or not."""
        return replace(self, training=training, mapped=mapped)

    def at(self, progress: float) -> Stage:
        """Return order of derivative and weights of the steps' losses at a point of the training.

        The weights move from equal ones to the last step's alone, as published with MAML++.
        """
        order = self.rule.order_at(progress)
        all_steps = progress < self.rule.multi_step
        numbers: Tensors = {}
        if all_steps:
            done, n = progress / self.rule.multi_step, self.rule.steps
            early = max((1 - done) / n, STEP_LOSS_FLOOR / n)
            last = min((1 + done * (n - 1)) / n, 1 - (n - 1) * STEP_LOSS_FLOOR / n)
            some = next(iter(self.network.params.values()))
            numbers["weights"] = some.new_tensor([early] * (n - 1) + [last])
        learner = replace(self, order=order, all_steps=all_steps)
        return Stage(f"order {order}{', all steps' if all_steps else ''}", learner, numbers)

    def init(self) -> dict[str, Tensors]:
        """Return initial parameters, learned rates, constants and buffers."""
        network, steps = self.network, self.rule.steps
        own = network.affine if self.rule.affine == "step" else ()
        params = {name: value for name, value in network.params.items() if name not in own}
        adapting = {name: params[name] for name in self.rule.adapting(params)}
        norms = {f"norm:{name}": _repeat(network.params[name], steps) for name in own}
        buffers = dict(network.buffers)
        if self.norm == "per-step":
            buffers |= {name: _repeat(buffers[name], steps) for name in network.statistics}
        return {
            "params": params,
            "learned": {**self.rule.learned(adapting), **norms},
            "constants": self.rule.constants(adapting),
            "buffers": buffers,
            "stage": {},
        }

    def adapt(self, meta: Meta, support: Examples) -> AdaptedNetwork:
        """Run the inner loop on one support set."""
        return self.trajectory(meta, support)[-1]

    def trajectory(
        self, meta: Meta, support: Examples, steps: int | None = None
    ) -> list[AdaptedNetwork]:
        """Run the inner loop; return the network before the first step and after each."""
        line = []
        count = self.rule.steps if steps is None else steps
        for step, (params, buffers) in enumerate(self._inner_loop(meta, support, count)):
            used = max(step - 1, 0)
            params, statistics = self._at_step(meta, params, used), self._slice(buffers, used)
            if self.norm == "inductive" and self.network.has_batch_norm:
                _, statistics = self._forward(params, statistics, support[0], "record")
            line.append(AdaptedNetwork(params, statistics))
        return line

    def predict(self, adapted: AdaptedNetwork, inputs: Tensor) -> Tensor:
        """Predict one episode's queries."""
        norm: Norm = "batch" if self.norm == "transductive" else "stored"
        return self._forward(adapted.params, adapted.buffers, inputs, norm)[0]

    def meta_loss(self, meta: Meta, support: Examples, query: Examples) -> MetaLoss:
        """Adapt to the support set, and see how well the queries are predicted."""
        order = self.rule.order_at(1.0) if self.order is None else self.order
        if order == 0:
            return self._reptile(meta, support, query)
        losses: list[Tensor] = []
        last = self.rule.steps
        for step, (params, buffers) in enumerate(self._inner_loop(meta, support, last)):
            if step == last or (self.all_steps and step > 0):
                loss, buffers = self._query_loss(meta, params, buffers, support, query, step - 1)
                losses.append(loss)
        objective = losses[-1]
        if self.all_steps:
            objective = torch.stack(losses) @ meta["stage"]["weights"]
        return MetaLoss(objective, losses[-1], self._moved(buffers))

    def _reptile(self, meta: Meta, support: Examples, query: Examples) -> MetaLoss:
        """Return an objective whose gradient is the way from the adapted parameters back."""
        episode = (torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]]))
        start = {name: meta["params"][name] for name in self._adapting(meta)}
        *_, (params, buffers) = self._inner_loop(meta, episode, self.rule.steps)
        way = [(start[name] * (start[name] - params[name]).detach()).sum() for name in start]
        with torch.no_grad():
            last = self.rule.steps - 1
            loss, buffers = self._query_loss(meta, params, buffers, support, query, last)
        return MetaLoss(torch.stack(way).sum(), loss, self._moved(buffers))

    def _query_loss(
        self,
        meta: Meta,
        params: Tensors,
        buffers: Tensors,
        support: Examples,
        query: Examples,
        step: int,
    ) -> tuple[Tensor, Tensors]:
        params, statistics = self._at_step(meta, params, step), self._slice(buffers, step)
        if self.norm == "inductive" and self.network.has_batch_norm:
            _, statistics = self._forward(params, statistics, support[0], "record")
            outputs, _ = self._forward(params, statistics, query[0], "stored")
        else:
            outputs, seen = self._forward(params, statistics, query[0], self._support_norm)
            buffers = self._remember(buffers, seen, step)
        return self.loss(outputs, query[1]), buffers

    def _inner_loop(
        self, meta: Meta, support: Examples, steps: int
    ) -> Iterator[tuple[Tensors, Tensors]]:
        """Yield parameters and buffers before the first step and after each."""
        inputs, targets = support
        fixed, buffers = meta["params"], meta["buffers"]
        params = {name: fixed[name] for name in self._adapting(meta)}
        state = self.rule.init(params, meta["learned"], meta["constants"])
        order = self.rule.order_at(1.0) if self.order is None else self.order
        yield fixed, buffers
        for step in range(steps):

            def support_loss(
                adapting: Tensors, step: int = step, buffers: Tensors = buffers
            ) -> tuple[Tensor, tuple[Tensor, Tensors]]:
                now = self._at_step(meta, {**fixed, **adapting}, step)
                outputs, seen = self._forward(
                    now, self._slice(buffers, step), inputs, self._support_norm
                )
                loss = inner_loss(self.rule.loss, self.loss)(outputs, targets)
                return loss, (loss, seen)

            if self.mapped:
                # without a graph, the gradient is a constant to the outer loop
                with nullcontext() if order == 2 else torch.no_grad():
                    grads, (loss, seen) = grad(support_loss, has_aux=True)(params)
            else:
                grads, (loss, seen) = _plain_grad(support_loss, params, graph=order == 2)
            buffers = self._remember(buffers, seen, step)
            params, state = self.rule.apply(grads, loss, state, params, step)
            yield {**fixed, **params}, buffers

    @property
    def _support_norm(self) -> Norm:
        if self.norm != "per-step":
            return "batch"
        return "record" if self.training else "stored"

    def _adapting(self, meta: Meta) -> Sequence[str]:
        return self.rule.adapting(meta["params"])

    def _at_step(self, meta: Meta, params: Tensors, step: int) -> Tensors:
        """Put a step's batch-norm weights and biases among the parameters."""
        if self.rule.affine != "step":
            return params
        at = min(step, self.rule.steps - 1)
        own = {name: meta["learned"][f"norm:{name}"][at] for name in self.network.affine}
        return {**params, **own}

    def _slice(self, buffers: Tensors, step: int) -> Tensors:
        """Return a step's batch-norm statistics among the buffers."""
        if self.norm != "per-step":
            return buffers
        at = min(step, self.rule.steps - 1)
        return {**buffers, **{name: buffers[name][at] for name in self.network.statistics}}

    def _remember(self, buffers: Tensors, seen: Tensors, step: int) -> Tensors:
        """Move a step's running statistics towards those that were seen."""
        if self.norm != "per-step" or not self.training:
            return buffers
        at = min(step, self.rule.steps - 1)
        moved = {}
        for name in self.network.statistics:
            rows = list(buffers[name].unbind())
            rows[at] = torch.lerp(rows[at], seen[name].detach().to(rows[at].dtype), MOMENTUM)
            moved[name] = torch.stack(rows)
        return {**buffers, **moved}

    def _moved(self, buffers: Tensors) -> Tensors:
        names = self.network.statistics if self.norm == "per-step" and self.training else ()
        return {name: buffers[name] for name in names}

    def _forward(
        self, params: Tensors, buffers: Tensors, inputs: Tensor, norm: Norm
    ) -> tuple[Tensor, Tensors]:
        return self.network(
            params, buffers, inputs, norm=norm, training=self.training, mapped=self.mapped
        )


def _plain_grad(
    function: Callable[[Tensors], tuple[Tensor, tuple[Tensor, Tensors]]],
    params: Tensors,
    *,
    graph: bool,
) -> tuple[Tensors, tuple[Tensor, Tensors]]:
    """Do what `torch.func.grad` does, outside of `vmap`: without its second graph, and faster."""
    graph = graph and torch.is_grad_enabled()
    with torch.enable_grad():
        params = {
            name: value if graph and value.requires_grad else value.detach().requires_grad_()
            for name, value in params.items()
        }
        loss, (_, seen) = function(params)
        grads = torch.autograd.grad(
            loss, list(params.values()), create_graph=graph, allow_unused=True
        )
    found = {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(params.items(), grads, strict=True)
    }
    seen = {name: value.detach() for name, value in seen.items()}
    return found, (loss if graph else loss.detach(), seen)


def _repeat(value: Tensor, steps: int) -> Tensor:
    return value.expand(steps, *value.shape).clone()
