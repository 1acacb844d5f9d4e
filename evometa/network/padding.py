"""Inputs some of which are padding, where the episodes of a batch differ in size."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Padded(NamedTuple):
    """Inputs some of which are padding; the module sees the values, batch norm the mask.

    Attributes:
        values: what the module takes, `examples` first.
        mask: which examples are real, bool of shape `(examples,)`.
    """

    values: Any
    mask: Tensor


def unpadded(inputs: Any) -> Any:
    """Return what the module takes."""
    return inputs.values if isinstance(inputs, Padded) else inputs
