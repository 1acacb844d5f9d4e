"""What is wrong with a task or a measure of the user's own, said in terms of their code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.errors import EvometaError, TaskError
from evometa.network import unpadded
from evometa.records import derive_seed
from evometa.task.episodes import leading
from evometa.task.protocol import EpisodeBatch, Side, Task, sized
from evometa.user_code import user_code

OURS = Path(__file__).parent.parent.resolve()
CHECKED = ("meta-train", "meta-validation")


def place_of(error: BaseException) -> str:
    """Return the line of the user's code that an error came through last; empty if none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not path.resolve().is_relative_to(OURS) and "site-packages" not in path.parts:
            return f" at line {frame.lineno} of {path.name}, `{frame.line}`"
    return ""


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into an error that names its line.

    Raises:
        TaskError: in the place of what was raised.
    """
    try:
        yield
    except (EvometaError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise TaskError(
            f"{what} raised{place_of(error)}: {type(error).__name__}: {error}"
        ) from error


def check_episodes(task: Task) -> None:
    """Draw an episode of each split that a search sees, and check that it can be learned from.

    Raises:
        TaskError: if not; says what came, and what is wanted.
    """
    for split in CHECKED:
        drawn = draw(task, split, 2, derive_seed("check", split))
        again = draw(task, split, 2, derive_seed("check", split), others=1)
        if not _equal(drawn, again):
            raise TaskError(
                f"{_name(task)}.episodes({split!r}, 2, generator) must draw from `generator` "
                "alone, but equal generators gave different episodes"
            )


def draw(task: Task, split: str, n: int, seed: int, others: int = 0) -> EpisodeBatch:
    """Draw episodes, and check them.

    Args:
        task: draws.
        split: of which split.
        n: how many.
        seed: of the generator that the task is given.
        others: seeds the generators that it should not use.

    Raises:
        TaskError: if they cannot be drawn, or not be learned from.
    """
    call = f"{_name(task)}.episodes({split!r}, {n}, generator)"
    with blaming(call), user_code(others):
        shaped = sized(task, split)
        episodes: Any = shaped.episodes(split, n, torch.Generator().manual_seed(seed))
    if not isinstance(episodes, EpisodeBatch):
        raise TaskError(f"{call} must return EpisodeBatch(support, query), got {_kind(episodes)}")
    for side, name in zip(episodes, EpisodeBatch._fields, strict=True):
        leaves = pytree.tree_flatten_with_path(side)[0]
        if not leaves:
            raise TaskError(f"the {name} sets of {call} must hold tensors, got {_kind(side)}")
        for path, leaf in leaves:
            _check_leaf(leaf, f"{name}{pytree.keystr(path)}", call, n)
    return episodes


def _check_leaf(leaf: Any, name: str, call: str, n: int) -> None:
    if not isinstance(leaf, Tensor):
        wanted = "torch.as_tensor(...) makes one of a numpy array"
        raise TaskError(f"`{name}` of {call} must be a tensor, got {_kind(leaf)}; {wanted}")
    if not leaf.dim() or len(leaf) != n:
        raise TaskError(
            f"`{name}` of {call} must begin with the axis of tasks, of length {n}, got the shape "
            f"{tuple(leaf.shape)}"
        )
    if leaf.dtype == torch.float64:
        raise TaskError(
            f"`{name}` of {call} must be float32 as the networks are, got float64; end with "
            "`.float()`"
        )
    if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
        raise TaskError(
            f"`{name}` of {call} must be finite, but holds NaN or infinity "
            f"({int((~leaf.isfinite()).sum())} of {leaf.numel()} numbers)"
        )


class _Asked(BaseException):
    """Carries what a task asks a learner first; no user code catches it."""

    def __init__(self, inputs: Any) -> None:
        super().__init__()
        self.inputs = inputs


def asked_first(task: Task, side: Side) -> Any:
    """Return the inputs of the first prediction that a task's loss asks for.

    Raises:
        TaskError: if it asks for none.
    """

    def predict(inputs: Any) -> Any:
        raise _Asked(inputs)

    name = f"{type(task).__name__}.loss(predict, side)"
    try:
        with blaming(name):
            task.loss(predict, side)
    except _Asked as asked:
        return unpadded(asked.inputs)
    raise TaskError(f"{name} must call `predict` on inputs, but never did")


def checked_loss(task: Task, loss: Any) -> Tensor:
    """Return a loss as it is.

    Raises:
        TaskError: if it is no scalar tensor that follows from the predictions.
    """
    name = f"{_name(task)}.loss(predict, side)"
    if not isinstance(loss, Tensor):
        raise TaskError(f"{name} must return a scalar tensor, got {_kind(loss)}")
    if loss.dim():
        raise TaskError(
            f"{name} must return a scalar, got a tensor of shape {tuple(loss.shape)}; take the mean"
        )
    if not loss.is_floating_point():
        raise TaskError(f"{name} must return a float tensor, got {loss.dtype}")
    return loss


def checked_scores(task: Task, scores: Any, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return scores as they are.

    Raises:
        TaskError: if they are not tensors by the names of the metrics; scalars, unless the metric
            has a summary of its own.
    """
    name = f"{_name(task)}.scores(predict, side)"
    if not isinstance(scores, dict):
        raise TaskError(f"{name} must return a dict of scalar tensors, got {_kind(scores)}")
    if set(scores) != set(metrics):
        raise TaskError(
            f"{name} must return the metrics {', '.join(metrics)}, got {', '.join(scores) or '{}'}"
        )
    for metric, value in scores.items():
        if not isinstance(value, Tensor):
            raise TaskError(
                f"{name} must return tensors, but {metric!r} is {_kind(value)}; compute it with "
                "torch, so that it can be mapped over tasks, or set `mappable = False` and return "
                "torch.tensor(...)"
            )
        if value.dim() and not callable(metrics[metric].summary):
            raise TaskError(
                f"{name} must return scalars, but {metric!r} has the shape {tuple(value.shape)}"
            )
    return scores


def check_broadcast(task: Task, outputs: Any, side: Any) -> None:
    """Refuse predictions and targets whose shapes differ and would be broadcast to larger ones.

    Raises:
        TaskError: if they do, as `(examples, 1)` and `(examples,)` do to a square.
    """
    targets = getattr(side, "targets", None)
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return
    if not targets.is_floating_point() or outputs.shape == targets.shape:
        return
    try:
        together = torch.broadcast_shapes(outputs.shape, targets.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return  # the loss will say so, if it compares them at all
    if together.numel() > max(outputs.numel(), targets.numel()):
        raise TaskError(
            f"the targets of {_name(task)} have the shape {tuple(targets.shape)} and the network's "
            f"predictions {tuple(outputs.shape)}: compared, they are broadcast to "
            f"{tuple(together)}. Give the targets the shape (tasks, examples, outputs), as with "
            "`.unsqueeze(-1)`"
        )


def _equal(one: Any, other: Any) -> bool:
    pairs = zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=False)
    return leading(one, 1) == leading(other, 1) and all(torch.equal(a, b) for a, b in pairs)


def _name(task: Task) -> str:
    return type(task).__name__


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
