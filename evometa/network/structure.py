"""What a module computes, as a text: equal texts mean equal code and equal state, numbers apart.

The text of a module is made of its classes' code and of all that its objects hold. Parameters and
buffers come into a network as tensors, so of these only shapes and types count; any other tensor
is a constant, and counts by its numbers. What PyTorch, the standard library and installed packages
define counts by its name; what a study defines counts by its bytecode, closures, defaults and the
global values that it reads. So two modules of equal text do the same in every mode, for every
input and in every derivative; two of unequal text may do the same all the same.
"""

from __future__ import annotations

import dis
import hashlib
import random
import types
import weakref
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evometa.network.copying import SLOTS, derived, is_library

UNREAD = frozenset(
    {"__init__", "__doc__", "__module__", "__dict__", "__weakref__", "__qualname__"}
    | {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
    | {"__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"}
    | {"__dataclass_fields__", "__dataclass_params__", "__match_args__"}
    | {"__orig_bases__", "__parameters__"}
)
"""What of a class has no part in a call of its objects."""

REFLECTION = frozenset(
    {"getattr", "vars", "__dict__", "attrgetter", "__getattribute__", "__getattr__"}
    | {"eval", "exec", "locals"}
)
"""Names by which code reads attributes without naming them."""

SCALARS = (type(None), bool, int, float, complex, str, bytes, type(...))
NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, range, slice)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)


def structure_of(module: nn.Module) -> str:
    """Return a hash that is equal only for modules that do the same, their numbers apart.

    It is the same in every process.

    Raises:
        ValueError: if the module holds what cannot be trained or read: trainable parameters that
            are not registered, a random generator, a lock.
    """
    whole = _Reader(module, None)
    whole.take(module)
    if whole.names & REFLECTION or not whole.left_out(whole.names):
        return whole.digest()
    read = _Reader(module, whole.names)
    read.take(module)
    return read.digest()


class _Reader:
    """Reads an object into a hash, every part of it once.

    Args:
        module: the root; its parameters and buffers are known by name.
        used: names that code reads. Attributes of a study's own modules that have other names are
            left out, such as the genome that a module was built from. None leaves out nothing.

    Attributes:
        names: all names and texts in the code that was read.
    """

    def __init__(self, module: nn.Module, used: set[str] | None) -> None:
        self.names: set[str] = set()
        self._used = used
        self._hash = hashlib.sha256()
        self._seen: dict[int, tuple[int, object]] = {}  # the object stays, so that its id does
        self._attributes: set[str] = set()
        self._outside = 0  # how deep in what is not the module's own, such as global values
        self._place = [type(module).__name__]
        self._named: dict[int, str] = {}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            self._named.setdefault(id(tensor), name)

    def digest(self) -> str:
        """Return the hash of all that was taken."""
        return self._hash.hexdigest()

    def left_out(self, used: set[str]) -> bool:
        """Return whether some attribute of a study's own modules has no name among `used`."""
        return not self._attributes <= used

    def take(self, value: Any) -> None:
        """Read a value."""
        if isinstance(value, SCALARS) and type(value) in SCALARS:
            self._write(type(value).__name__, repr(value))
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            self._write("array", f"{value.dtype} {value.shape} {_hashed(value.tobytes())}")
        elif id(value) in self._seen:
            self._write("again", str(self._seen[id(value)][0]))
        else:
            self._seen[id(value)] = len(self._seen), value
            self._object(value)

    def _write(self, kind: str, text: str) -> None:
        self._hash.update(f"{kind} {len(text)} {text}\n".encode(errors="surrogatepass"))

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        found = list(values)
        self._write(kind, str(len(found)))
        for place, value in enumerate(found):
            self._place.append(f"[{place}]")
            self.take(value)
            self._place.pop()

    def _entries(self, kind: str, items: Iterable[tuple[Any, Any]]) -> None:
        found = list(items)
        self._write(kind, str(len(found)))
        for key, value in found:
            self._place.append(f".{key}")
            self.take(key)
            self.take(value)
            self._place.pop()

    def _object(self, value: Any) -> None:
        match value:
            case nn.Module():
                self._module(value)
            case type():
                self._class(value)
            case types.FunctionType():
                self._function(value)
            case types.MethodType():
                self._all("method", (value.__func__, value.__self__))
            case types.BuiltinFunctionType() | types.MethodWrapperType():
                owner = value.__self__
                self._write("builtin", f"{getattr(value, '__module__', '')} {value.__qualname__}")
                self.take(None if isinstance(owner, types.ModuleType) else owner)
            case types.ModuleType():
                self._write("module", value.__name__)
            case staticmethod() | classmethod():
                self._all(type(value).__name__, (value.__func__,))
            case property():
                self._all("property", (value.fget, value.fset))
            case torch.jit.ScriptFunction():
                self._write("scripted", str(value.code))
            case weakref.ref():
                self.take(value())
            case set() | frozenset():
                self._write("set", " ".join(sorted(self._apart(entry) for entry in value)))
            case _ if type(value) in (tuple, list):
                self._all(type(value).__name__, value)
            case _ if type(value) in (dict, types.MappingProxyType):
                self._entries("dict", value.items())
            case _:
                self._other(value)

    def _other(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, DESCRIPTORS):
            self._write("descriptor", f"{value.__objclass__.__qualname__} {value.__name__}")
        elif isinstance(value, NAMED) or kind.__module__ == "torch._ops":
            self._write(kind.__name__, str(value))
        elif isinstance(value, np.ufunc):
            self._write("ufunc", value.__name__)
        elif self._outside and isinstance(value, GENERATORS):
            self.take(kind)
        elif isinstance(value, GENERATORS):
            raise ValueError(
                f"{self._where} is a random generator; networks draw from PyTorch's own, which is "
                "seeded for each candidate: leave the generator out, as in `torch.randn(n)`"
            )
        else:
            self._reduced(value)

    def _reduced(self, value: Any) -> None:
        """Read an object as `pickle` and `copy` do."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            if not self._outside:
                raise ValueError(
                    f"{self._where} is a {type(value).__name__}, which cannot be copied "
                    f"({type(error).__name__}: {error}); keep it outside of the module"
                ) from error
            reduced = ""
        self.take(type(value))
        if isinstance(reduced, str):
            self._write("global", reduced)
            self.take(getattr(value, "__wrapped__", None))  # as of functools.cache
            return
        make, arguments, state, entries, items = (*reduced, None, None, None)[:5]
        self._all("made", (make, *arguments))
        if isinstance(state, dict):
            self._entries("state", state.items())
        else:
            self.take(state)
        self._all("entries", entries or ())
        self._entries("items", items or ())

    @property
    def _where(self) -> str:
        return "".join(self._place)

    def _apart(self, value: Any) -> str:
        """Return the hash of a member of a set, whose order means nothing."""
        reader = _Reader(nn.Module(), self._used)
        reader._named, reader._outside, reader._place = self._named, self._outside, self._place
        reader.take(value)
        self.names |= reader.names
        return reader.digest()

    def _tensor(self, value: Tensor) -> None:
        kind = f"{value.dtype} {tuple(value.shape)} {value.requires_grad}"
        if id(value) in self._named:
            self._write("tensor", f"{self._named[id(value)]} {kind}")
        elif isinstance(value, nn.Parameter) and value.requires_grad and not self._outside:
            raise ValueError(
                f"the parameter {self._where} is not registered, so PyTorch does not train it; "
                "keep layers in nn.ModuleList or nn.ModuleDict and parameters in "
                "nn.ParameterList, not in plain lists, dicts or functions"
            )
        elif value.is_meta:
            self._write("meta", kind)
        else:
            plain = value.detach().resolve_conj().resolve_neg().to_dense().cpu().contiguous()
            numbers = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
            self._write("constant", f"{kind} {_hashed(numbers)}")

    def _module(self, module: nn.Module) -> None:
        self.take(type(module))
        for kind, table in (
            ("parameters", module._parameters),
            ("buffers", module._buffers),
            ("modules", module._modules),
        ):
            self._entries(kind, table.items())
        for kind, hooks, marks in (
            ("before", module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
            ("after", module._forward_hooks, module._forward_hooks_with_kwargs),
            ("always", module._forward_hooks, module._forward_hooks_always_called),
            ("backward before", module._backward_pre_hooks, {}),
            ("backward", module._backward_hooks, {}),
        ):
            if hooks:  # their keys count all hooks that there have ever been
                self._all(kind, ((hook, key in marks) for key, hook in hooks.items()))
        self._entries("attributes", self._kept(module))

    def _kept(self, module: nn.Module) -> Iterator[tuple[str, Any]]:
        """Yield what a module holds besides parameters, buffers, modules and hooks."""
        skipped = (SLOTS - {"training"}) | derived(module)
        own = all(c is nn.Module or c is object or not is_library(c.__module__)
                  for c in type(module).__mro__)  # fmt: skip
        for name, value in sorted(module.__dict__.items()):
            if name in skipped:
                continue
            if own and name != "training":
                self._attributes.add(name)
                if self._used is not None and name not in self._used:
                    continue
            yield name, value

    def _class(self, kind: type) -> None:
        self._write("class", f"{kind.__qualname__}")
        if is_library(kind.__module__):
            # what is made while running is told by its bases, as by parametrizations
            self._write("bases", " ".join(f"{c.__module__}.{c.__qualname__}" for c in kind.__mro__))
            return
        self._outside += 1
        self._all("bases", kind.__bases__)
        self._entries("members", ((n, v) for n, v in sorted(vars(kind).items()) if n not in UNREAD))
        self._outside -= 1

    def _function(self, function: types.FunctionType) -> None:
        self._write("function", function.__qualname__)
        library = is_library(function.__globals__.get("__name__"))
        if library and "<" not in function.__qualname__ and function.__closure__ is None:
            self._write("library", str(function.__module__))
            return
        self._code(function.__code__)
        self._all("defaults", (function.__defaults__, function.__kwdefaults__))
        cells = []
        for cell in function.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # not filled yet
                cells.append(None)
        self._all("closure", cells)
        if library:
            return
        self._outside += 1
        self._entries("globals", self._globals(function))
        self._outside -= 1

    def _globals(self, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
        for name in _global_names(function.__code__):
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, types.ModuleType) and not is_library(value.__name__):
                held = vars(value)
                for attribute in sorted(_names(function.__code__) & held.keys()):
                    yield f"{name}.{attribute}", held[attribute]

    def _code(self, code: types.CodeType) -> None:
        self.names |= _names(code)
        self._write("code", code.co_code.hex())
        self._write("handlers", code.co_exceptiontable.hex())
        self._write("flags", f"{code.co_flags} {code.co_argcount} {code.co_kwonlyargcount}")
        self._all("names", (code.co_names, code.co_varnames, code.co_freevars))
        self._write("constants", str(len(code.co_consts)))
        for value in code.co_consts:
            if isinstance(value, types.CodeType):
                self._code(value)
            else:
                self.take(value)


@cache
def _names(code: types.CodeType) -> frozenset[str]:
    """Return all names and texts in code."""
    found = {*code.co_names, *(value for value in code.co_consts if isinstance(value, str))}
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            found |= _names(value)
    return frozenset(found)


@cache
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the names of the global values that code reads, in order."""
    found = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            found.update(_global_names(value))
    return tuple(sorted(found))


def _hashed(numbers: bytes) -> str:
    return hashlib.sha256(numbers).hexdigest()
