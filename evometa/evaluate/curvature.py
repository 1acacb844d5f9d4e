"""Is the second derivative that autograd gives the true one?

An operation without a second derivative does not always say so: one marked `once_differentiable`
passes for a constant, and a candidate would be meta-trained with a wrong gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evometa.evaluate.randomness import forked_random
from evometa.learner import Loss
from evometa.network import Network, Tensors
from evometa.task.episodes import over
from evometa.task.protocol import Side

STEPS = (1e-5, 1e-7)  # a kink of a ReLU or a pool within a step spoils it: a shorter one may not
DIRECTIONS = 2  # all differences must be off to blame the network
TOLERANCE = 0.05


def check_curvature(network: Network, loss: Loss, side: Side) -> None:
    """Compare a Hessian-vector product of a loss with finite differences, in float64.

    A module that cannot run in float64 is only differentiated twice.

    Args:
        network: at its initial parameters.
        loss: of the network on one side of one episode.
        side: that side.

    Raises:
        RuntimeError: if there is no second derivative, or it is not the derivative of the first.
    """
    try:
        wide = _Gradient(network, loss, over(_wide, side), torch.float64)
        wide.at(wide.params)
    except (RuntimeError, TypeError, ValueError):
        check_differentiable(network, loss, side)
        return
    best = math.inf
    for step in STEPS:
        for seed in range(DIRECTIONS):
            best = min(best, _error(wide, wide.direction(seed), step))
            if best <= TOLERANCE:
                return
    raise RuntimeError(
        f"the second derivative is not the derivative of the first: it is off by {best:.0%}. Some "
        "operation cannot be differentiated twice; use order 1, or write it with differentiable "
        "ones"
    )


def check_differentiable(network: Network, loss: Loss, side: Side) -> None:
    """Take second derivatives of a loss.

    Raises:
        RuntimeError: if there is none.
    """
    narrow = _Gradient(network, loss, side, torch.float32)
    narrow.times(narrow.direction(0))


class _Gradient:
    """The gradient of the support loss as a function of the parameters."""

    def __init__(self, network: Network, loss: Loss, side: Side, dtype: torch.dtype) -> None:
        self._network, self._loss, self._side = network.unmapped, loss, side
        self._names = list(network.params)
        self._buffers: Tensors = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in network.buffers.items()
        }
        self.params = [value.to(dtype) for value in network.params.values()]

    def at(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient at `params`, zeros where the loss does not depend on them."""
        leaves = [value.detach().requires_grad_() for value in params]
        return [grad.detach() for grad in self._gradient(leaves)]

    def times(self, direction: Sequence[Tensor]) -> list[Tensor]:
        """Return the Hessian times `direction`, by autograd."""
        leaves = [value.detach().requires_grad_() for value in self.params]
        products = [
            (grad * along).sum()
            for grad, along in zip(self._gradient(leaves), direction, strict=True)
            if grad.requires_grad
        ]
        if not products:
            return [torch.zeros_like(leaf) for leaf in leaves]
        total = torch.stack(products).sum()
        found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return [grad.detach() for grad in found]

    def direction(self, seed: int) -> list[Tensor]:
        """Draw a direction of length 1."""
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(p.shape, generator=generator).to(p.dtype) for p in self.params]
        length = _length(drawn)
        return [part / length for part in drawn]

    def _gradient(self, leaves: list[Tensor]) -> Sequence[Tensor]:
        params = dict(zip(self._names, leaves, strict=True))
        with forked_random(0):  # the same dropout each time

            def predict(inputs: Any) -> Any:
                return self._network(params, self._buffers, inputs, norm="batch", training=True)[0]

            loss = self._loss(predict, self._side)
        return torch.autograd.grad(
            loss, leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )


def _error(gradient: _Gradient, direction: list[Tensor], step: float) -> float:
    """Return how far autograd's product is from the finite difference, relative to it."""
    ahead, behind = (
        gradient.at([p + sign * step * d for p, d in zip(gradient.params, direction, strict=True)])
        for sign in (1, -1)
    )
    differences = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    product = gradient.times(direction)
    distance = _length([a - b for a, b in zip(product, differences, strict=True)])
    scale = max(_length(differences), _length(product))
    return distance / scale if scale > 1e-6 else 0.0


def _length(parts: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
