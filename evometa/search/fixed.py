"""Which parts of a space a sampler from elsewhere cannot handle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from evometa.errors import SpaceError
from evometa.space import Choice, Float, Int, List, Space, Struct
from evometa.space.paths import join


@dataclass(frozen=True)
class Refusal:
    """What a searcher cannot handle.

    Attributes:
        searcher: its name.
        lists: lists of variable length.
        branches: choices of sub-spaces.
        choices: choices of values.
    """

    searcher: str
    lists: bool = False
    branches: bool = False
    choices: bool = False


def require(space: Space, refusal: Refusal, path: str = "") -> None:
    """Check that a searcher can handle a space.

    Raises:
        SpaceError: naming the part that it cannot, and searchers that can.
    """
    if isinstance(space, Struct):
        for name, field in space.fields.items():
            require(field, refusal, join(path, name))
    elif isinstance(space, List):
        if refusal.lists and space.min < space.max:
            _refuse(refusal, path, "a list of variable length")
        require(space.item, refusal, f"{path}[]")
    elif isinstance(space, Choice):
        if refusal.branches and space.branches:
            _refuse(refusal, path, "a choice of sub-spaces")
        if refusal.choices and space.size() > 1:
            _refuse(refusal, path, "a choice of values")
        for name, branch in space.branches.items():
            require(branch, refusal, join(path, name))
    elif not isinstance(space, Int | Float):
        _refuse(refusal, path, f"a {type(space).__name__}")


def _refuse(refusal: Refusal, path: str, what: str) -> NoReturn:
    alike = "'tpe', " if (refusal.lists and "a list" in what) or "a choice" in what else ""
    raise SpaceError(
        f"the searcher {refusal.searcher!r} cannot handle this space: {path or 'it'} is {what}; "
        f"use {alike}'hybrid', 'evolution', 'nsga2' or 'random'"
    )
