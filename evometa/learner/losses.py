"""Losses of the inner loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.protocol import Loss


def inner_loss(name: str, task: Loss) -> Loss:
    """Return the loss that a rule adapts by.

    Args:
        name: `"task"`, the task's own; `"squared"` or `"huber"` (of width 1), between outputs and
            targets, which are one-hot for classes (Hui and Belkin, 2021).
        task: the task's loss.
    """
    if name == "task":
        return task
    measure = F.mse_loss if name == "squared" else F.huber_loss

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point():
            classes = torch.arange(outputs.shape[-1], device=outputs.device)
            targets = (targets.unsqueeze(-1) == classes).to(outputs.dtype)
        return measure(outputs, targets)

    return loss
