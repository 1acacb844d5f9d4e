"""How much memory a computation needs, the same on every machine."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(compute: Callable[[], Any]) -> int:
    """Return the most bytes that tensors made by `compute` held at one time.

    Counted from the storages of all results of operations, so it does not depend on the device, its
    allocator, or what else is in memory.
    """
    with _Meter() as meter:
        outputs = compute()
    del outputs
    return int(meter.peak)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        inside = {_key(tensor) for tensor in pytree.tree_leaves((args, kwargs)) if _is(tensor)}
        for tensor in pytree.tree_leaves(outputs):
            if _is(tensor) and _key(tensor) not in inside | self._known:
                self._add(tensor.untyped_storage())
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._held += size
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes of the device since it was reset, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
