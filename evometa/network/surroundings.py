"""Switches of PyTorch that are set while a module runs, and set back after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

from evometa.network.copying import is_own

Surrounding = Callable[[], AbstractContextManager[Any]]


def surroundings(module: nn.Module, *, plain: bool) -> Surrounding | None:
    """Return what a module needs around each call; None for what is PyTorch's own layers.

    Args:
        module: with its layers.
        plain: avoid fused attention and cuDNN's recurrent cells, which have no second derivative.
    """
    parts = list(module.modules())
    found: list[Surrounding] = []
    if any(isinstance(part, _ATTENTION) for part in parts):
        found.append(_no_fast_path)
    if any(is_own(part) for part in parts):
        found.append(_NoRecomputing)
    if plain:
        found.append(_plain_attention)
        if any(isinstance(part, nn.RNNBase) for part in parts):
            found.append(_plain_cells)
    if len(found) < 2:
        return found[0] if found else None

    def together() -> ExitStack:
        stack = ExitStack()
        for each in found:
            stack.enter_context(each())
        return stack

    return together


_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Compute attention in evaluation mode as in training: its fast path cannot be mapped."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _NoRecomputing:
    """Lets activation checkpointing compute once and keep what it computed.

    Recomputing in the backward pass would find the module without its tensors.
    """

    def __enter__(self) -> None:
        names = vars(checkpoint)
        self._before = names[_NAMES[0]], names[_NAMES[1]]
        names[_NAMES[0]], names[_NAMES[1]] = _computed_once, _ComputedOnce

    def __exit__(self, *_: object) -> None:
        names = vars(checkpoint)
        names[_NAMES[0]], names[_NAMES[1]] = self._before


_NAMES = ("_checkpoint_without_reentrant_generator", "CheckpointFunction")


def _computed_once(
    function: Any, preserve: bool, context: Callable[[], tuple[Any, Any]], *_: Any, **__: Any
) -> Iterator[None]:
    with context()[0]:
        yield


class _ComputedOnce:
    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *arguments: Any) -> Any:
        return function(*arguments)


def _plain_attention() -> AbstractContextManager[Any]:
    return sdpa_kernel(SDPBackend.MATH)


def _plain_cells() -> AbstractContextManager[Any]:
    return torch.backends.cudnn.flags(enabled=False)
