"""One of several values, or of several sub-spaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome, canonical_json
from evometa.space.paths import copied, is_name, join
from evometa.space.protocol import Leaf, Numeric, Space, is_space, pick, refuse, shown

_SCALARS = (str, int, float, bool, type(None))


@final
@dataclass(frozen=True, init=False, repr=False)
class Choice:
    """One of several plain values, or of several named sub-spaces.

    The genome of a plain value is the value; that of a branch is `{name: genome of the sub-space}`.
    `1`, `1.0` and `True` are different values.

    Args:
        values: plain data: str, int, float, bool, None, or lists of these.
        branches: sub-spaces by name.

    Raises:
        SpaceError: if there is nothing to choose from, an option comes twice, a value is not plain
            data, or a sub-space has no name.
    """

    _keys: tuple[str, ...]
    _branches: tuple[tuple[str, Space], ...]
    _options: tuple[Any, ...] = field(compare=False)  # indices of values, then names of branches
    _values: tuple[Genome, ...] = field(compare=False)  # `_keys` tell 1, 1.0 and True apart
    _places: Mapping[tuple[type, Genome], int] = field(compare=False)
    _weights: tuple[float, ...] | None = None  # of the options; None for all alike

    def __init__(self, /, *values: Genome, **branches: Space) -> None:
        for value in values:
            _check_value(value)
        for name, branch in branches.items():
            _check_branch(name, branch)
        if not values and not branches:
            raise SpaceError("a Choice must have at least one value or branch, but got none")
        places = {_place(value): index for index, value in enumerate(values)}
        clash = [name for name in branches if (str, name) in places]
        if len(places) < len(values) or clash:
            raise SpaceError(f"the options of a Choice must differ, but got {(*values, *branches)}")
        object.__setattr__(self, "_keys", tuple(canonical_json(value) for value in values))
        object.__setattr__(self, "_branches", tuple(branches.items()))
        object.__setattr__(self, "_options", (*range(len(values)), *branches))
        object.__setattr__(self, "_values", tuple(copied(value) for value in values))
        object.__setattr__(self, "_places", places)
        object.__setattr__(self, "_weights", None)

    def __repr__(self) -> str:
        branches = (f"{name}={branch!r}" for name, branch in self._branches)
        weighted = "" if self._weights is None else f".weighted({self.weights})"
        return f"Choice({', '.join([*map(repr, self._values), *branches])}){weighted}"

    def weighted(self, weights: Mapping[Any, float]) -> Choice:
        """Return the same choice, of which some options are drawn more often than others.

        Args:
            weights: of plain values and of branches by name; 1 for those that are not named.

        Raises:
            SpaceError: if a weight is not a positive number, or there is no such option.
        """
        names = [*self._values, *self.branches]
        for name, weight in weights.items():
            if not any(_place(name) == _place(own) for own in names):
                raise SpaceError(f"a weight must be of an option of {self!r}, got {name!r}")
            if type(weight) not in (int, float) or not 0 < weight < math.inf:
                raise SpaceError(f"the weight of {name!r} must be a number above 0, got {weight!r}")
        given = {_place(name): float(weight) for name, weight in weights.items()}
        found = Choice(*self._values, **self.branches)
        each = tuple(given.get(_place(name), 1.0) for name in names)
        object.__setattr__(found, "_weights", None if len({*each}) == 1 else each)
        return found

    @property
    def weights(self) -> Mapping[str, float]:
        """How often each option is drawn beside the others: plain values as JSON, or branches."""
        each = self._weights or (1.0,) * len(self._options)
        return dict(zip([*self._keys, *self.branches], each, strict=True))

    @property
    def values(self) -> tuple[Genome, ...]:
        """The plain values."""
        return tuple(copied(value) for value in self._values)

    @property
    def branches(self) -> Mapping[str, Space]:
        """The sub-spaces by name."""
        return MappingProxyType(dict(self._branches))

    @property
    def type(self) -> type:
        """The type that all values but None share; `str` for lists, branches and mixed values.

        Ints and floats share `float`.
        """
        kinds = {type(value) for value in self._values if value is not None}
        kinds |= {str for _ in self._branches}
        if kinds == {int, float}:
            return float
        kind = kinds.pop() if len(kinds) == 1 else str
        return str if kind is list else kind

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw an option, all equally likely unless weighted, and a genome of it."""
        return self._make(self._options[self._pick(rng)], rng)

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the genome is one of the options."""
        option = self._option(genome)
        if option is None:
            options = [repr(value) for value in self._values]
            options += [f"{{{name!r}: ...}}" for name, _ in self._branches]
            only = "," if len(options) == 1 else ""
            raise refuse(path, f"one of ({', '.join(options)}{only})", genome)
        if isinstance(option, str):
            self._branch(option).validate(genome[option], join(path, option))

    def size(self) -> float:
        """Return the number of options, each branch counted with its genomes."""
        return len(self._values) + sum((branch.size() for _, branch in self._branches), 0.0)

    def moves(self, genome: Genome) -> int:
        """Return 1 for the switch to another option, and the moves within the branch."""
        switch = int(len(self._options) > 1)
        if not isinstance(genome, dict):
            return switch
        ((name, inner),) = genome.items()
        return switch + self._branch(name).moves(inner)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Switch to another option, or change the genome of the branch."""
        move = pick(self.moves(genome), rng)
        if move >= int(len(self._options) > 1):
            if not isinstance(genome, dict):
                return copied(genome)
            ((name, inner),) = genome.items()
            return {name: self._branch(name).mutate(inner, rng)}
        here = self._options.index(self._option(genome))
        return self._make(self._options[self._pick(rng, here)], rng)

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Cross over within a common branch, else return one of the two."""
        option = self._option(first)
        if isinstance(option, str) and option == self._option(second):
            child = self._branch(option).crossover(first[option], second[option], rng)
            return {option: child}
        return copied(first if rng.random() < 0.5 else second)

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return the numbers of the branch."""
        if not isinstance(genome, dict):
            return {}
        ((name, inner),) = genome.items()
        return self._branch(name).numeric(inner, join(path, name))

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return itself; the value in a table is the plain value or the name of the branch."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        branches = {name: branch.describe() for name, branch in self._branches}
        found = {"choice": list(self.values), "branches": branches}
        return found if self._weights is None else {**found, "weights": [*self._weights]}

    def _pick(self, rng: np.random.Generator, here: int | None = None) -> int:
        """Draw the place of an option other than the one at `here`."""
        if self._weights is None:
            other = pick(len(self._options) - (here is not None), rng)
            return other + (here is not None and other >= here)
        each = np.array(self._weights)
        each[slice(0) if here is None else here] = 0.0
        return int(np.searchsorted(np.cumsum(each), rng.random() * each.sum(), side="right"))

    def _branch(self, name: str) -> Space:
        return next(branch for other, branch in self._branches if other == name)

    def _option(self, genome: Genome) -> int | str | None:
        if isinstance(genome, dict):
            name = next(iter(genome), None)
            known = any(name == other for other, _ in self._branches)
            return name if known and len(genome) == 1 else None
        try:
            return self._places.get(_place(genome))
        except (TypeError, ValueError):  # not plain data
            return None

    def _make(self, option: int | str, rng: np.random.Generator) -> Genome:
        if isinstance(option, str):
            return {option: self._branch(option).sample(rng)}
        return copied(self._values[option])


def _place(value: Genome) -> tuple[type, Genome]:
    """Return a key that tells 1, 1.0 and True apart, also within lists."""
    return type(value), canonical_json(value) if isinstance(value, list) else value


def _check_value(value: Any) -> None:
    if is_space(value) or (isinstance(value, type) and isinstance(value, Space)):
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        raise SpaceError(f"a sub-space in a Choice needs a name: write Choice(name={name}(...))")
    items = [value]
    while items:
        item = items.pop()
        if isinstance(item, list):
            items += item
        elif type(item) not in _SCALARS or (type(item) is float and not math.isfinite(item)):
            raise SpaceError(
                "the values of a Choice must be plain data (str, int, finite float, bool, None, or "
                f"lists of these), but got {shown(item)} of type {type(item).__name__}"
            )


def _check_branch(name: str, branch: Any) -> None:
    if not is_space(branch):
        raise SpaceError(
            f"a named option of a Choice must be a space, but got {name}={shown(branch)}; "
            "give plain values without a name"
        )
    if not is_name(name):
        raise SpaceError(f"the name of a branch must be text without '.[]', but got {name!r}")
