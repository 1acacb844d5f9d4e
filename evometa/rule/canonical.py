"""When are two updates the same, and can an update learn at all?

Expressions that differ may be equal by algebra, which `simplified` sees, or for the numbers that
rules meet, which a fixed probe sees. What cannot learn shows on the probe as well.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evometa.rule.gradient import CONSTANTS, DESCENT, GradientRule
from evometa.rule.operations import operations
from evometa.rule.protocol import Tensors
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
    moves, slopes = _moves(rule, _wide(max(rule.steps, PROBE_STEPS)))
    digest = hashlib.sha256(f"{rule.frame} {rule.rate} {rule.clip} {rule.outer.rate}".encode())
    digest.update(_rounded(moves))
    for part in sorted(_rounded(value) for value in slopes):
        digest.update(part)
    return digest.hexdigest()


def check_update(rule: GradientRule) -> None:
    """Raise `ValueError` with the reason, if the rule's update cannot learn.

    It must change with the gradient, stay finite and small for ordinary numbers, and have finite
    derivatives.
    """
    if rule.update == DESCENT:
        return
    moves, slopes = _moves(rule, _ordinary(20))
    written = " ".join(map(str, rule.update))
    if not bool(moves.isfinite().all()) or float(moves.abs().max()) > EXPLODED:
        raise ValueError(f"the update explodes on ordinary gradients: {written}")
    if float(moves.abs().max()) == 0:
        raise ValueError(f"the update changes nothing: {written}")
    others = _ordinary(20)._replace(grads=_ordinary(21).grads)
    if torch.equal(moves, _moves(rule, others)[0]):
        raise ValueError(f"the update does not depend on the gradient: {written}")
    if not all(bool(value.isfinite().all()) for value in slopes):
        raise ValueError(f"the derivative of the update is not finite: {written}")


class _Probe(NamedTuple):
    """Numbers that a rule meets, all fixed.

    Attributes:
        params: by name.
        grads: by name, beginning with the axis of steps.
        losses: one a step.
        factors: of the rates, so that rates that differ tell where they are used.
    """

    params: Tensors
    grads: Tensors
    losses: Tensor
    factors: Tensor


@functools.cache
def _ordinary(seed: int) -> _Probe:
    """Return numbers as they are met in practice: of about 1, and smaller gradients."""
    shapes = {"a.weight": (3, 2), "a.bias": (3,), "b.weight": (2, 3)}
    return _drawn(seed, shapes, PROBE_STEPS, gradients=(-2.0, 0.0), zeros=0.0, losses=(-0.5, 0.5))


@functools.cache
def _wide(steps: int) -> _Probe:
    """Return numbers of many sizes, exact zeros among them, in layers of many sizes."""
    shapes = {
        "a.weight": (1,),
        "b.weight": (4, 3),
        "b.bias": (4,),
        "c.weight": (10, 12),
        "d.weight": (70, 30),
        "e.weight": (2, 20),
        "e.bias": (2,),
    }
    return _drawn(7, shapes, steps, gradients=(-6.0, 2.0), zeros=0.02, losses=(-3.0, 2.0))


def _drawn(
    seed: int,
    shapes: dict[str, tuple[int, ...]],
    steps: int,
    *,
    gradients: tuple[float, float],
    zeros: float,
    losses: tuple[float, float],
) -> _Probe:
    """Draw numbers whose powers of ten lie between limits."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * drawn

    def numbers(low: float, high: float, *shape: int) -> Tensor:
        values = uniform(-1, 1, *shape) * 10 ** uniform(low, high, *shape)
        return torch.where(uniform(0, 1, *shape) < zeros, 0.0, values)

    params = {name: numbers(-1, 0.5, *shape) for name, shape in shapes.items()}
    grads = {name: numbers(*gradients, steps, *shape) for name, shape in shapes.items()}
    spread = torch.linspace(*losses, steps, dtype=torch.float64)
    return _Probe(params, grads, 10**spread, uniform(0.5, 2, 997))


def _moves(rule: GradientRule, probe: _Probe) -> tuple[Tensor, list[Tensor]]:
    """Return what the rule does to a probe, step by step, and its derivatives by all numbers."""
    learned, place = rule.learned(probe.params), 0
    for name, value in learned.items():
        if name == CONSTANTS:
            continue
        places = torch.arange(place, place + value.numel()) % len(probe.factors)
        factors = probe.factors[places].view(value.shape)
        learned[name] = torch.where(value == 0, 0.1 * (factors - 1), value * factors)
        place += value.numel()
    leaves = {name: value.detach().requires_grad_() for name, value in learned.items()}
    start = {name: value.detach().requires_grad_() for name, value in probe.params.items()}
    grads = {name: value.detach().requires_grad_() for name, value in probe.grads.items()}
    state = rule.init(start, leaves, rule.constants(probe.params))
    now, moves = start, []
    for step in range(len(probe.losses)):
        given = {name: value[step] for name, value in grads.items()}
        new, state = rule.apply(given, probe.losses[step], state, now, step)
        moves.append(torch.cat([(now[name] - new[name]).reshape(-1) for name in new]))
        now = new
    moved = torch.stack(moves)
    weights = torch.linspace(0.5, 1.5, moved.numel(), dtype=moved.dtype).view(moved.shape)
    found = torch.autograd.grad(
        (moved * weights).sum(),
        [*leaves.values(), *start.values(), *grads.values()],
        allow_unused=True,
        materialize_grads=True,
    )
    slopes = [value for name, value in zip(leaves, found, strict=False) if name != CONSTANTS]
    slopes += found[len(leaves) :]
    if CONSTANTS in leaves:  # one by one: their order is that of the tokens, and may differ
        slopes += list(found[list(leaves).index(CONSTANTS)])
    return moved.detach(), slopes


def _rounded(values: Tensor) -> bytes:
    """Return numbers to `DIGITS` digits, so that rounding does not tell equal rules apart."""
    array = values.detach().reshape(-1).numpy()
    with np.errstate(all="ignore"):
        size = np.where(array == 0, 1.0, np.abs(array))
        unit = 10.0 ** (np.floor(np.log10(size)) - DIGITS + 1)
        kept = np.round(array / unit)
    return np.nan_to_num(np.stack([kept, unit]) + 0.0).tobytes()  # + 0: -0 is 0


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
    if name == "mul" and first == second and not _learns(first):
        return _reduced(("square", False, first))
    if name in ("maximum", "minimum") and first == second and not _learns(first):
        return first
    if name == "add" and second[0] == "neg":
        return _reduced(("sub", False, first, second[2]))
    if name == "add" and first[0] == "neg":
        return _reduced(("sub", False, second, first[2]))
    if name == "sub" and second[0] == "neg":
        return _reduced(("add", False, first, second[2]))
    return (name, learned, *arguments)


def _learns(tree: _Tree) -> bool:
    """Return whether a tree has learned constants, of which two equal ones may part."""
    return bool(tree[1]) or any(_learns(argument) for argument in tree[2:])


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
