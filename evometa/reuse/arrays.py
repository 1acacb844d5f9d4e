"""Arrays and labels as people have them, and functions of one task over several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, vmap

from evometa.errors import EvometaError
from evometa.task.episodes import leading, part_of

Array: TypeAlias = Tensor | npt.NDArray[Any]


def over_tasks(function: Callable[..., Any], arguments: tuple[Any, ...], *, mapped: bool) -> Any:
    """Call a function for each task: mapped, to tensors; or one by one, to a list.

    Raises:
        EvometaError: if the network does not run, as batch norm of a single number does not.
    """
    try:
        if mapped:
            return vmap(function, randomness="different")(*arguments)
        parts = zip(*(each_task(argument) for argument in arguments), strict=True)
        return [function(*one) for one in parts]
    except ValueError as error:
        raise EvometaError(f"the network does not run on these examples: {error}") from error


def each_task(argument: Any) -> Iterator[Any]:
    """Yield what belongs to each task: the entries of a list, or the rows of a batch."""
    if isinstance(argument, list) and all(not isinstance(each, Tensor) for each in argument):
        yield from argument
        return
    for row in range(*leading(argument, 1)):
        yield part_of(argument, row)


def classes_of(labels: npt.NDArray[Any], known: tuple[Any, ...] | None = None) -> npt.NDArray[Any]:
    """Return the different labels of a task, sorted.

    Args:
        labels: of its examples.
        known: all labels, where they mean the same in every task: these are returned then.

    Raises:
        EvometaError: if some are missing or not known, or they cannot be sorted.
    """
    missing = [label for label in labels.tolist() if label is None or label != label]
    if missing:
        raise EvometaError(f"labels must not be missing, but {len(missing)} are {missing[0]}")
    if known is not None:
        new = [label for label in labels.tolist() if label not in known]
        if new:
            raise EvometaError(
                f"labels must be those of meta-training, {', '.join(map(repr, known))}, but one is "
                f"{new[0]!r}"
            )
        return np.array(known)
    try:
        return np.unique(labels)
    except TypeError as error:
        raise EvometaError(f"labels must be of one kind, to be sorted: {error}") from error


def as_array(y: Array) -> npt.NDArray[Any]:
    """Return targets as an array.

    Raises:
        EvometaError: if they are none.
    """
    if isinstance(y, Tensor):
        values = y.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    try:
        return np.asarray(y)
    except ValueError as error:
        raise EvometaError(f"targets must be an array: {error}") from error
