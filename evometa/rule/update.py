"""The update of a rule: an expression that is interpreted, never evaluated as Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evometa.errors import GenomeError
from evometa.rule.operations import Operation
from evometa.space.expression import LIMITS, Node, parse


class Layers(NamedTuple):
    """Which weights of a vector belong together.

    Attributes:
        sizes: number of weights of each layer, in the order of the vector.
        of_weight: for each weight the number of its layer, shape `(weights,)`.
    """

    sizes: tuple[int, ...]
    of_weight: Tensor


class Numbers(NamedTuple):
    """The constants of an update, in the order of its tokens.

    Attributes:
        fixed: shape `(fixed constants,)`.
        learned: shape `(learned constants,)`.
    """

    fixed: Tensor
    learned: Tensor


@dataclass(frozen=True)
class Update:
    """What is subtracted from the parameters at each step, as a function of what a rule sees.

    Attributes:
        tokens: the expression.
        nodes: its operations in prefix order.
        table: what they mean.
    """

    tokens: tuple[str | float, ...]
    nodes: tuple[Node, ...]
    table: Mapping[str, Operation]

    @staticmethod
    def of(tokens: Sequence[Any], table: Mapping[str, Operation], rate: str) -> Update:
        """Read an expression.

        Args:
            tokens: names and numbers.
            table: the operations by name.
            rate: kind of the rate: `"scalar"`, `"layer"` or `"element"`.

        Raises:
            ValueError: if it is no expression.
        """
        try:
            primitives = [operation.primitive for operation in table.values()]
            nodes = parse(list(tokens), primitives, "update", rate=rate)
        except GenomeError as error:
            raise ValueError(str(error)) from error
        return Update(tuple(tokens), tuple(nodes), table)

    @property
    def structure(self) -> str:
        """Text that is equal for updates which differ in constants only."""
        return " ".join(_shape(node) for node in self.nodes)

    @property
    def fixed(self) -> list[float]:
        """The fixed constants."""
        return [float(n.value) for n in self.nodes if _is_number(n) and not n.learned]

    @property
    def learned(self) -> list[float]:
        """The initial values of the learned constants."""
        return [float(n.value) for n in self.nodes if _is_number(n) and n.learned]

    @property
    def memories(self) -> int:
        """Number of running averages."""
        return sum(
            self.table[str(node.value)].remembers is not None
            for node in self.nodes
            if not _is_number(node)
        )

    def __call__(
        self,
        seen: Mapping[str, Tensor],
        numbers: Numbers,
        memory: Sequence[Tensor],
        layers: Layers,
        time: float,
    ) -> tuple[Tensor, list[Tensor]]:
        """Interpret the expression.

        All tensors may have axes in front, such as `tasks`.

        Args:
            seen: what the rule sees, by name: tensors whose last axis has 1, `layers` or `weights`
                entries, by kind.
            numbers: the constants; more than it has do no harm.
            memory: the running averages, each of shape `(weights,)`.
            layers: which weights belong together.
            time: the number of this step, from 1.

        Returns:
            What is to be subtracted, shape `(weights,)`, and the running averages after.
        """
        gradient = seen["gradient"]
        fixed = list(numbers.fixed.unsqueeze(-1).unbind(-2))[: len(self.fixed)]
        learned = list(numbers.learned.unsqueeze(-1).unbind(-2))[: len(self.learned)]
        values: list[Any] = [None] * len(self.nodes)
        after = list(memory)
        slot = len(after)
        # the last node first: the arguments of an operation are there before it
        for place in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[place]
            if _is_number(node):
                value = (learned if node.learned else fixed).pop()
                # out of its limits, a decay that was learned would not be an average's any more
                values[place] = value.clamp(*LIMITS["decay"]) if node.kind == "decay" else value
                continue
            operation = self.table[str(node.value)]
            arguments = self._arguments(node, values, layers)
            if not arguments:
                values[place] = seen[node.value]  # type: ignore[index]
            elif operation.by_layer is not None:
                parts = torch.split(arguments[0], list(layers.sizes), -1)
                values[place] = torch.stack([operation.by_layer(part) for part in parts], -1)
            elif operation.remembers is not None:
                slot -= 1
                decay, argument = arguments
                values[place], after[slot] = operation.remembers(
                    decay, argument, memory[slot], time
                )
            else:
                assert operation.apply is not None
                values[place] = operation.apply(*arguments)
        move = _wide(values[0], self.nodes[0].kind, "element", layers)
        return move.expand_as(gradient), after

    def _arguments(self, node: Node, values: Sequence[Tensor], layers: Layers) -> list[Tensor]:
        """Return the arguments of an operation, as wide as it wants them."""
        wanted = self.table[str(node.value)].primitive.arguments
        children = [self.nodes[child] for child in node.arguments]
        kinds = [node.works_on if want == "same" else want for want in wanted]
        # one argument that is wide enough spreads single numbers by itself
        wide = any(
            child.kind == node.works_on and want == "same"
            for child, want in zip(children, wanted, strict=True)
        )
        found = []
        for place, child, kind in zip(node.arguments, children, kinds, strict=True):
            value = values[place]
            if child.kind != kind and not (wide and child.kind == "scalar"):
                value = _wide(value, child.kind, kind, layers)
            found.append(value)
        return found


def _wide(value: Tensor, kind: str, wanted: str, layers: Layers) -> Tensor:
    """Return a value in a wider kind."""
    if kind == wanted or kind == "decay":
        return value
    if kind == "layer":
        return value[..., layers.of_weight]
    width = sum(layers.sizes) if wanted == "element" else len(layers.sizes)
    return value.expand(*value.shape[:-1], width)


def _is_number(node: Node) -> bool:
    return not isinstance(node.value, str)


def _shape(node: Node) -> str:
    if _is_number(node):
        return "learned" if node.learned else "number"
    return str(node.value)
