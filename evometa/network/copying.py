"""Copies of modules, and what modules keep in Python attributes while they run."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

CONTAINERS = (list, dict, set, deque)
SLOTS = frozenset(nn.Module().__dict__)
"""What `nn.Module` keeps for itself."""


@cache
def is_library(name: str | None) -> bool:
    """Return whether a Python module is installed, and not a study's own."""
    top = (name or "builtins").partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return False
    if top in sys.stdlib_module_names or top in ("evometa", "torch"):
        return True
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module, which shares its parameters' and buffers' numbers.

    Tensors that hooks computed, such as normed weights, are copied as well.

    Raises:
        ValueError: if it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name in derived(part):
            value = part.__dict__.get(name)
            if isinstance(value, Tensor):  # PyTorch copies no tensor that has a history
                memo[id(value)] = value.detach().clone()
        for name in SLOTS:  # the many that are empty, and the tensors, are quicker by hand
            value = part.__dict__.get(name)
            if type(value) in (dict, OrderedDict) and not value:
                memo[id(value)] = copy.copy(value)
        for value in part._parameters.values():
            if type(value) is nn.Parameter:
                memo[id(value)] = nn.Parameter(value.detach(), value.requires_grad)
        for value in part._buffers.values():
            if type(value) is Tensor:
                memo[id(value)] = value.detach()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ValueError(
            f"the network cannot be copied: copy.deepcopy raised {type(error).__name__}: {error}. "
            "Keep in a module what can be copied: parameters, layers, numbers, texts; compute "
            "tensors in `forward`, and keep files, locks and generators outside"
        ) from error


def derived(module: nn.Module) -> frozenset[str]:
    """Return the attributes that are computed from parameters before each call.

    So do weight norm, spectral norm and pruning, as hooks; recurrent layers keep lists of weights.
    """
    names = {"_flat_weights", "_flat_weight_refs"} if isinstance(module, nn.RNNBase) else set()
    for hook in module._forward_pre_hooks.values():
        if any(kind.__module__.startswith("torch.nn.utils") for kind in type(hook).__mro__):
            names.add(str(getattr(hook, "name", None) or getattr(hook, "_tensor_name", "")))
    return frozenset(names)


def check_plain(module: nn.Module) -> None:
    """Refuse a module whose trainable tensors cannot be exchanged or trained together.

    Raises:
        ValueError: with what to write instead.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(
                f"{_layer(name)} is scripted by torch.jit, whose weights cannot be exchanged; "
                "leave out torch.jit.script, candidates are compiled where that is faster"
            )
    named = dict(module.named_parameters())
    if lazy := [name for name, value in named.items() if is_lazy(value)]:
        raise ValueError(
            f"{', '.join(lazy)} has no shape yet; call the network once on an example first"
        )
    trainable = {name: value.dtype for name, value in named.items() if value.requires_grad}
    dtypes = sorted({str(dtype).removeprefix("torch.") for dtype in trainable.values()})
    if odd := [name for name, dtype in trainable.items() if not dtype.is_floating_point]:
        raise ValueError(
            f"the parameter {odd[0]} is {trainable[odd[0]]}, and real numbers are wanted; keep "
            "the real and imaginary parts of a complex one as two, and join them in `forward` by "
            "torch.complex"
        )
    if len(dtypes) > 1:
        first = next(iter(trainable.values()))
        odd = [name for name, dtype in trainable.items() if dtype != first]
        raise ValueError(
            f"all trainable parameters must have one type, got {' and '.join(dtypes)}; {odd[0]} "
            f"is {trainable[odd[0]]}: convert the layer with .to({first}), or freeze it with "
            "requires_grad_(False)"
        )


class Kept:
    """What a module holds in Python attributes now, to be put back after a call.

    Only modules that are not PyTorch's own, or that have hooks, keep anything. Tensors are put
    back as the objects that they are.

    Args:
        module: with its layers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._tables: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self._others: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        for name, part in module.named_modules():
            if is_own(part) or part._forward_hooks or part._forward_pre_hooks:
                self._remember_table(name, part.__dict__)

    def __bool__(self) -> bool:
        return bool(self._tables)

    def restore(self) -> None:
        """Put everything back."""
        for _, table, before in self._tables:
            table.clear()
            table.update(before)
        for held, before in self._others:
            held.clear()
            held.update(before) if isinstance(held, dict | set) else held.extend(before)

    def changed(self) -> list[str]:
        """Return the names of the attributes that have changed."""
        found = []
        for name, table, before in self._tables:
            for key in {**before, **table}:
                if key in SLOTS or (key in before and table.get(key) is before[key]):
                    continue
                found.append(f"{name}.{key}" if name else key)
        return found

    def _remember_table(self, name: str, table: dict[str, Any]) -> None:
        if id(table) in self._seen:
            return
        self._seen.add(id(table))
        self._tables.append((name, table, dict(table)))
        for key, value in table.items():
            if key not in SLOTS:
                self._remember(f"{name}.{key}" if name else key, value)

    def _remember(self, name: str, value: Any) -> None:
        """Remember what is in a container, or in an object of a study's own class."""
        if id(value) in self._seen or isinstance(value, nn.Module | Tensor | type | FunctionType):
            return
        if isinstance(value, CONTAINERS):
            self._seen.add(id(value))
            self._others.append((value, copy.copy(value)))
        if isinstance(value, dict):
            self._all(name, value.values())
        elif isinstance(value, (*CONTAINERS, tuple)):
            self._all(name, value)
        elif hasattr(value, "__dict__") and not is_library(type(value).__module__):
            self._remember_table(name, value.__dict__)

    def _all(self, name: str, values: Iterable[Any]) -> None:
        for value in values:
            self._remember(name, value)


def is_own(module: nn.Module) -> bool:
    """Return whether a module's class is one of a study or of another package."""
    return not type(module).__module__.startswith(("torch.nn.modules.", "evometa.network."))


def _layer(name: str) -> str:
    return f"the layer {name}" if name else "the network"
