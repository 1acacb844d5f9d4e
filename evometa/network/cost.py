"""What a network costs, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Cost:
    """Static cost of a network.

    Attributes:
        params: number of trainable parameters.
        macs: multiply-accumulates of one forward pass of one example: matrix products and
            convolutions, half of the floating point operations that PyTorch's own counter reports.
    """

    params: int
    macs: int


def measure_cost(module: nn.Module, inputs: Any) -> tuple[Cost, Any]:
    """Count the cost of `module` on inputs whose tensors begin with `examples`.

    Run it on the meta device to spend no arithmetic.

    Returns:
        The cost, and the outputs.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = module(inputs)
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    examples = len(pytree.tree_leaves(inputs)[0])
    return Cost(params=params, macs=counter.get_total_flops() // 2 // examples), outputs
