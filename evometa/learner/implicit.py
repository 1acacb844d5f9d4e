"""The implicit gradient of a minimum, without the steps to it (iMAML, Rajeswaran et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp

from evometa.learner.protocol import Tensors

Function = Callable[[Tensors], Tensor]


def implicit_objective(
    query: Function,
    support: Function,
    adapted: Tensors,
    start: Tensors,
    strength: Tensor,
    solves: int,
) -> tuple[Tensor, Tensor]:
    """Return a scalar whose derivative is that of the query loss at a minimum, and that loss.

    The minimum is that of `support(w) + strength/2·‖w - start‖²`. Where `w*` is one, its derivative
    solves a linear system with the matrix `H + strength·I`, `H` the Hessian of the support loss,
    which conjugate gradients see as products alone. They begin at the first-order solution, and
    stop where the curvature is not positive.

    Args:
        query: query loss as a function of what adapts.
        support: support loss likewise.
        adapted: the minimum, or near it.
        start: what adapts before the first step; the result is differentiated by it, and by all
            else that the two losses depend on.
        strength: of the pull to the start.
        solves: conjugate gradients' iterations.
    """
    minimum = {name: value.detach() for name, value in adapted.items()}
    with torch.no_grad():
        slope = grad(query)(minimum)
        pull = vjp(grad(support), minimum)[1]

        def product(along: Tensors) -> Tensors:
            bent = pull(along)[0]
            return {name: bent[name] + strength * along[name] for name in along}

        solution = solved(product, slope, {n: v / strength for n, v in slope.items()}, solves)
    loss = query(minimum)
    pulled = [(strength * solution[name] * start[name]).sum() for name in start]
    slopes = grad(support)(minimum)
    turned = [(solution[name] * slopes[name]).sum() for name in start]
    return loss + torch.stack(pulled).sum() - torch.stack(turned).sum(), loss


def solved(
    product: Callable[[Tensors], Tensors], right: Tensors, guess: Tensors, steps: int
) -> Tensors:
    """Solve a symmetric linear system by conjugate gradients.

    Args:
        product: of the matrix with a vector, tensors by name.
        right: the right side.
        guess: where to begin.
        steps: iterations; no more are done once the matrix is not positive along one.
    """
    first = product(guess)
    rest = {name: right[name] - first[name] for name in right}
    along, size = rest, _dot(rest, rest)
    going = size > 0
    for _ in range(steps):
        image = product(along)
        bend = _dot(along, image)
        going = going & (bend > 0)
        step = torch.where(going, size / torch.where(going, bend, 1), 0)
        guess = {name: value + step * along[name] for name, value in guess.items()}
        rest = {name: value - step * image[name] for name, value in rest.items()}
        before, size = size, _dot(rest, rest)
        ratio = size / torch.where(before > 0, before, 1)
        along = {name: value + ratio * along[name] for name, value in rest.items()}
    return guess


def _dot(one: Tensors, other: Tensors) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()
