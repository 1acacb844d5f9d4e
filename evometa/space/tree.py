"""Expressions as genes: what genetic programming evolves."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from evometa.errors import GenomeError, SpaceError
from evometa.records import Genome
from evometa.space.expression import DEEPEST, LIMITS, Node, Primitive, parse
from evometa.space.numeric import Float
from evometa.space.protocol import Leaf, Numeric, pick, refuse

OPERATORS = ("subtree", "point", "constant", "insert", "delete")
ATTEMPTS = 50


@final
@dataclass(frozen=True)
class Tree:
    """A typed expression over primitives, as a list of tokens in prefix order.

    Generation, sub-tree and point mutation, insertion and deletion are DEAP's, for strongly typed
    genetic programming (Montana, 1995; Koza, 1992).

    Args:
        primitives: what expressions are made of.
        size: most nodes an expression may have.
        depth: most levels below the root.
        required: names that every expression must use.

    Raises:
        SpaceError: if a name comes twice, there is no primitive to begin with, or a required one
            is unknown.
    """

    primitives: tuple[Primitive, ...]
    size_limit: int = 24
    depth_limit: int = 8
    required: tuple[str, ...] = ()
    _operators: Any = field(default=None, init=False, repr=False, compare=False)

    def __init__(
        self,
        primitives: Sequence[Primitive],
        *,
        size: int = 24,
        depth: int = 8,
        required: Sequence[str] = (),
    ) -> None:
        for primitive in primitives:
            if not isinstance(primitive, Primitive):
                raise SpaceError(f"a Tree is made of Primitives, got {primitive!r}")
        names = Counter(primitive.name for primitive in primitives)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise SpaceError(
                f"the primitives of a Tree must differ in name, got {twice[0]!r} twice"
            )
        if not any(not p.arguments and p.result == "element" for p in primitives):
            raise SpaceError("a Tree needs a primitive without arguments of kind 'element'")
        if size < 1 or not 0 <= depth <= DEEPEST:
            raise SpaceError(
                f"`size >= 1` and `0 <= depth <= {DEEPEST}` must hold, got {size} and {depth}"
            )
        for name in required:
            if name not in names:
                raise SpaceError(f"a required name must be one of {', '.join(names)}, got {name!r}")
        object.__setattr__(self, "primitives", tuple(primitives))
        object.__setattr__(self, "size_limit", size)
        object.__setattr__(self, "depth_limit", depth)
        object.__setattr__(self, "required", tuple(required))
        object.__setattr__(self, "_operators", None)

    @property
    def type(self) -> type:
        """`str`: a table shows the tokens as JSON."""
        return str

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw an expression; its size is drawn first, all sizes equally likely.

        Raises:
            SpaceError: if no expression satisfies the limits in many attempts.
        """
        for _ in range(ATTEMPTS):
            for tokens in self._gp().generate(1 + pick(self.size_limit, rng), rng):
                if self.holds(tokens):
                    return list(tokens)
        raise SpaceError(
            f"no expression in {ATTEMPTS} attempts had at most {self.size_limit} nodes and "
            f"{self.depth_limit} levels, and used {list(self.required)}; widen the limits"
        )

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the genome is an expression within the limits."""
        if isinstance(genome, list) and len(genome) > 4 * self.size_limit:
            raise refuse(path, f"at most {self.size_limit} nodes", f"{len(genome)} tokens")
        nodes = parse(genome, self.primitives, path)
        if len(nodes) > self.size_limit:
            raise refuse(path, f"at most {self.size_limit} nodes", f"{len(nodes)}: {genome}")
        deep = max(nodes, key=lambda node: node.depth)
        if deep.depth > self.depth_limit:
            raise refuse(
                f"{path}[{deep.at}]", f"at most {self.depth_limit} levels deep", deep.depth
            )
        for name in self.required:
            if name not in genome:
                raise refuse(path, f"an expression that uses {name!r}", genome)

    def holds(self, genome: Genome) -> bool:
        """Return whether `validate` would accept the genome."""
        try:
            self.validate(genome)
        except GenomeError:
            return False
        return True

    def size(self) -> float:
        """Return infinity: constants are real numbers."""
        return float("inf")

    def moves(self, genome: Genome) -> int:
        """Return the number of nodes: each may be where a mutation strikes."""
        return len(self._nodes(genome))

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Return an expression changed by one of the `OPERATORS`, all equally likely."""
        return self.operate(OPERATORS[pick(len(OPERATORS), rng)], genome, rng)

    def operate(self, operator: str, genome: Genome, rng: np.random.Generator) -> Genome:
        """Return an expression changed by an operator.

        Args:
            operator: `"subtree"` and `"point"` draw a sub-tree or one node anew, `"constant"`
                moves a number, `"insert"` and `"delete"` put an operation in or take one out.
                Where it can change nothing, a sub-tree is drawn anew.
            genome: a valid expression.
            rng: all randomness.
        """
        nodes = self._nodes(genome)
        for attempt in range(ATTEMPTS):
            used = operator if attempt < ATTEMPTS // 2 else "subtree"
            child = (
                _move_constant(genome, nodes, rng)
                if used == "constant"
                else self._gp().mutate(used, nodes, rng)
            )
            if child != genome and self.holds(child):
                return child
        for _ in range(ATTEMPTS):
            child = self.sample(rng)
            if child != genome:
                break
        return child

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Return the first expression with one of its sub-trees taken from the second.

        Equal parents have an equal child.
        """
        if first == second:
            return list(first)
        nodes, others = self._nodes(first), self._nodes(second)
        for _ in range(ATTEMPTS):
            child = self._gp().crossover(nodes, others, rng)
            if self.holds(child):
                return child
        return list(first)

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return the spaces of the expression's constants."""
        found: dict[str, Numeric] = {}
        for index, token in enumerate(genome):
            if not isinstance(token, str):
                found[f"{path}[{index}]"] = _DECAY if _is_decay(genome, index, self) else _SCALAR
        return found

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data; functions by name."""
        return {
            "tree": [[p.name, list(p.arguments), p.result, list(p.kinds)] for p in self.primitives],
            "size": self.size_limit,
            "depth": self.depth_limit,
            "required": list(self.required),
        }

    def _nodes(self, genome: Genome) -> list[Node]:
        return parse(genome, self.primitives)

    def _gp(self) -> Any:
        # DEAP is loaded where trees are made; a worker that only evaluates them needs none
        if self._operators is None:
            module = importlib.import_module("evometa.space.tree_operators")
            object.__setattr__(self, "_operators", module.TreeOperators(self.primitives))
        return self._operators

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_operators": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


_SCALAR = Float(*LIMITS["scalar"], log=True)
_DECAY = Float(*LIMITS["decay"])


def _is_decay(genome: Genome, index: int, tree: Tree) -> bool:
    """Return whether the number at a token is the decay of a running average."""
    before = index - 1 if index and genome[index - 1] == "learned" else index
    operation = genome[before - 1] if before else ""
    primitive = next((p for p in tree.primitives if p.name == operation), None)
    return primitive is not None and primitive.arguments[:1] == ("decay",)


def _move_constant(genome: Genome, nodes: Sequence[Node], rng: np.random.Generator) -> Genome:
    """Return an expression with one constant moved, or learned instead of fixed, or vice versa."""
    places = [node for node in nodes if not isinstance(node.value, str)]
    if not places:
        return genome
    node = places[pick(len(places), rng)]
    if rng.random() < 0.2:  # learned or not
        if node.learned:
            return genome[: node.at] + genome[node.at + 1 :]
        return [*genome[: node.at], "learned", *genome[node.at :]]
    value, (low, high) = float(node.value), LIMITS[node.kind]
    if node.kind == "decay":  # on the scale of its horizon, 1 / (1 - decay)
        value = 1 - (1 - value) * float(np.exp(rng.normal(0, 0.7)))
    else:
        value *= float(np.exp(rng.normal(0, 0.7)))
    value = float(np.clip(float(f"{value:.4g}"), low, high))
    place = node.at + node.learned
    return [*genome[:place], value, *genome[place + 1 :]]
