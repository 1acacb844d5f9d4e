"""The meta-gradient of a pack, computed as a plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from evometa.evaluate.pack import Layout, Pack
from evometa.evaluate.plan import Plan
from evometa.learner import Learner, MetaLoss, Tensors, unmapped
from evometa.task.episodes import leading, part_of
from evometa.task.protocol import EpisodeBatch, Side


class MetaGradient(NamedTuple):
    """What a meta-batch tells the outer loop of each candidate.

    Attributes:
        grads: gradient of the mean objective, shape `(candidates, numbers)`.
        losses: mean query losses after adaptation, shape `(candidates,)`.
        buffers: the buffers that moved, means over the tasks, `(candidates, ...)`.
    """

    grads: Tensor
    losses: Tensor
    buffers: Tensors


Compute = Callable[[Tensor, dict[str, Tensors], Tensors, EpisodeBatch], MetaGradient]


class Program:
    """The meta-gradient of a learner's stage for packs of one structure.

    Args:
        learner: the learner of the stage.
        layout: of the trained numbers.
        plan: how to compute it. Out of memory, it is halved for good; see `plan`.

    Attributes:
        plan: the plan in use.
    """

    def __init__(self, learner: Learner, layout: Layout, plan: Plan) -> None:
        self.plan = plan
        self._layout, self._mapped, self._single = layout, learner, unmapped(learner)
        self._compiled: dict[Any, Compute] = {}

    def __call__(self, pack: Pack, numbers: Tensors, episodes: EpisodeBatch) -> MetaGradient:
        """Compute the meta-gradient.

        Args:
            pack: candidates.
            numbers: the `stage` part of their meta-parameters.
            episodes: tensors of shape `(candidates, tasks, examples, ...)`.

        Raises:
            torch.OutOfMemoryError: if a single task of a single candidate does not fit.
        """
        while True:
            try:
                return self._in_chunks(pack, numbers, episodes)
            except torch.OutOfMemoryError:
                smaller = halved(self.plan, *leading(episodes, 2))
                if smaller is None:
                    raise
                self.plan = smaller
                self._compiled.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # outside of `except`, which keeps the tensors alive

    def _in_chunks(self, pack: Pack, numbers: Tensors, episodes: EpisodeBatch) -> MetaGradient:
        if not (self.plan.candidates or self.plan.tasks):
            return self._compute(episodes)(pack.flat, pack.carried, numbers, episodes)
        count, tasks = leading(episodes, 2)
        rows = []
        for start, stop in spans(count, self.plan.candidates):
            carried = {
                part: {name: value[start:stop] for name, value in values.items()}
                for part, values in pack.carried.items()
            }
            row = None
            for first, last in spans(tasks, self.plan.tasks):
                chunk = part_of(episodes, (slice(start, stop), slice(first, last)))
                found = self._compute(chunk)(pack.flat[start:stop], carried, numbers, chunk)
                row = _added(row, found, (last - first) / tasks)
            rows.append(cast(MetaGradient, row))
        return pytree.tree_map(lambda *values: torch.cat(values), *rows) if rows[1:] else rows[0]

    def _compute(self, chunk: EpisodeBatch) -> Compute:
        if not self.plan.compile:
            return self._gradient
        key = shapes_of(chunk)
        if key not in self._compiled:
            self._compiled[key] = self._compile
        return self._compiled[key]

    def _compile(
        self, flat: Tensor, carried: dict[str, Tensors], numbers: Tensors, chunk: EpisodeBatch
    ) -> MetaGradient:
        """Trace the meta-gradient down to single operations, and compile these."""
        arguments = (flat, carried, numbers, chunk)
        traced = make_fx(lambda *values: self._gradient(*values))(*arguments)
        compiled = torch.compile(traced, dynamic=False)

        def run(*arguments: Any) -> MetaGradient:
            with torch.no_grad():  # the gradient is in the graph
                return MetaGradient(*compiled(*arguments))

        self._compiled[shapes_of(chunk)] = run
        return run(*arguments)

    def _gradient(
        self, flat: Tensor, carried: dict[str, Tensors], numbers: Tensors, chunk: EpisodeBatch
    ) -> MetaGradient:
        flat = flat.detach().requires_grad_()
        with torch.enable_grad():
            outcome = mapped(self._meta_loss, flat, carried, numbers, self._in_memory(chunk))
            (grads,) = torch.autograd.grad(outcome.objective.mean(1).sum(), flat)
        buffers = {name: value.detach().mean(1) for name, value in outcome.buffers.items()}
        return MetaGradient(grads, outcome.loss.detach().mean(1), buffers)

    def _meta_loss(
        self,
        flat: Tensor,
        carried: dict[str, Tensors],
        numbers: Tensors,
        support: Side,
        query: Side,
        *,
        single: bool,
    ) -> MetaLoss:
        meta = {**self._layout.unflatten(flat), **carried, "stage": numbers}
        learner = self._single if single else self._mapped
        return learner.meta_loss(meta, support, query)

    def _in_memory(self, chunk: EpisodeBatch) -> EpisodeBatch:
        if not self.plan.channels_last:
            return chunk
        return pytree.tree_map(_channels_last, chunk)  # type: ignore[no-any-return]


def mapped(
    function: Callable[..., Any],
    flat: Tensor,
    carried: dict[str, Tensors],
    numbers: Tensors,
    episodes: EpisodeBatch,
) -> Any:
    """Map a function of one candidate and one episode over a pack and its meta-batch.

    An axis of length 1 is taken off instead of mapped: kernels for one task are faster than mapped
    ones.

    Args:
        function: of `(flat, carried, numbers, support, query, *, single)`; `single` says that
            nothing is mapped.
        flat: shape `(candidates, numbers)`.
        carried: tensors that begin with `candidates`.
        numbers: the same for all.
        episodes: tensors that begin with `(candidates, tasks)`.

    Returns:
        What the function returns, tensors that begin with `(candidates, tasks)`.
    """
    count, tasks = leading(episodes, 2)
    single = count == tasks == 1
    leaves, form = pytree.tree_flatten(episodes)  # once: vmap takes long over nested ones

    def candidate(flat: Tensor, carried: Any, leaves: list[Tensor]) -> Any:
        def task(leaves: list[Tensor]) -> Any:
            sides = pytree.tree_unflatten(leaves, form)
            return function(flat, carried, numbers, *sides, single=single)

        if tasks > 1:
            return vmap(task, randomness="different")(leaves)
        return _with_axis(task([leaf[0] for leaf in leaves]))

    if count > 1:
        return vmap(candidate, randomness="different")(flat, carried, leaves)
    first = {
        part: {name: value[0] for name, value in values.items()} for part, values in carried.items()
    }
    return _with_axis(candidate(flat[0], first, [leaf[0] for leaf in leaves]))


def halved(plan: Plan, candidates: int, tasks: int) -> Plan | None:
    """Return a plan that needs about half the memory, or None if there is none.

    Args:
        plan: what did not fit.
        candidates: in the pack.
        tasks: in the meta-batch.
    """
    wide = min(plan.candidates or candidates, candidates)
    if wide > 1:
        return replace(plan, candidates=(wide + 1) // 2)
    long = min(plan.tasks or tasks, tasks)
    return replace(plan, candidates=1, tasks=(long + 1) // 2) if long > 1 else None


def spans(length: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield the limits of the chunks of an axis; 0 stands for one chunk."""
    step = chunk or length
    for start in range(0, length, step):
        yield start, min(start + step, length)


def shapes_of(episodes: EpisodeBatch) -> tuple[torch.Size, ...]:
    """Return what a program that is made for some episodes depends on."""
    return tuple(tensor.shape for tensor in pytree.tree_leaves(episodes))


def _added(row: MetaGradient | None, found: MetaGradient, share: float) -> MetaGradient:
    if row is None:
        return found if share == 1 else pytree.tree_map(lambda value: value * share, found)
    return pytree.tree_map(lambda sum, value: sum.add_(value, alpha=share), row, found)  # type: ignore[no-any-return]


def _with_axis(values: Any) -> Any:
    return pytree.tree_map(lambda value: value.unsqueeze(0), values)


def _channels_last(value: Tensor) -> Tensor:
    # the last three axes are channels, height and width where there are enough of them
    return value.movedim(-3, -1).contiguous().movedim(-1, -3) if value.dim() == 6 else value
