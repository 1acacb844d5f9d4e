"""When are two updates the same, and can an update learn at all?

Expressions that differ may be equal by algebra, which `simplified` sees, or for the numbers that
rules meet, which a fixed probe sees. What cannot learn shows on the probe as well.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from evometa.rule.gradient import DESCENT, GradientRule
from evometa.rule.operations import operations
from evometa.rule.update import Update
from evometa.space import Primitive
from evometa.space.expression import LIMITS

COMMUTATIVE = ("add", "mul", "maximum", "minimum")
DIGITS = 6  # of the probe, that tell updates apart
PROBE_STEPS = 4
EXPLODED = 1e6

_Tree = Any  # a tuple: name or constant, whether learned, and the arguments


def simplified(tokens: Sequence[Any], own: Sequence[Primitive] = ()) -> list[Any]:
    """Return the shortest equal expression that algebra finds, in a canonical order.

    Constants are folded, identities (`x·1`, `--x`, `x·x`) and repeated `sign`, `abs`, `relu`
    applied, and the arguments of commutative operations sorted.

    Args:
        tokens: the expression.
        own: primitives of one's own; nothing is known of them.
    """
    update = Update.of(tokens, operations(own), "element")
    trees: list[_Tree] = [()] * len(update.nodes)
    for place in range(len(update.nodes) - 1, -1, -1):
        node = update.nodes[place]
        arguments = tuple(trees[child] for child in node.arguments)
        trees[place] = _reduced((node.value, node.learned, *arguments))
    return _tokens(trees[0])


def fingerprint(rule: GradientRule) -> str:
    """Return a text that is equal for rules which do the same.

    All genes but the update are compared as they are; updates by what they do on a fixed probe,
    to six digits, and by what the outer loop can change about them.
    """
    moves, learned = _probe(rule)
    parts = [_rounded(moves), *sorted(map(_rounded, learned))]
    text = f"{rule.frame} {rule.rate} {rule.clip} {rule.outer.rate} {parts}"
    return hashlib.sha256(text.encode()).hexdigest()


def check_update(rule: GradientRule) -> None:
    """Raise `ValueError` with the reason, if the rule's update cannot learn.

    It must change with the gradient, stay finite and small for ordinary numbers, and have finite
    derivatives.
    """
    if rule.update == DESCENT:
        return
    moves, learned = _probe(rule)
    written = " ".join(map(str, rule.update))
    if not bool(moves.isfinite().all()) or float(moves.abs().max()) > EXPLODED:
        raise ValueError(f"the update explodes on ordinary gradients: {written}")
    if float(moves.abs().max()) == 0:
        raise ValueError(f"the update changes nothing: {written}")
    other, _ = _probe(rule, other=True)
    if torch.equal(moves, other):
        raise ValueError(f"the update does not depend on the gradient: {written}")
    if not all(bool(value.isfinite().all()) for value in learned):
        raise ValueError(f"the derivative of the update is not finite: {written}")


@functools.cache
def _numbers(other: bool) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return parameters, gradients for each step, and factors of the rates."""
    generator = torch.Generator().manual_seed(20)
    shapes = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3)}

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = {name: draw(*shape) for name, shape in shapes.items()}
    grads = draw(PROBE_STEPS, 15) * torch.logspace(-2, 0, PROBE_STEPS, dtype=torch.float64)[:, None]
    factors = draw(15).abs() + 0.5
    return params, grads + draw(PROBE_STEPS, 15) if other else grads, factors


def _probe(rule: GradientRule, *, other: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Return what the rule does to fixed parameters, and its derivatives by its own numbers.

    Args:
        rule: the rule.
        other: use other gradients.
    """
    params, gradients, factors = _numbers(other)
    learned = rule.learned(params)
    place = 0
    for name, value in learned.items():
        if name != "update:constants":  # rates that differ tell where they are used
            places = torch.arange(place, place + value.numel()) % len(factors)
            moved = value * factors[places].view(value.shape)
            learned[name] = moved + 0.1 * (factors[places].view(value.shape) - 1) * (value == 0)
            place += value.numel()
    leaves = {name: value.detach().requires_grad_() for name, value in learned.items()}
    start = {name: value.detach().requires_grad_() for name, value in params.items()}
    grads = gradients.detach().requires_grad_()
    state = rule.init(start, leaves, rule.constants(params))
    now, moves = start, []
    for step in range(PROBE_STEPS):
        pieces = torch.split(grads[step], [value.numel() for value in params.values()])
        given = {
            name: piece.view(value.shape)
            for (name, value), piece in zip(params.items(), pieces, strict=True)
        }
        loss = grads[step].square().mean() + 0.5
        new, state = rule.apply(given, loss, state, now, step)
        moves.append(torch.cat([(now[name] - new[name]).reshape(-1) for name in params]))
        now = new
    moved = torch.stack(moves)
    weights = torch.linspace(0.5, 1.5, moved.numel(), dtype=moved.dtype).view(moved.shape)
    wanted = [*leaves.values(), *start.values(), grads]
    found = torch.autograd.grad(
        (moved * weights).sum(), wanted, allow_unused=True, materialize_grads=True
    )
    slopes = list(found)
    constants = dict(zip(leaves, slopes, strict=False)).pop("update:constants", None)
    if constants is not None:  # one by one: their order is that of the tokens, and may differ
        index = list(leaves).index("update:constants")
        slopes[index : index + 1] = list(constants)
    return moved.detach(), slopes


def _rounded(values: Tensor) -> str:
    # adding 0 makes -0 the same as 0
    return ",".join(f"{value + 0.0:.{DIGITS - 1}e}" for value in values.reshape(-1).tolist())


def _reduced(tree: _Tree) -> _Tree:
    """Apply algebra to the root; the arguments are reduced."""
    name, learned, *arguments = tree
    folded = _folded(name, arguments) if arguments else tree
    if folded is not None:
        return folded
    if name in COMMUTATIVE:
        arguments.sort(key=repr)
    if len(arguments) == 1:
        return _unary(name, arguments[0])
    first, second, *_ = arguments
    if name in ("mul", "div") and second[:2] == (1.0, False):
        return first
    if name == "mul" and first[:2] == (1.0, False):
        return second
    if name == "mul" and first == second:
        return _reduced(("square", False, first))
    if name in ("maximum", "minimum") and first == second:
        return first
    if name == "add" and second[0] == "neg":
        return _reduced(("sub", False, first, second[2]))
    if name == "add" and first[0] == "neg":
        return _reduced(("sub", False, second, first[2]))
    if name == "sub" and second[0] == "neg":
        return _reduced(("add", False, first, second[2]))
    return (name, learned, *arguments)


def _unary(name: str, argument: _Tree) -> _Tree:
    if name == "neg" and argument[0] == "neg":
        return argument[2]
    if name in ("square", "abs") and argument[0] in ("neg", "abs"):
        return _reduced((name, False, argument[2]))
    if name in ("sign", "relu") and argument[0] == name:
        return argument
    return (name, False, argument)


_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": max,
    "minimum": min,
    "square": lambda a: a * a,
    "sqrt": lambda a: a**0.5,
}


def _folded(name: str, arguments: Sequence[_Tree]) -> _Tree | None:
    """Return the value of an operation on fixed constants, if it is a constant's."""
    if name not in _FOLD or not all(isinstance(a[0], float) and not a[1] for a in arguments):
        return None
    value = _FOLD[name](*(argument[0] for argument in arguments))
    low, high = LIMITS["scalar"]
    return (value, False) if low <= value <= high else None


def _tokens(tree: _Tree) -> list[Any]:
    name, learned, *arguments = tree
    start = ["learned", name] if learned else [name]
    return start + [token for argument in arguments for token in _tokens(argument)]
