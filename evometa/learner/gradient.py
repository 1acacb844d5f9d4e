"""The gradient family: adapt by a few steps of a learning rule (MAML; Finn et al., 2017)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad
from torch.utils import _pytree as pytree

from evometa.learner.additions import Addition
from evometa.learner.implicit import implicit_objective
from evometa.learner.losses import inner_loss
from evometa.learner.protocol import Loss, Meta, MetaLoss, Stage, Tensors, Traits
from evometa.learner.statistics import pooled
from evometa.network import Network, Norm
from evometa.rule import Rule
from evometa.task.episodes import examples_of, joined, slice_of
from evometa.task.protocol import Predict, Side

MOMENTUM = 0.1  # of per-step batch-norm statistics, as PyTorch's own running averages
STEP_LOSS_FLOOR = 0.03  # MAML++: least weight of an early step's loss, over the number of steps


class AdaptedNetwork(NamedTuple):
    """A network at a point of the inner loop."""

    params: Tensors
    buffers: Tensors


@dataclass(frozen=True)
class GradientLearner:
    """Adapts by updates on the support loss, as a rule says.

    Attributes:
        network: the network as a function.
        rule: the update, how the support is taken, and which parts of MAML++ are in use.
        loss: mean loss of a learner on one side of one episode.
        norm: batch-norm protocol. `"inductive"`: queries are normalised by the statistics of the
            support set under the adapted parameters, so that no query sees another.
            `"transductive"`: by those of the whole query set, as in the published MAML code.
            `"per-step"`: when scored, support and query by running averages of meta-training, one
            set a step (Antoniou et al., 2019).
        order: order of derivative; None for the rule's own.
        all_steps: whether the losses after all steps count, weighed by `stage`.
        training: whether dropout and the like are active.
        additions: what the rule adds to the network, one on the other.
        solves: iterations of the solver of the implicit gradient; 0 to differentiate through the
            steps.
    """

    network: Network
    rule: Rule
    loss: Loss
    norm: str = "inductive"
    order: int | None = None
    all_steps: bool = False
    training: bool = False
    additions: tuple[Addition, ...] = ()
    solves: int = 0

    @property
    def traits(self) -> Traits:
        """What is to be known of it."""
        rule = self.rule
        staged = rule.multi_step > 0 or rule.order_at(0.0) != rule.order_at(1.0)
        return Traits(
            structure=f"gradient\n{self.network.structure}\n{rule.structure}\n{self.norm}",
            steps=0 if rule.streams else rule.steps,
            outer=rule.outer,
            order=rule.order_at(1.0),
            any_ways=any(each.any_ways for each in self.additions),
            stage=self._stage if staged else None,
        )

    @property
    def kin(self) -> str:
        """Text that is equal for learners which differ in numbers and in their rules' updates."""
        return f"gradient\n{self.network.structure}\n{self.rule.frame}\n{self.norm}"

    @property
    def adapting(self) -> Sequence[str]:
        """Names of what adapts.

        Raises:
            ValueError: if there is nothing that the rule adapts.
        """
        return self.rule.adapting(self._candidates(self._params))

    @property
    def _params(self) -> Tensors:
        """The network's initial parameters, without those of batch norm that each step has."""
        own = self.network.affine if self.rule.affine == "step" else ()
        return {name: value for name, value in self.network.params.items() if name not in own}

    def _stage(self, progress: float) -> Stage:
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

    def init(self, generator: torch.Generator) -> dict[str, Tensors]:
        """Return initial parameters, learned rates, constants and buffers."""
        network, steps = self.network, self.rule.steps
        own = network.affine if self.rule.affine == "step" else ()
        params = self._params
        for each in self.additions:
            params |= each.init(network, generator)
        candidates = self._candidates(params)
        adapting = {name: candidates[name] for name in self.adapting}
        norms = {f"norm:{name}": _repeat(network.params[name], steps) for name in own}
        buffers = dict(network.buffers)
        if self.norm == "per-step":
            buffers |= {name: _repeat(buffers[name], steps) for name in network.statistics}
        return {
            "params": params,
            "learned": {**self.rule.learned(adapting, generator), **norms},
            "constants": self.rule.constants(adapting),
            "buffers": buffers,
            "stage": {},
        }

    def adapt(self, meta: Meta, support: Side) -> AdaptedNetwork:
        """Run the inner loop on one support set."""
        return deque(self.trajectory(meta, support), maxlen=1)[0]

    def trajectory(
        self, meta: Meta, support: Side, steps: int | None = None
    ) -> Iterator[AdaptedNetwork]:
        """Run the inner loop; yield the network before the first step and after each.

        Where the support is a stream, a step is all updates on one slice of it, and `steps` counts
        slices.
        """
        each = self.rule.steps if self.rule.streams else 1
        length = None if steps is None else steps * each
        for step, (params, buffers) in enumerate(self._inner_loop(meta, support, length)):
            if step % each:
                continue
            used = max(step - 1, 0)
            params, statistics = self._at_step(meta, params, used), self._slice(buffers, used)
            if self.norm == "inductive" and self.network.has_batch_norm:
                statistics = self._recorded(params, statistics, support)
            yield AdaptedNetwork(params, statistics)

    def predict(self, adapted: AdaptedNetwork, inputs: Any) -> Any:
        """Predict one episode's queries."""
        norm: Norm = "batch" if self.norm == "transductive" else "stored"
        return self._watched(adapted.params, adapted.buffers, norm)[0](inputs)

    def meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Adapt to the support set, and see how well the queries are predicted."""
        return replace(self, training=True)._meta_loss(meta, support, query)

    def _meta_loss(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        if self._order == 0:
            return self._reptile(meta, support, query)
        if self._order == 2 and self.solves:
            return self._implicit(meta, support, query)
        losses: list[Tensor] = []
        loop = enumerate(self._inner_loop(meta, support))
        for step, (params, buffers) in loop if self.all_steps else deque(loop, maxlen=1):
            if step:
                loss, buffers = self._query_loss(meta, params, buffers, support, query, step - 1)
                losses.append(loss)
        objective = losses[-1]
        if self.all_steps:
            objective = torch.stack(losses) @ meta["stage"]["weights"]
        return MetaLoss(objective, losses[-1], self._moved(buffers))

    def _reptile(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Return an objective whose gradient is the way from the adapted parameters back."""
        start = {n: meta["params"][n] for n in self.adapting if n in meta["params"]}
        *_, (params, buffers) = self._inner_loop(meta, joined(support, query))
        way = [(start[name] * (start[name] - params[name]).detach()).sum() for name in start]
        with torch.no_grad():
            last = self.rule.steps - 1
            loss, buffers = self._query_loss(meta, params, buffers, support, query, last)
        return MetaLoss(torch.stack(way).sum(), loss, self._moved(buffers))

    def _implicit(self, meta: Meta, support: Side, query: Side) -> MetaLoss:
        """Return the objective of a minimum: nothing is kept of the steps to it."""
        with torch.no_grad():
            params, buffers = deque(self._inner_loop(meta, support), maxlen=1)[0]
        start, last = self._start(meta, support), self.rule.steps - 1
        measure = inner_loss(self.rule.loss, self.loss)

        def query_loss(own: Tensors) -> Tensor:
            return self._query_loss(meta, {**start, **own}, buffers, support, query, last)[0]

        def support_loss(own: Tensors) -> Tensor:
            now = self._at_step(meta, {**start, **own}, last)
            predict, _ = self._watched(now, self._slice(buffers, last), self._support_norm)
            return measure(predict, support)

        objective, loss = implicit_objective(
            query_loss,
            support_loss,
            {name: params[name] for name in self.adapting},
            {name: start[name] for name in self.adapting},
            meta["constants"]["strength"],
            self.solves,
        )
        return MetaLoss(objective, loss, self._moved(buffers))

    def _query_loss(
        self, meta: Meta, params: Tensors, buffers: Tensors, support: Side, query: Side, step: int
    ) -> tuple[Tensor, Tensors]:
        params, statistics = self._at_step(meta, params, step), self._slice(buffers, step)
        if self.norm == "inductive" and self.network.has_batch_norm:
            statistics = self._recorded(params, statistics, support)
            return self.loss(self._watched(params, statistics, "stored")[0], query), buffers
        predict, seen = self._watched(params, statistics, self._support_norm)
        loss = self.loss(predict, query)
        return loss, self._remember(buffers, pooled(seen, self.network.statistics), step)

    def _inner_loop(
        self, meta: Meta, support: Side, length: int | None = None
    ) -> Iterator[tuple[Tensors, Tensors]]:
        """Yield parameters and buffers before the first update and after each.

        Args:
            meta: meta-parameters.
            support: what is learned from.
            length: updates; default as many as the rule makes.
        """
        fixed, buffers = self._start(meta, support), meta["buffers"]
        params = {name: fixed[name] for name in self.adapting}
        state = self.rule.init(params, meta["learned"], meta["constants"])
        measure = inner_loss(self.rule.loss, self.loss)
        yield fixed, buffers
        for step, which in enumerate(self.rule.slices(examples_of(support), length)):
            side, real = (support, None) if which is None else slice_of(support, which)

            def support_loss(
                adapting: Tensors, step: int = step, buffers: Tensors = buffers, side: Side = side
            ) -> tuple[Tensor, tuple[Tensor, Tensors]]:
                now = self._at_step(meta, {**fixed, **adapting}, step)
                predict, seen = self._watched(now, self._slice(buffers, step), self._support_norm)
                loss = measure(predict, side)
                return loss, (loss, pooled(seen, self.network.statistics))

            if self.network.mapped:
                # without a graph, the gradient is a constant to the outer loop
                with nullcontext() if self._order == 2 else torch.no_grad():
                    grads, (loss, seen) = grad(support_loss, has_aux=True)(params)
            else:
                grads, (loss, seen) = _plain_grad(support_loss, params, graph=self._order == 2)
            before = params, state.memory, buffers
            buffers = self._remember(buffers, seen, step)
            params, state = self.rule.apply(grads, loss, state, params, step)
            if real is not None:  # a slice of padding alone teaches nothing
                params, memory, buffers = _where(real, (params, state.memory, buffers), before)
                state = state._replace(memory=memory)
            yield {**fixed, **params}, buffers

    @property
    def _order(self) -> int:
        return self.rule.order_at(1.0) if self.order is None else self.order

    @property
    def _support_norm(self) -> Norm:
        if self.norm != "per-step":
            return "batch"
        return "record" if self.training else "stored"

    def _candidates(self, params: Tensors) -> Tensors:
        """Return what could adapt: parameters, and what the additions bring to an episode."""
        added = [each.like(self.network).items() for each in self.additions]
        return {**params, **{name: value for items in added for name, value in items}}

    def _start(self, meta: Meta, support: Side) -> Tensors:
        """Return all tensors of an episode before the first step."""
        params = meta["params"]
        for place, each in enumerate(self.additions):
            before = replace(self, additions=self.additions[:place])
            now, buffers = self._at_step(meta, params, 0), self._slice(meta["buffers"], 0)
            embed = before._watched(now, buffers, self._support_norm)[0]
            added = each.start(params, embed, support)
            # to a step, what starts from other parameters is independent of them
            params = {**{name: value.view_as(value) for name, value in params.items()}, **added}
        return params

    def _at_step(self, meta: Meta, params: Tensors, step: int) -> Tensors:
        """Put a step's batch-norm weights and biases among the parameters."""
        if self.rule.affine != "step":
            return params
        at = self.rule.place(step)
        own = {name: meta["learned"][f"norm:{name}"][at] for name in self.network.affine}
        return {**params, **own}

    def _slice(self, buffers: Tensors, step: int) -> Tensors:
        """Return a step's batch-norm statistics among the buffers."""
        if self.norm != "per-step":
            return buffers
        at = self.rule.place(step)
        return {**buffers, **{name: buffers[name][at] for name in self.network.statistics}}

    def _remember(self, buffers: Tensors, seen: Tensors, step: int) -> Tensors:
        """Move a step's running statistics towards those that were seen."""
        if self.norm != "per-step" or not self.training:
            return buffers
        at = self.rule.place(step)
        moved = {}
        for name in self.network.statistics:
            rows = list(buffers[name].unbind())
            rows[at] = torch.lerp(rows[at], seen[name].detach().to(rows[at].dtype), MOMENTUM)
            moved[name] = torch.stack(rows)
        return {**buffers, **moved}

    def _moved(self, buffers: Tensors) -> Tensors:
        names = self.network.statistics if self.norm == "per-step" and self.training else ()
        return {name: buffers[name] for name in names}

    def _watched(
        self, params: Tensors, buffers: Tensors, norm: Norm
    ) -> tuple[Predict, list[Tensors]]:
        """Return the network as a function of inputs, and the list of buffers that it leaves."""
        seen: list[Tensors] = []
        own = params
        for each in reversed(self.additions):
            own = each.applied(own)
        if self.additions:
            own = {name: own[name] for name in self.network.params}

        def predict(inputs: Any) -> Any:
            outputs, after = self.network(own, buffers, inputs, norm=norm, training=self.training)
            seen.append(after)
            for each in self.additions:
                outputs = each.outputs(params, outputs)
            return outputs

        return predict, seen

    def _recorded(self, params: Tensors, buffers: Tensors, support: Side) -> Tensors:
        """Return the buffers with the batch-norm statistics of the support set."""
        predict, seen = self._watched(params, buffers, "record")
        self.loss(predict, support)
        return pooled(seen, self.network.statistics)


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


def _where(condition: Tensor, one: Any, other: Any) -> Any:
    return pytree.tree_map(lambda a, b: torch.where(condition, a, b), one, other)


def _repeat(value: Tensor, steps: int) -> Tensor:
    return value.expand(steps, *value.shape).clone()
