"""Batch-norm statistics of all that a network has seen in one walk through an episode."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evometa.learner.protocol import Tensors


def pooled(seen: Sequence[Tensors], names: Sequence[str]) -> Tensors:
    """Return the buffers of the last call, with the statistics of all calls together.

    Args:
        seen: the buffers after each call, whose statistics are those of its inputs; all calls
            count the same.
        names: of the statistics, `running_mean` and `running_var` of each layer.
    """
    if len(seen) == 1 or not seen:
        return seen[0] if seen else {}
    together = dict(seen[-1])
    for name in names:
        if not name.endswith("running_mean"):
            continue
        spread = name.removesuffix("mean") + "var"
        means = torch.stack([buffers[name] for buffers in seen])
        together[name] = means.mean(0)
        squares = torch.stack([buffers[spread] for buffers in seen]) + means.square()
        together[spread] = squares.mean(0) - together[name].square()
    return together
