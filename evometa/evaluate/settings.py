"""How exactly, and how reproducibly, a training computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from evometa.study import Training


@contextmanager
def numerics(training: Training, device: torch.device) -> Iterator[None]:
    """Set precision and determinism as declared within the block, and restore them after.

    Args:
        training: `precision` and `deterministic`.
        device: where the block computes.
    """
    tf32 = training.precision == "tf32"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    exact = torch.are_deterministic_algorithms_enabled()
    if training.deterministic:
        # cuBLAS reads it when it starts: a process that has used CUDA before keeps what it had
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    mixed = (
        torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
        if training.precision == "bfloat16"
        else nullcontext()
    )
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = tf32
        cudnn.benchmark = not training.deterministic
        torch.use_deterministic_algorithms(training.deterministic or exact)
        with mixed:
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
        torch.use_deterministic_algorithms(exact)
