"""The outer optimisers, for the flat vectors of a pack with a rate for each candidate.

`torch.optim` has one rate for a tensor; here every row has its own. The tests hold both to
`torch.optim.Adam` and `SGD`, step by step.
"""

from __future__ import annotations

from torch import Tensor

from evometa.evaluate.pack import Pack

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def outer_step(pack: Pack, grads: Tensor, optimiser: str, rates: Tensor, count: Tensor) -> None:
    """Move the trained numbers of a pack along a meta-gradient, in place.

    Args:
        pack: moves.
        grads: shape `(candidates, numbers)`.
        optimiser: `"adam"` or `"sgd"`.
        rates: of this step, shape `(candidates, 1)`.
        count: steps done with this one, a float64 scalar.
    """
    if optimiser == "sgd":
        pack.flat.sub_(rates * grads)
        return
    fast, slow = BETAS
    pack.first.lerp_(grads, 1 - fast)
    pack.second.mul_(slow).addcmul_(grads, grads, value=1 - slow)
    spread = pack.second.sqrt().div_((1 - slow**count).sqrt()).add_(EPSILON)
    pack.flat.sub_(rates / (1 - fast**count) * pack.first / spread)
