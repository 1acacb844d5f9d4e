"""What a network costs, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
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


def measure_cost(module: nn.Module, inputs: Tensor) -> tuple[Cost, torch.Size]:
    """Count the cost of `module` on `inputs` of shape `(examples, *shape)`.

    Run it on the meta device to spend no arithmetic.

    Returns:
        The cost, and the shape of the outputs.

    Raises:
        TypeError: if the module does not return a tensor.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        outputs = module(inputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the network must return one tensor, got {type(outputs).__name__}; return the "
            "predictions alone from `forward`"
        )
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    macs = counter.get_total_flops() // 2 // len(inputs)
    return Cost(params=params, macs=macs), outputs.shape
