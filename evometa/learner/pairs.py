"""How like are two sets of vectors, and what does that say of the classes of one of them?"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import ABSENT, Own

COSINE_SCALE = 10.0  # initial value of the learned scale (Gidaris and Komodakis, 2018)
POOLINGS = ("max", "mean", "logsumexp")
SCALES = ("learned", "fixed")


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return squared Euclidean distances, shape `(rows of one, rows of other)`."""
    return (one.unsqueeze(1) - other).square().sum(-1)


def similarity(distance: str, one: Tensor, other: Tensor) -> Tensor:
    """Return the negative squared distance (`"euclidean"`), or the cosine (`"cosine"`).

    Shape `(rows of one, rows of other)`.
    """
    if distance == "cosine":
        return F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T
    return -squared_distances(one, other)


def scale_of(scale: str | None, distance: str, like: Tensor) -> Own:
    """Return what similarities are multiplied with: 10 for a cosine at first, else 1.

    Args:
        scale: `"learned"` or `"fixed"`; None for what suits the distance, learned for a cosine.
        distance: of which it is.
        like: gives type and device.
    """
    number = {"scale": like.new_tensor(COSINE_SCALE if distance == "cosine" else 1.0)}
    learned = scale == "learned" if scale is not None else distance == "cosine"
    return Own({}, number, {}) if learned else Own({}, {}, number)


def pooled(scores: Tensor, members: Tensor, how: str) -> Tensor:
    """Return scores of classes from those of their examples.

    Args:
        scores: shape `(queries, examples)`.
        members: which examples belong to which class, shape `(ways, examples)`.
        how: one of `POOLINGS`. A class without an example has the score 0 or `ABSENT`.

    Returns:
        Shape `(queries, ways)`.
    """
    if how == "mean":
        return scores @ (members / members.sum(1, keepdim=True).clamp(min=1)).T
    own = torch.where(members > 0, scores.unsqueeze(1), ABSENT)
    return own.amax(-1) if how == "max" else own.logsumexp(-1)


def whole_numbers(head: Any) -> None:
    """Refuse a head with a field of the type `int` that is no whole number from 1.

    Raises:
        ValueError: naming the field.
    """
    for each in fields(head):
        value = getattr(head, each.name)
        if each.type == "int" and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"`{each.name}` must be a whole number from 1, got {value!r}")


def one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    """Refuse a gene that has no such value.

    Raises:
        ValueError: with the values that there are.
    """
    if value not in known:
        raise ValueError(f"`{name}` must be one of {[*known]}, got {value!r}")
