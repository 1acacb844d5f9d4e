"""What an update may be made of.

Every operation is finite, with finite first and second derivatives, wherever it is used: divisions,
roots and logarithms keep a distance of `TINY` from their poles, and exponentials stop growing.
Where the derivative of the exact operation is finite as well, values are the exact ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from evometa.space import Primitive

TINY = 1e-8
LARGEST_EXPONENT = 10.0
PROBE = (0.0, 1e-8, -1e-8, 1e-3, -1e-3, 1.0, -1.0, 100.0, -100.0)
ALL = ("scalar", "layer", "element")


@dataclass(frozen=True)
class Operation:
    """A primitive with its meaning.

    Attributes:
        primitive: name, and the kinds of arguments and result.
        apply: a function of tensors; None for what an update sees, and for running averages.
        formula: how people write it, with `{0}`, `{1}` for the arguments.
        code: the same as an expression of PyTorch. `norm` and `mean` of layers, and running
            averages, are written by `evometa.rule.source`.
        remembers: the same for a running average: from `(decay, argument, memory, time)` to
            `(value, new memory)`.
        by_layer: the same for what becomes one number: a function of the weights of one layer.
    """

    primitive: Primitive
    formula: str
    code: str = ""
    apply: Callable[..., Tensor] | None = None
    remembers: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] | None = None
    by_layer: Callable[[Tensor], Tensor] | None = None

    @property
    def name(self) -> str:
        """Its name in a list of tokens."""
        return self.primitive.name


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / torch.where(b.abs() < TINY, torch.where(b < 0, -TINY, TINY).to(b.dtype), b)


def _sqrt(a: Tensor) -> Tensor:
    return a.clamp(min=TINY**2).sqrt()


def _log(a: Tensor) -> Tensor:
    return (a.abs() + TINY).log()


def _exp(a: Tensor) -> Tensor:
    return a.clamp(max=LARGEST_EXPONENT).exp()


def _norm(a: Tensor) -> Tensor:
    return (a.square().sum(-1) + TINY**2).sqrt()


def _mean(a: Tensor) -> Tensor:
    return a.mean(-1)


def _average(d: Tensor, a: Tensor, memory: Tensor, time: float) -> tuple[Tensor, Tensor]:
    new = d * memory + (1 - d) * a
    return new, new


def _unbiased(d: Tensor, a: Tensor, memory: Tensor, time: float) -> tuple[Tensor, Tensor]:
    new = d * memory + (1 - d) * a
    return new / (1 - d**time), new


def _before(d: Tensor, a: Tensor, memory: Tensor, time: float) -> tuple[Tensor, Tensor]:
    return memory, d * memory + (1 - d) * a


def _trace(d: Tensor, a: Tensor, memory: Tensor, time: float) -> tuple[Tensor, Tensor]:
    new = d * memory + a
    return new, new


def _seen(name: str, kind: str, formula: str) -> Operation:
    return Operation(Primitive(name, (), kind), formula)


def _unary(name: str, apply: Any, formula: str, code: str, kinds: Any = ("element",)) -> Operation:
    return Operation(Primitive(name, ("same",), kinds=kinds), formula, code, apply)


def _binary(name: str, apply: Any, formula: str, code: str) -> Operation:
    return Operation(Primitive(name, ("same", "same"), kinds=ALL), formula, code, apply)


def _running(name: str, remembers: Any, formula: str) -> Operation:
    return Operation(Primitive(name, ("decay", "same")), formula, remembers=remembers)


_OPERATIONS = (
    _seen("gradient", "element", "g"),
    _seen("parameter", "element", "w"),
    _seen("initial", "element", "w₀"),
    _seen("rate", "element", "rate"),
    _seen("gain", "element", "a"),
    _seen("shift", "element", "b"),
    _seen("dimension", "layer", "dim"),
    _seen("depth", "layer", "depth"),
    _seen("loss", "scalar", "loss"),
    _seen("progress", "scalar", "s"),
    _binary("add", torch.add, "({0} + {1})", "({0} + {1})"),
    _binary("sub", torch.sub, "({0} - {1})", "({0} - {1})"),
    _binary("mul", torch.mul, "{0}·{1}", "({0} * {1})"),
    _binary("div", _div, "{0} / {1}", "divide({0}, {1})"),
    _binary("maximum", torch.maximum, "max({0}, {1})", "torch.maximum({0}, {1})"),
    _binary("minimum", torch.minimum, "min({0}, {1})", "torch.minimum({0}, {1})"),
    _unary("neg", torch.neg, "-{0}", "(-{0})", ALL),
    _unary("square", torch.square, "{0}²", "{0}.square()", ALL),
    _unary("sqrt", _sqrt, "√{0}", "root({0})", ALL),
    _unary("exp", _exp, "exp({0})", f"{{0}}.clamp(max={LARGEST_EXPONENT}).exp()", ALL),
    _unary("log", _log, "log|{0}|", f"({{0}}.abs() + {TINY}).log()", ALL),
    _unary("tanh", torch.tanh, "tanh({0})", "{0}.tanh()", ALL),
    _unary("relu", torch.relu, "relu({0})", "{0}.relu()", ALL),
    _unary("abs", torch.abs, "|{0}|", "{0}.abs()"),
    _unary("sign", torch.sign, "sign({0})", "{0}.sign()"),
    Operation(Primitive("norm", ("element",), "layer", ()), "‖{0}‖", by_layer=_norm),
    Operation(Primitive("mean", ("element",), "layer", ()), "mean({0})", by_layer=_mean),
    _running("average", _average, "avg({1}; {0})"),
    _running("unbiased", _unbiased, "avg*({1}; {0})"),
    _running("before", _before, "avg₋({1}; {0})"),
    _running("trace", _trace, "sum({1}; {0})"),
)
OPERATIONS: Mapping[str, Operation] = MappingProxyType({op.name: op for op in _OPERATIONS})
"""What a rule sees: `gradient`, `parameter`, its meta-trained `initial` value, the `rate`; a `gain`
and a `shift`, learned for each weight from 1 and 0; of each layer its `dimension` (weights) and
`depth` (0 for the first, 1 for the head); the support `loss`; `progress`, steps done over steps
trained. What it does: arithmetic; the `norm` and `mean` of each layer; and running averages, the
first argument being the share that is kept: `average` from 0, `unbiased` as Adam's, `before` the
present step, and `trace`, a sum that decays."""

LEARNED: Mapping[str, Operation] = MappingProxyType(
    {
        op.name: op
        for op in (
            _seen("curved", "element", "M(g)"),
            _seen("pace", "layer", "pace(w, g)"),
            _seen("fade", "layer", "fade(w, g)"),
            _seen("input", "element", "i(g, loss)"),
            _seen("forget", "element", "(1 - f(g, loss))"),
        )
    }
)
"""What a rule sees besides, where it is asked for: the gradient `curved` by learned matrices
(Meta-Curvature); `pace` and `fade`, the rate and the loss of weight that a network chooses for each
layer (ALFA); `input` and `forget`, the gates of a learned cell for each weight (Meta-LSTM)."""


def operations(own: Sequence[Primitive] = ()) -> dict[str, Operation]:
    """Return the operations by name, with primitives of one's own.

    Raises:
        ValueError: if the name of a primitive is taken, or it has no function that keeps the shape
            of its arguments and is finite, with finite first and second derivatives, on `PROBE`.
    """
    table = {**OPERATIONS, **LEARNED}
    for primitive in own:
        table[primitive.name] = _own(primitive)
    return table


@functools.cache
def _own(primitive: Primitive) -> Operation:
    name, function = primitive.name, primitive.function
    if name in OPERATIONS:
        raise ValueError(f"the name {name!r} is taken; give the primitive another one")
    if function is None or not primitive.arguments or "decay" in primitive.arguments:
        raise ValueError(f"the primitive {name!r} must have a function of one or more tensors")
    if primitive.result not in ("same", "element"):
        raise ValueError(f"the result of {name!r} must be of kind 'same' or 'element'")
    values = torch.tensor(PROBE, dtype=torch.float64)
    inputs = [values.roll(place).requires_grad_() for place in range(len(primitive.arguments))]
    try:
        output = function(*inputs)
        first = torch.autograd.grad(
            output.sum(), inputs, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = torch.stack([value.sum() for value in first]).sum()
        second = [torch.zeros(1)]
        if total.requires_grad:
            second = list(
                torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
            )
    except Exception as error:
        raise ValueError(
            f"the primitive {name!r} must be differentiable, but raised "
            f"{type(error).__name__}: {error}"
        ) from error
    if output.shape != values.shape:
        raise ValueError(
            f"the primitive {name!r} must keep the shape {tuple(values.shape)} of its arguments, "
            f"got {tuple(output.shape)}"
        )
    for what, tensors in (("values", [output]), ("first", first), ("second", second)):
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            of = what if what == "values" else f"{what} derivatives"
            raise ValueError(
                f"the primitive {name!r} must have finite {of} at {', '.join(map(str, PROBE))}"
            )
    call = ", ".join(f"{{{place}}}" for place in range(len(primitive.arguments)))
    written = f"{name}({call})"
    return Operation(primitive, written, written, function)
