"""Typed expressions as flat lists of tokens in prefix order: `["mul", "rate", "gradient"]`.

Three kinds of values are told apart: a `scalar` is one number, a `layer` value is one number a
layer, an `element` value is one number a weight. A narrower kind may stand wherever a wider one
may, never the other way round. A number is a constant; `"learned"` before a number makes it one
that the outer loop trains. Nothing is ever evaluated as Python.
"""

from __future__ import annotations

import difflib
import keyword
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evometa.errors import SpaceError
from evometa.space.protocol import refuse

Token: TypeAlias = str | float
KINDS = ("scalar", "layer", "element")  # from narrow to wide
LEARNED = "learned"
DEEPEST = 50
LIMITS = {"scalar": (1e-8, 100.0), "decay": (0.01, 0.9999)}
"""Least and largest constant; a `decay` is the share that a running average keeps at each step."""


@dataclass(frozen=True)
class Primitive:
    """A name that expressions may use.

    Attributes:
        name: what stands in the list of tokens.
        arguments: kind of each argument: `"scalar"`, `"layer"`, `"element"`, `"decay"` for a
            constant between 0 and 1, or `"same"` for the kind that the primitive works on.
        result: kind of the result, or `"same"`.
        kinds: the kinds it works on, where arguments or result are `"same"`.
        function: for primitives of one's own: a differentiable function of as many tensors as there
            are arguments, that is applied to tensors of shape `(weights,)` and works at every
            number.
    """

    name: str
    arguments: tuple[str, ...] = ()
    result: str = "same"
    kinds: tuple[str, ...] = ("element",)
    function: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", tuple(self.arguments))
        object.__setattr__(self, "kinds", tuple(k for k in KINDS if k in self.kinds))
        if not self.name.isidentifier() or keyword.iskeyword(self.name) or self.name == LEARNED:
            raise SpaceError(f"the name of a primitive must be an identifier, got {self.name!r}")
        if self.arguments and self.result == "same" and "same" not in self.arguments:
            raise SpaceError(
                f"the result of {self.name!r} is the same as what? Give it a kind, or an argument "
                "of kind 'same'"
            )
        for kind in (*self.arguments, self.result, *self.kinds):
            if kind not in (*KINDS, "same", "decay"):
                raise SpaceError(
                    f"a kind must be one of {', '.join(KINDS)}, same, decay, got {kind!r} "
                    f"in the primitive {self.name!r}"
                )


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of an expression.

    Attributes:
        value: name of a primitive, or a constant.
        at: place in the list of tokens.
        kind: of the result; `"decay"` for the constant of a running average.
        works_on: the kind that stands for `"same"`.
        learned: whether a constant is learned.
        arguments: places in the list of nodes.
        depth: 0 for the root.
    """

    value: Token
    at: int
    kind: str
    works_on: str
    learned: bool
    arguments: tuple[int, ...]
    depth: int


def parse(tokens: Any, primitives: Iterable[Primitive], path: str = "", **kinds: str) -> list[Node]:
    """Return the nodes of an expression, in prefix order.

    Args:
        tokens: names and numbers.
        primitives: what may be used.
        path: where the expression stands in a genome, for errors.
        **kinds: the kinds of primitives without arguments whose own kind is only known later.

    Raises:
        GenomeError: if it is no expression: unknown names, too few or too many arguments, kinds
            that do not fit, constants that are not finite or out of range.
    """
    if not isinstance(tokens, list) or not tokens:
        raise refuse(path, "a list of tokens, such as ['mul', 'rate', 'gradient']", tokens)
    reader = _Reader(tokens, {p.name: p for p in primitives}, path, kinds)
    end = reader.read(0, "element", 0)
    if end < len(tokens):
        raise refuse(
            f"{path}[{end}]",
            f"the end of the expression, which is whole before {_text(tokens)}",
            tokens[end],
        )
    return reader.nodes


class _Reader:
    def __init__(
        self,
        tokens: Sequence[Any],
        table: Mapping[str, Primitive],
        path: str,
        kinds: Mapping[str, str],
    ) -> None:
        self._tokens, self._table, self._path, self._kinds = tokens, table, path, kinds
        self.nodes: list[Node] = []

    def read(self, at: int, wanted: str, depth: int) -> int:
        """Append the nodes of the sub-expression at a token; return where the next one begins."""
        if at >= len(self._tokens):
            raise refuse(
                self._path,
                f"whole, but an argument of kind {wanted!r} is missing at the end of "
                f"{_text(self._tokens)}",
                self._tokens,
            )
        if depth > DEEPEST:
            raise refuse(f"{self._path}[{at}]", f"at most {DEEPEST} levels deep", depth)
        token = self._tokens[at]
        if token == LEARNED or type(token) is not str:
            return self._constant(at, wanted, depth)
        primitive = self._table.get(token)
        if primitive is None:
            near = difflib.get_close_matches(token, self._table, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise refuse(f"{self._path}[{at}]", f"one of {', '.join(self._table)}{hint}", token)
        if wanted == "decay":
            raise refuse(f"{self._path}[{at}]", "a constant between 0 and 1", token)
        return self._operation(primitive, at, wanted, depth)

    def _operation(self, primitive: Primitive, at: int, wanted: str, depth: int) -> int:
        place = len(self.nodes)
        self.nodes.append(Node(primitive.name, at, "", "", False, (), depth))
        end, children = at + 1, []
        widest = primitive.kinds[-1] if primitive.kinds else "element"
        for kind in primitive.arguments:
            children.append(len(self.nodes))
            # what is "same" may be as wide as wanted here, where the result is "same" as well
            most = wanted if primitive.result == "same" else widest
            end = self.read(end, most if kind == "same" else kind, depth + 1)
        works_on = self._works_on(primitive, [self.nodes[child].kind for child in children])
        kind = works_on if primitive.result == "same" else primitive.result
        kind = self._kinds.get(primitive.name, kind)
        if KINDS.index(kind) > KINDS.index(wanted):
            raise refuse(
                f"{self._path}[{at}]",
                f"of kind {wanted!r} or narrower, as the place where it stands wants",
                f"{primitive.name} of kind {kind}",
            )
        self.nodes[place] = Node(primitive.name, at, kind, works_on, False, tuple(children), depth)
        return end

    def _works_on(self, primitive: Primitive, kinds: Sequence[str]) -> str:
        """Return the narrowest kind that the primitive works on and its arguments fit in."""
        same = [k for k, want in zip(kinds, primitive.arguments, strict=True) if want == "same"]
        least = max((KINDS.index(kind) for kind in same), default=0)
        return next((k for k in KINDS[least:] if k in primitive.kinds), "element")

    def _constant(self, at: int, wanted: str, depth: int) -> int:
        learned = bool(self._tokens[at] == LEARNED)
        place = at + int(learned)
        value = self._tokens[place] if place < len(self._tokens) else None
        kind = "decay" if wanted == "decay" else "scalar"
        low, high = LIMITS[kind]
        ok = type(value) is float and math.isfinite(value) and low <= value <= high
        if not ok:
            what = "a decay" if kind == "decay" else "a constant"
            raise refuse(
                f"{self._path}[{place}]",
                f"{what}: a finite float from {low:g} to {high:g} (2.0, not 2), or the name of a "
                "primitive",
                value,
            )
        self.nodes.append(Node(float(value), at, kind, kind, learned, (), depth))  # type: ignore[arg-type]
        return place + 1


def _text(tokens: Sequence[Any]) -> str:
    text = " ".join(map(str, tokens))
    return text if len(text) < 100 else f"{text[:97]}..."
