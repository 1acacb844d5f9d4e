"""An order of examples that says nothing of their labels, drawn without a generator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.network import unpadded
from evometa.task.episodes import some_of
from evometa.task.protocol import Side

FINE = 2.0**20  # floats are told apart by their difference times this
ODD = 6364136223846793005  # Knuth's multiplier of 64 bits


def shuffled(side: Side) -> Side:
    """Return one side of one episode in the order of a hash of each example's input.

    Tasks of classes give examples sorted by label, which a learner that reads them in turn would
    come to rely on. The hash is exact arithmetic of whole numbers, so that the order is the same
    however tasks and candidates are mapped; equal inputs keep their order.
    """
    keys = [_hash(leaf) for leaf in pytree.tree_leaves(unpadded(side.inputs))]
    total = keys[0]
    for key in keys[1:]:
        total = total * ODD + key
    found: Any = some_of(side, _mixed(total).argsort(stable=True))
    return found


def _hash(values: Tensor) -> Tensor:
    """Return a whole number for each example, shape `(examples,)`."""
    rows = values.detach().flatten(1) if values.dim() > 1 else values.detach().unsqueeze(1)
    whole = (rows.double() * FINE).long() if rows.is_floating_point() else rows.long()
    places = torch.arange(rows.shape[1], device=rows.device)
    return (_mixed(whole) * (2 * places + 1)).sum(1)


def _mixed(whole: Tensor) -> Tensor:
    whole = (whole ^ (whole >> 29)) * ODD
    return whole ^ (whole >> 32)
