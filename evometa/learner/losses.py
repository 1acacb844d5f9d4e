"""Losses of the inner loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.protocol import Loss
from evometa.task.protocol import IGNORED, Predict, Side


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

    def loss(predict: Predict, side: Side) -> Tensor:
        outputs, targets = predict(side.inputs), side.targets
        if targets.is_floating_point():
            return measure(outputs, targets)
        classes = torch.arange(outputs.shape[-1], device=outputs.device)
        one_hot = (targets.unsqueeze(-1) == classes).to(outputs.dtype)
        each = measure(outputs, one_hot, reduction="none").mean(-1)
        real = (targets != IGNORED).to(outputs.dtype)
        return (each * real).sum() / real.sum()  # type: ignore[no-any-return]

    return loss
