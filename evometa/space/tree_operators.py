"""The bridge to DEAP's genetic programming: tokens in, tokens out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from deap import gp

from evometa.records import Genome
from evometa.space.expression import KINDS, LEARNED, Node, Primitive
from evometa.space.global_random import global_random
from evometa.space.protocol import pick

HEIGHTS = (0, 6)
TRIES = 12  # trees drawn at once
SUBTREE = (0, 3)  # heights of new sub-trees


class _Element:
    """A value for each weight. DEAP takes a subclass wherever it takes the class."""


class _Layer(_Element):
    """A value for each layer."""


class _Scalar(_Layer):
    """One value."""


class _Decay:
    """The constant of a running average."""


_TYPES: dict[str, type] = {
    "element": _Element,
    "layer": _Layer,
    "scalar": _Scalar,
    "decay": _Decay,
}


class TreeOperators:
    """DEAP's operators over some primitives.

    Args:
        primitives: what expressions are made of.
    """

    def __init__(self, primitives: Sequence[Primitive]) -> None:
        self._set = gp.PrimitiveSetTyped("expressions", [], _Element)
        for kind in reversed(KINDS):  # DEAP wants to see a class before its subclasses
            for primitive in primitives:
                if not primitive.arguments and primitive.result == kind:
                    self._set.addTerminal(None, _TYPES[kind], name=primitive.name)
        for primitive in primitives:
            for kind in primitive.kinds if primitive.arguments else ():
                arguments = [_TYPES[kind if a == "same" else a] for a in primitive.arguments]
                result = _TYPES[kind if primitive.result == "same" else primitive.result]
                self._set.addPrimitive(primitive, arguments, result, f"{primitive.name}:{kind}")
        for kind, draw in (("scalar", _draw_scalar), ("decay", _draw_decay)):
            for learned in (False, True):
                name = f"{kind} {learned}"
                self._set.addEphemeralConstant(name, partial(draw, learned), _TYPES[kind])
        for type_ in _TYPES.values():
            if not self._set.primitives[type_]:  # a leaf then, at whatever depth DEAP wants more
                self._set.primitives[type_] = [_leaf(node) for node in self._set.terminals[type_]]

    def generate(self, size: int, rng: np.random.Generator) -> list[Genome]:
        """Draw some expressions, those nearest to so many nodes first."""
        with global_random(rng):
            drawn = [_drawn(gp.genHalfAndHalf, self._set, *HEIGHTS) for _ in range(TRIES)]
        return [_tokens(tree) for tree in sorted(drawn, key=lambda tree: abs(len(tree) - size))]

    def mutate(self, operator: str, nodes: Sequence[Node], rng: np.random.Generator) -> Genome:
        """Return the tokens of an expression changed by an operator."""
        tree = self._tree(nodes)
        with global_random(rng):
            if operator == "subtree":
                (tree,) = gp.mutUniform(tree, _subtree, self._set)
            elif operator == "point":
                (tree,) = gp.mutNodeReplacement(tree, self._set)
            elif operator == "insert":
                (tree,) = gp.mutInsert(tree, self._set)
            else:
                tree = _shrunk(tree)
        return _tokens(tree)

    def crossover(
        self, nodes: Sequence[Node], others: Sequence[Node], rng: np.random.Generator
    ) -> Genome:
        """Return the tokens of the first expression with a sub-tree of the second."""
        # DEAP's own chooses among a set of classes, whose order differs from process to process
        tree, donor = self._tree(nodes), self._tree(others)
        place = pick(len(tree), rng)
        fitting = [at for at, node in enumerate(donor) if issubclass(node.ret, tree[place].ret)]
        if fitting:
            taken = donor[donor.searchSubtree(fitting[pick(len(fitting), rng)])]
            tree[tree.searchSubtree(place)] = taken
        return _tokens(tree)

    def _tree(self, nodes: Sequence[Node]) -> Any:
        return gp.PrimitiveTree([self._node(node) for node in nodes])

    def _node(self, node: Node) -> Any:
        if not isinstance(node.value, str):
            return gp.Terminal((node.value, node.learned), False, _TYPES[node.kind])
        if node.arguments:
            return self._set.mapping[f"{node.value}:{node.works_on}"]
        return self._set.mapping[node.value]


class _Leaf(gp.Terminal):  # type: ignore[misc]
    """A terminal that may stand where DEAP wants an operation."""

    args = ()


def _leaf(node: Any) -> Any:
    if isinstance(node, type):  # a constant whose value is not drawn yet: a class of its own
        node.args = ()  # type: ignore[attr-defined]
        return node
    return _Leaf(node.value, True, node.ret)


def _drawn(generate: Any, *arguments: Any) -> Any:
    """Return a new tree; constants that DEAP left as classes get their values."""
    return [node() if isinstance(node, type) else node for node in generate(*arguments)]


def _subtree(pset: Any, type_: Any) -> Any:
    return _drawn(gp.genGrow, pset, *SUBTREE, type_)


def _shrunk(tree: Any) -> Any:
    """Return the tree with one operation replaced by its argument; DEAP's spares the root."""
    root = tree[0]
    fitting = [index for index, kind in enumerate(getattr(root, "args", ())) if kind is root.ret]
    if fitting and random.random() < 1 / len(tree):
        start, chosen = 1, random.choice(fitting)
        for _ in range(chosen):
            start = tree.searchSubtree(start).stop
        return gp.PrimitiveTree(tree[tree.searchSubtree(start)])
    return gp.mutShrink(tree)[0]


def _tokens(tree: Any) -> Genome:
    tokens: list[str | float] = []
    for node in tree:
        if isinstance(node, gp.Primitive):
            tokens.append(node.name.partition(":")[0])
        elif isinstance(node.value, tuple):
            value, learned = node.value
            tokens += [LEARNED, value] if learned else [value]
        else:
            tokens.append(node.value)
    return tokens


def _draw_scalar(learned: bool) -> tuple[float, bool]:
    """Draw a constant around 1, over three orders of magnitude."""
    return float(f"{10 ** random.uniform(-2, 1):.3g}"), learned


def _draw_decay(learned: bool) -> tuple[float, bool]:
    """Draw a decay whose horizon is 1 to 100 steps."""
    return float(f"{1 - 10 ** random.uniform(-2, 0):.3g}"), learned
