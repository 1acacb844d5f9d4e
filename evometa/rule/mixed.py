"""Rules with different updates in one pack: they share the gradient, and differ in what they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.rule.gradient import CONSTANTS, EXTRAS, GradientRule
from evometa.rule.outer import Outer
from evometa.rule.protocol import Tensors
from evometa.rule.state import Memory, State
from evometa.rule.update import Layers, Numbers

WHICH = "update:which"


@dataclass(frozen=True)
class MixedRule:
    """One of several rules that are equal in everything but their updates.

    The others come along so that all have one structure. Their numbers are padded to equal
    lengths; which update is meant is one of the constants.

    Attributes:
        rules: equal in `frame`.
        which: place of the one that is meant.
    """

    rules: tuple[GradientRule, ...]
    which: int

    def __post_init__(self) -> None:
        if len({rule.frame for rule in self.rules}) != 1:
            raise ValueError("the rules of a pack may differ in their updates and numbers only")

    @property
    def alone(self) -> GradientRule:
        """The rule that is meant, which takes the padded numbers as well."""
        return self.rules[self.which]

    @property
    def steps(self) -> int:
        """Number of inner steps."""
        return self.alone.steps

    @property
    def structure(self) -> str:
        """Text that is equal for the rules of one pack."""
        return " | ".join(rule.structure for rule in self.rules)

    @property
    def frame(self) -> str:
        """Text that is equal for rules which differ in their updates and in numbers only."""
        return self.alone.frame

    @property
    def multi_step(self) -> float:
        """Share of meta-training in which the losses after all steps count."""
        return self.alone.multi_step

    @property
    def affine(self) -> str:
        """Whether batch norm has weights and biases of its own for each step."""
        return self.alone.affine

    @property
    def outer(self) -> Outer:
        """How the outer loop trains."""
        return self.alone.outer

    @property
    def loss(self) -> str:
        """Loss of the inner loop."""
        return self.alone.loss

    @property
    def streams(self) -> bool:
        """Whether the support is taken in its order."""
        return self.alone.streams

    def slices(self, examples: int, length: int | None = None) -> Iterator[slice | None]:
        """Yield for each update which of the support's examples it sees."""
        return self.alone.slices(examples, length)

    def place(self, step: int) -> int:
        """Return the place of an update among a rule's own steps."""
        return self.alone.place(step)

    def order_at(self, progress: float) -> int:
        """Return the order of derivative at a point of meta-training."""
        return self.alone.order_at(progress)

    def adapting(self, params: Tensors) -> list[str]:
        """Choose which of the parameters adapt."""
        return self.alone.adapting(params)

    def learned(self, params: Tensors, generator: torch.Generator | None = None) -> Tensors:
        """Return the initial learned numbers."""
        most = max(len(rule.expression.learned) for rule in self.rules)
        found: Tensors = {}
        for rule in self.rules:  # what any of them learns for each weight, all carry along
            found |= {n: v for n, v in rule.learned(params).items() if n.split(":")[0] in EXTRAS}
        return _padded({**found, **self.alone.learned(params, generator)}, params, most)

    def constants(self, params: Tensors) -> Tensors:
        """Return the fixed numbers, and which update is meant."""
        most = max(len(rule.expression.fixed) for rule in self.rules)
        found = _padded(self.alone.constants(params), params, most)
        return {**found, WHICH: torch.tensor(self.which)}

    def init(self, params: Tensors, learned: Tensors, constants: Tensors) -> MixedState:
        """Return what the rules carry from step to step."""
        state = self.alone.carried(params, learned, constants)
        assert state.start is not None
        most = max(rule.expression.memories for rule in self.rules)
        averages = state.start.vector.new_zeros((most, state.start.vector.shape[0]))
        return MixedState(state, Memory(averages, state.memory.kept), constants[WHICH])

    def apply(
        self, grads: Tensors, loss: Tensor, state: MixedState, params: Tensors, step: int
    ) -> tuple[Tensors, MixedState]:
        """Return the parameters after one step, and the state."""
        start = state.state.start
        assert start is not None
        known = state.state._replace(memory=state.memory)
        seen, kept = self.alone.sees(grads, loss, known, params, step)
        numbers = state.state.numbers
        call = _Call(self.rules, tuple(seen), start.layers, step + 1)
        averages = state.memory.averages
        tensors = (numbers["fixed"], numbers["learned"], averages, *seen.values())
        move, averages = _dispatch(call, state.which, tensors)
        memory = Memory(averages, kept)
        return start.unflatten(seen["parameter"] - move), state._replace(memory=memory)


class MixedState(NamedTuple):
    """What mixed rules carry from step to step.

    Attributes:
        state: rates, constants and the initial parameters.
        memory: running averages, shape `(most of any rule, weights)`, and what the senses keep.
        which: the update that is meant, without axes.
    """

    state: State
    memory: Memory
    which: Tensor


class _Call(NamedTuple):
    """An update of one candidate.

    Attributes:
        rules: of the pack.
        names: of what is seen.
        layers: which weights belong together.
        time: number of the step.
    """

    rules: tuple[GradientRule, ...]
    names: tuple[str, ...]
    layers: Layers
    time: int

    def run(self, which: int, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the move and the memory of one candidate; tensors may begin with `tasks`."""
        expression = self.rules[which].expression
        fixed, learned, memory, *seen = tensors
        numbers = Numbers(fixed, learned)
        slots = list(memory.unbind(-2))
        used = expression.memories
        known = dict(zip(self.names, seen, strict=True))
        move, after = expression(known, numbers, slots[:used], self.layers, self.time)
        kept = [slot.expand_as(move) for slot in (*after, *slots[used:])]
        none = move.new_zeros((*move.shape[:-1], 0, move.shape[-1]))
        return move, torch.stack(kept, -2) if kept else none


def _dispatch(call: _Call, which: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Run each candidate's own update, also within `vmap`."""
    mapped = torch._C._functorch.is_batchedtensor
    if any(mapped(tensor) for tensor in (which, *tensors)):
        return _PerCandidate.apply(call, which, *tensors)  # type: ignore[no-any-return, no-untyped-call]
    return call.run(int(which), tensors)


class _PerCandidate(torch.autograd.Function):
    """Steps out of `vmap`, which knows one program alone, to run one program a candidate.

    Below `vmap` the usual autograd sees what is done, so no derivative is written here.
    """

    generate_vmap_rule = False

    @staticmethod
    def forward(call: _Call, which: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        return call.run(int(which), tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], call: _Call, which: Tensor, *tensors: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        _, which_dim, *dims = in_dims
        if which_dim is None:  # the axis of tasks
            return _dispatch(call, which, _tasks_first(tensors, dims)), (0, 0)
        # the derivative of `unbind` is one tensor; that of as many `select` is as many
        columns = [
            [tensor] * info.batch_size if dim is None else tensor.unbind(dim)
            for tensor, dim in zip(tensors, dims, strict=True)
        ]
        rows = [
            call.run(int(own), mine) for own, *mine in zip(which.tolist(), *columns, strict=True)
        ]
        moves, memories = zip(*rows, strict=True)
        return (torch.stack(moves), torch.stack(memories)), (0, 0)


def _tasks_first(tensors: Sequence[Tensor], dims: Sequence[int | None]) -> list[Tensor]:
    """Move the axis of tasks to the front, where the interpreter lets it be."""
    return [
        tensor if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]


def _padded(numbers: Tensors, params: Tensors, length: int) -> Tensors:
    """Give the constants of an update a common length."""
    if not length:
        return numbers
    mine = numbers.get(CONSTANTS, next(iter(params.values())).new_zeros(0))
    return {**numbers, CONSTANTS: F.pad(mine, (0, length - len(mine)))}
