"""Functions of tensors as graphs of single operations, for any length of their first axes."""

from __future__ import annotations

import builtins
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import sympy
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

Limits: TypeAlias = dict[str, tuple[int, int | None]]
"""The least and the largest length of each axis; None for no largest one."""

LONGEST = 1024  # lengths that are tried where a program does not hold for all


class Tracer:
    """Traces functions whose arguments have axes of any length, with the gradients they take.

    What one graph returns another may take: all of them share their lengths. Code that asks how
    long an axis is, and does something else for each answer, is traced for the answer at hand;
    `limits` then says how far that holds.
    """

    def __init__(self) -> None:
        self._lengths = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._lengths, allow_non_fake_inputs=True)
        self._axes: dict[Any, str] = {}  # what stands for a length, to the axis
        self._drawn: dict[str, int] = {}

    def stand_in(self, value: Tensor, axis: str = "") -> Tensor:
        """Return what `graph` takes in a tensor's place.

        Args:
            value: the tensor.
            axis: name of its first axis if that may have any length; tensors of one episode that
                name the same axis are equally long.
        """
        free = [DimDynamic.DYNAMIC] if axis else []
        kinds = free + [DimDynamic.STATIC] * (value.dim() - len(free))
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        found = self._mode.from_tensor(value.detach(), symbolic_context=context)
        if axis and _is_free(found.shape[0]):  # a length of 1 is not
            length: Any = found.shape[0]
            self._axes[length.node.expr] = axis
            self._drawn[axis] = len(value)
        return found

    def graph(self, function: Callable[..., Any], stand_ins: Sequence[Tensor]) -> GraphModule:
        """Return a function of tensors as a graph.

        Raises:
            Exception: of many kinds, if the function asks for the value of a tensor.
        """
        with _symbolic_len(), portable():
            graph = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(
                *stand_ins
            )
        graph.graph.eliminate_dead_code()
        return GraphModule(graph, graph.graph)  # without the constants that nothing uses

    def limits(self) -> Limits:
        """Return the lengths that all graphs hold for; a length of 1 is not known to be right."""
        symbols = {axis: sympy.Symbol(axis, integer=True, positive=True) for axis in self._drawn}
        names = {each: symbols[axis] for each, axis in self._axes.items()}
        asked = [sympy.sympify(guard.expr).subs(names) for guard in self._lengths.guards]
        found: Limits = {}
        for axis, drawn in self._drawn.items():
            mine = [each for each in asked if symbols[axis] in each.free_symbols]
            if any(len(each.free_symbols) > 1 for each in mine):
                found[axis] = (drawn, drawn)
            elif mine:
                found[axis] = _around(drawn, mine)
            else:
                found[axis] = (1, None)
        return found


def exported(
    graph: GraphModule, stand_ins: Sequence[Tensor], arguments: Sequence[Tensor]
) -> ExportedProgram:
    """Return a graph as a program to be saved.

    Args:
        graph: as a `Tracer` returns it.
        stand_ins: what it was traced with.
        arguments: tensors in their place.

    Raises:
        Exception: of many kinds, if `torch.export` cannot take it.
    """
    free = [
        {axis: Dim.DYNAMIC for axis, length in enumerate(each.shape) if _is_free(length)} or None
        for each in stand_ins
    ]
    return torch.export.export(graph, tuple(arguments), dynamic_shapes=tuple(free))


def returned(graph: GraphModule) -> list[Tensor]:
    """Return what stands for the tensors that a graph returns."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    return [node.meta["val"] for node in output.args[0]]


@contextmanager
def portable() -> Iterator[None]:
    """Use the operations that every device has, quietly."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            with (
                sdpa_kernel(SDPBackend.MATH),
                torch.backends.mkldnn.flags(enabled=False),
                torch.backends.nnpack.flags(enabled=False),
            ):
                yield
        finally:
            logging.disable(disabled)


@contextmanager
def _symbolic_len() -> Iterator[None]:
    """Let `len(tensor)` give a length that is not known yet, which Python's own cannot."""
    own = builtins.len
    tables = {id(vars(builtins)): vars(builtins)}
    for module in list(sys.modules.values()):  # study files have builtins of their own
        table = getattr(module, "__dict__", {}).get("__builtins__")
        if isinstance(table, dict):
            tables[id(table)] = table

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, Tensor) and value.dim() else own(value)

    for table in tables.values():
        table["len"] = length
    try:
        yield
    finally:
        for table in tables.values():
            table["len"] = own


def _is_free(length: Any) -> bool:
    return isinstance(length, torch.SymInt) and length.node.maybe_as_int() is None


def _around(drawn: int, asked: Sequence[sympy.Basic]) -> tuple[int, int | None]:
    """Return the lengths around one for which all that was asked has the same answers."""

    def same(length: int) -> bool:
        return all(each.subs(dict.fromkeys(each.free_symbols, length)) == True for each in asked)  # noqa: E712

    def farthest(lengths: Iterable[int]) -> int:
        last = drawn
        for length in lengths:
            if not same(length):
                break
            last = length
        return last

    return farthest(range(drawn - 1, 0, -1)), farthest(range(drawn + 1, LONGEST + 1))
