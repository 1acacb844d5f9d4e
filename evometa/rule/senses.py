"""What an update may see that is learned as a whole: curvature, rates and gates that depend.

Each sense is a pure function of what happens at a step, its learned numbers, and what it kept from
the step before. At the start of meta-training all of them leave gradient descent as it is, or
nearly so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.rule.protocol import Tensors
from evometa.rule.state import Flat, layer_of

HIDDEN = 20  # of the cell of Meta-LSTM, as published


def curved(gradient: Tensor, axes: list[Tensor]) -> Tensor:
    """Return a gradient after a matrix on the axis of outputs, of inputs, and of the kernel."""
    value = gradient.flatten(2) if gradient.dim() > 2 else gradient
    for axis, matrix in enumerate(axes):
        turned = value.movedim(axis, 0)
        mixed = matrix * turned if matrix.shape[0] == 1 else torch.tensordot(matrix, turned, 1)
        value = mixed.movedim(0, axis)
    return value.reshape(gradient.shape)


def lstm_cell(
    weight: Tensor, bias: Tensor, inputs: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return hidden and cell state after a step of an LSTM, all its gates in one product."""
    hidden, cell = state
    gates = torch.cat([inputs, hidden], -1) @ weight.T + bias
    admit, forget, new, out = gates.chunk(4, -1)
    cell = forget.sigmoid() * cell + admit.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def compressed(values: Tensor, limit: float = 10.0) -> Tensor:
    """Return numbers as size and sign, a new last axis of 2 (Andrychowicz et al., 2016)."""
    large = values.abs() >= torch.e**-limit
    size = torch.where(large, values.abs().clamp(min=torch.e**-limit).log() / limit, -1.0)
    return torch.stack([size, torch.where(large, values.sign(), torch.e**limit * values)], -1)


class Happening(NamedTuple):
    """What a sense perceives at a step.

    Attributes:
        gradient: of the support loss, shape `(weights,)`.
        parameter: before the step, likewise.
        loss: the support loss, a tensor without axes.
        place: of the step among a rule's own.
        flat: how a vector is made of tensors, and which weights belong together.
    """

    gradient: Tensor
    parameter: Tensor
    loss: Tensor
    place: int
    flat: Flat


class Sense(Protocol):
    """Something learned as a whole that an update may see.

    All its learned numbers are called `NAME:...`.
    """

    @property
    def name(self) -> str:
        """What its learned numbers begin with."""
        ...

    @property
    def tokens(self) -> tuple[str, ...]:
        """What of it an update may use."""
        ...

    @property
    def about(self) -> str:
        """What it gives, in words, for who reads a rule."""
        ...

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """Functions that it calls and that need PyTorch alone, for who reads a rule."""
        ...

    def learned(self, params: Tensors, steps: int, generator: torch.Generator) -> Tensors:
        """Return the initial learned numbers for the adapting parameters; axes of 1 are spread."""
        ...

    def start(self, flat: Flat) -> Tensors:
        """Return what is kept before the first step."""
        ...

    def __call__(self, now: Happening, learned: Tensors, kept: Tensors) -> tuple[Tensors, Tensors]:
        """Return what the update sees, by name, and what is kept for the next step."""
        ...


@dataclass(frozen=True)
class Curvature:
    """`curved`, the gradient after a learned matrix on each axis (Park and Oliva, 2019).

    Of a weight of shape `(out, in, *kernel)` each axis of outputs, of inputs and of the kernel as a
    whole has one; of what has one axis each number has a factor. All begin as identities.
    """

    name: str = "curved"
    tokens: tuple[str, ...] = ("curved",)
    about: str = "the gradient after the learned matrices of each axis of its tensor"
    functions: tuple[Callable[..., Any], ...] = (curved,)

    def learned(self, params: Tensors, steps: int, generator: torch.Generator) -> Tensors:
        """Return identities."""
        del steps, generator
        found = {}
        for name, value in params.items():
            if value.dim() < 2:
                found[f"curved:{name}"] = torch.ones_like(value)
                continue
            kernel = value.shape[2:]
            sizes = (*value.shape[:2], *([kernel.numel()] if kernel else []))
            for axis, size in enumerate(sizes):
                one = torch.eye(size, dtype=value.dtype, device=value.device)
                found[f"curved:{axis}:{name}"] = one
        return found

    def start(self, flat: Flat) -> Tensors:
        """Return nothing."""
        del flat
        return {}

    def __call__(self, now: Happening, learned: Tensors, kept: Tensors) -> tuple[Tensors, Tensors]:
        """Return the gradient after the matrices."""
        found = {}
        for name, value in now.flat.unflatten(now.gradient).items():
            if value.dim() < 2:
                found[name] = value * learned[f"curved:{name}"]
            else:
                axes = [learned[f"curved:{axis}:{name}"] for axis in range(min(value.dim(), 3))]
                found[name] = curved(value, axes)
        return {"curved": now.flat.flatten(found)}, kept


@dataclass(frozen=True)
class Alfa:
    """`pace` and `fade`, rates and decays that a network chooses for each layer (ALFA, Baik, 2020).

    It sees the means of the weights and of the gradients of all layers. `pace` is a factor of the
    rate, at first 1; `fade` is the share that a weight loses, at first 0, with a factor of its own
    for each layer and step.
    """

    name: str = "alfa"
    tokens: tuple[str, ...] = (
        "pace",
        "fade",
    )
    about: str = "one a layer, from the means of the weights and of the gradients of all layers"
    functions: tuple[Callable[..., Any], ...] = ()

    def learned(self, params: Tensors, steps: int, generator: torch.Generator) -> Tensors:
        """Return a network of one hidden layer whose outputs are 1, and the factors of decays."""
        some = next(iter(params.values()))
        layers = len({layer_of(name) for name in params})
        width, far = 2 * layers, (2 * layers) ** -0.5
        return {
            "alfa:hidden.weight": _uniform(some, (width, width), -far, far, generator),
            "alfa:hidden.bias": _uniform(some, (width,), -far, far, generator),
            "alfa:out.weight": some.new_zeros(width, width),
            "alfa:out.bias": some.new_ones(width),
            "alfa:keep": some.new_ones(layers, steps),
        }

    def start(self, flat: Flat) -> Tensors:
        """Return nothing."""
        del flat
        return {}

    def __call__(self, now: Happening, learned: Tensors, kept: Tensors) -> tuple[Tensors, Tensors]:
        """Return what the network chooses."""
        sizes = list(now.flat.layers.sizes)
        parts = [*torch.split(now.parameter, sizes), *torch.split(now.gradient, sizes)]
        state = torch.stack([part.mean() for part in parts])
        hidden = F.linear(state, learned["alfa:hidden.weight"], learned["alfa:hidden.bias"]).relu()
        pace, keep = F.linear(hidden, learned["alfa:out.weight"], learned["alfa:out.bias"]).chunk(2)
        return {"pace": pace, "fade": 1 - learned["alfa:keep"][:, now.place] * keep}, kept


@dataclass(frozen=True)
class Lstm:
    """`input` and `forget`, the gates of a cell for each weight (Ravi and Larochelle, 2017).

    `input` is a rate, at first about 0.01; `forget` the share that a weight loses, at first below
    0.02. They come from an LSTM that sees gradient and loss, both as logarithm and sign, from the
    weight, and from themselves one step before. Nothing is differentiated by what it sees of
    gradient and loss, as published.
    """

    name: str = "lstm"
    tokens: tuple[str, ...] = (
        "input",
        "forget",
    )
    about: str = "one a weight, from a cell that remembers gradients and losses"
    functions: tuple[Callable[..., Any], ...] = (lstm_cell, compressed)

    def learned(self, params: Tensors, steps: int, generator: torch.Generator) -> Tensors:
        """Return small random weights, and biases that make the gates those of gradient descent."""
        del steps
        some = next(iter(params.values()))
        shapes = {"cell.weight": (4 * HIDDEN, 4 + HIDDEN), "cell.bias": (4 * HIDDEN,)}
        shapes |= {"forget.weight": (1, HIDDEN + 2), "input.weight": (1, HIDDEN + 2)}
        return {
            **{f"lstm:{n}": _uniform(some, s, -0.01, 0.01, generator) for n, s in shapes.items()},
            "lstm:forget.bias": _uniform(some, (1,), 4.0, 6.0, generator),
            "lstm:input.bias": _uniform(some, (1,), -5.0, -4.0, generator),
        }

    def start(self, flat: Flat) -> Tensors:
        """Return zeros."""
        count = flat.vector.shape[0]
        sizes = {"hidden": HIDDEN, "cell": HIDDEN, "forget": 1, "input": 1}
        return {name: flat.vector.new_zeros(count, size) for name, size in sizes.items()}

    def __call__(self, now: Happening, learned: Tensors, kept: Tensors) -> tuple[Tensors, Tensors]:
        """Return the gates."""
        count = now.gradient.shape[0]
        told = compressed(now.loss.detach()).expand(count, 2)
        given = torch.cat([compressed(now.gradient.detach()), told], 1)
        weight, bias = learned["lstm:cell.weight"], learned["lstm:cell.bias"]
        hidden, cell = lstm_cell(weight, bias, given, (kept["hidden"], kept["cell"]))
        after = {"hidden": hidden, "cell": cell}
        for gate in ("forget", "input"):
            seen = torch.cat([hidden, now.parameter.unsqueeze(1), kept[gate]], 1)
            after[gate] = F.linear(
                seen, learned[f"lstm:{gate}.weight"], learned[f"lstm:{gate}.bias"]
            )
        forget, admit = (after[gate].squeeze(1).sigmoid() for gate in ("forget", "input"))
        return {"forget": 1 - forget, "input": admit}, after


def _uniform(
    like: Tensor, shape: tuple[int, ...], low: float, high: float, generator: torch.Generator
) -> Tensor:
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (low + (high - low) * drawn).to(like)


SENSES: tuple[Sense, ...] = (Curvature(), Alfa(), Lstm())
