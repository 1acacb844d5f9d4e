"""What the inputs of a learner were like in meta-training, and whether new ones are like them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.errors import EvometaError
from evometa.evaluate.faults import asked_first
from evometa.task.episodes import part_of
from evometa.task.protocol import Task

FAR = 1.0  # widths of the range of meta-training, beyond which inputs are far from it
NEXT = 0.05  # the same of whole numbers, such as tokens: one that was never seen means nothing


class RangeWarning(UserWarning):
    """Inputs lie far outside of the range of those in meta-training."""


@dataclass(frozen=True)
class Leaf:
    """One tensor of the inputs.

    Attributes:
        name: where it is in the inputs; empty if it is all there is.
        shape: of one example.
        dtype: its type.
        low: least value in meta-training.
        high: largest value in meta-training.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    low: float
    high: float

    def read(self, given: Any) -> Tensor:
        """Return an array as a tensor of the type of meta-training.

        Raises:
            EvometaError: if it holds no numbers, of another kind, or some that are not finite.
        """
        what = f"inputs{self.name}"
        tensor = given if isinstance(given, Tensor) else _tensor(given, what)
        if tensor.is_complex() or (tensor.is_floating_point() and not self.dtype.is_floating_point):
            raise EvometaError(
                f"{what} must be {self._kind} as in meta-training, but got {tensor.dtype}"
            )
        if self.dtype.is_floating_point:
            if not tensor.is_floating_point() and self._is_unit and bool((tensor > 1).any()):
                raise EvometaError(
                    f"{what} must be {self._kind} as in meta-training, from {self.low:g} to "
                    f"{self.high:g}, but got {tensor.dtype} up to {int(tensor.max())}; divide by "
                    "the largest value there can be, such as 255"
                )
            tensor = tensor.to(self.dtype)
            if not bool(tensor.isfinite().all()):
                raise EvometaError(
                    f"{what} must be finite, but {int((~tensor.isfinite()).sum())} of "
                    f"{tensor.numel()} numbers are NaN or infinite"
                )
        found = tensor.to(self.dtype)
        if not found.is_floating_point() and not torch.equal(found.to(tensor.dtype), tensor):
            raise EvometaError(
                f"{what} must be {self._kind} as in meta-training, but got {tensor.dtype} from "
                f"{tensor.min()} to {tensor.max()}, which it cannot hold"
            )
        self._check_range(found, what)
        return found

    @property
    def _is_unit(self) -> bool:
        return self.low >= 0 and self.high <= 1

    @property
    def _kind(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _check_range(self, tensor: Tensor, what: str) -> None:
        if not tensor.numel() or tensor.dtype == torch.bool:
            return
        low, high = float(tensor.min()), float(tensor.max())
        whole = not self.dtype.is_floating_point
        if whole and low < min(self.low, 0):
            raise EvometaError(f"{what} must be at least {self.low:g}, but got {low:g}")
        room = (NEXT if whole else FAR) * max(self.high - self.low, 1e-12)
        if (low < self.low - room and not whole) or high > self.high + room:
            warnings.warn(
                f"{what} reach from {low:g} to {high:g}, but in meta-training from {self.low:g} to "
                f"{self.high:g}: predictions there are guesses",
                RangeWarning,
                stacklevel=6,
            )


@dataclass(frozen=True)
class Example:
    """What inputs are like.

    Attributes:
        leaves: of its tensors.
        tree: how they make up the inputs.
    """

    leaves: tuple[Leaf, ...]
    tree: Any

    @staticmethod
    def of(task: Task, support: Any) -> Example:
        """Read it off support sets, which begin with `tasks`."""
        count = len(pytree.tree_leaves(support)[0])
        drawn = [asked_first(task, part_of(support, row)) for row in range(count)]
        paths, tree = pytree.tree_flatten_with_path(drawn[0])
        columns = zip(*(pytree.tree_leaves(inputs) for inputs in drawn), strict=True)
        leaves = []
        for (path, first), column in zip(paths, columns, strict=True):
            low = min(float(leaf.min()) for leaf in column)
            high = max(float(leaf.max()) for leaf in column)
            name = pytree.keystr(path)
            leaves.append(Leaf(name, tuple(first.shape[1:]), first.dtype, low, high))
        return Example(tuple(leaves), tree)

    def read(self, x: Any) -> tuple[Any, bool]:
        """Return inputs as tensors, and whether they begin with `tasks` before `examples`.

        Raises:
            EvometaError: if they are not like those of meta-training.
        """
        given = [x] if self.tree.is_leaf() else self._flat(x)
        tensors = [leaf.read(each) for leaf, each in zip(self.leaves, given, strict=True)]
        pairs = list(zip(self.leaves, tensors, strict=True))
        extra = {each.dim() - len(leaf.shape) for leaf, each in pairs}
        fits = all(
            tuple(each.shape[each.dim() - len(leaf.shape) :]) == leaf.shape and each.numel()
            for leaf, each in pairs
        )
        if len(extra) != 1 or not extra <= {1, 2} or not fits:
            raise EvometaError(
                f"inputs must have the shape {self._shapes('examples')} or "
                f"{self._shapes('tasks, examples')}, but got "
                + ", ".join(str(tuple(each.shape)) for each in tensors)
            )
        return pytree.tree_unflatten(tensors, self.tree), extra == {2}

    def _flat(self, x: Any) -> list[Any]:
        wanted = [leaf.name for leaf in self.leaves]
        try:
            found = pytree.tree_flatten_with_path(x)[0]
            leaves = {pytree.keystr(path): leaf for path, leaf in found}
            return [leaves[name] for name in wanted]
        except KeyError as missing:
            raise EvometaError(
                f"inputs must hold {', '.join(wanted)} as in meta-training, but {missing} is not "
                "there"
            ) from missing

    def _shapes(self, axes: str) -> str:
        return ", ".join(
            f"({', '.join([axes, *map(str, leaf.shape)])})"
            + (f" for {leaf.name}" if leaf.name else "")
            for leaf in self.leaves
        )


def _tensor(given: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(np.ascontiguousarray(given))
    except (TypeError, ValueError) as error:
        raise EvometaError(f"{what} must be an array of numbers: {error}") from error
