"""One of several values, or of several sub-spaces."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from evometa.errors import SpaceError
from evometa.records import Genome, canonical_json
from evometa.space.protocol import Space, join, refuse


class Choice:
    """One of several plain values, or of several named sub-spaces.

    The genome of a plain value is the value; that of a branch is `{name: genome of the sub-space}`.

    Args:
        values: plain data: str, int, float, bool, None, or lists of these.
        branches: sub-spaces by name.

    Raises:
        SpaceError: if there is nothing to choose from, a value comes twice, or a sub-space has no
            name.
    """

    def __init__(self, *values: Genome, **branches: Space) -> None:
        for value in values:
            if isinstance(value, Space):
                kind = type(value).__name__
                raise SpaceError(f"a sub-space in a Choice needs a name: Choice(name={kind}(...))")
        for name, branch in branches.items():
            if not isinstance(branch, Space):
                raise SpaceError(
                    f"a named option of a Choice must be a space, got {name}={branch!r}; "
                    "give plain values without a name"
                )
        if not values and not branches:
            raise SpaceError("a Choice needs at least one value or branch")
        try:
            keys = [canonical_json(value) for value in values]
        except (TypeError, ValueError) as error:
            raise SpaceError(f"the values of a Choice must be plain data: {error}") from error
        if len(set(keys)) < len(keys):
            raise SpaceError(f"the values of a Choice must differ, got {values!r}")
        self.values = copy.deepcopy(values)
        self.branches = dict(branches)
        self._keys = keys
        self._options: list[Any] = [*range(len(values)), *branches]

    @property
    def type(self) -> type:
        """The values' common type; `str` for branches and mixed values."""
        kinds = {type(value) for value in self.values} | {str for _ in self.branches}
        if kinds == {int, float}:
            return float
        kind = kinds.pop()
        return kind if not kinds and kind in (int, float, bool, str) else str

    def sample(self, rng: np.random.Generator) -> Genome:
        """Draw an option, all equally likely, and a genome of it."""
        return self._make(self._options[int(rng.integers(len(self._options)))], rng)

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the genome is one of the options."""
        option = self._option(genome)
        if option is None:
            shown = [*map(repr, self.values), *(f"{{{name!r}: ...}}" for name in self.branches)]
            options = f"({', '.join(shown)})" if len(shown) > 1 else f"({shown[0]},)"
            raise refuse(path, f"one of {options}", genome)
        if isinstance(option, str):
            self.branches[option].validate(genome[option], join(path, option))

    def size(self) -> float:
        """Return the number of options, branches counted with their own."""
        return len(self.values) + sum(branch.size() for branch in self.branches.values())

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Change to another option, or within a branch."""
        option = self._option(genome)
        inside = isinstance(option, str) and self.branches[option].size() > 1
        others = [other for other in self._options if other != option]
        if inside and (not others or rng.random() < 0.5):
            return {option: self.branches[option].mutate(genome[option], rng)}  # type: ignore[index]
        if not others:
            return copy.deepcopy(genome)
        return self._make(others[int(rng.integers(len(others)))], rng)

    def crossover(self, first: Genome, second: Genome, rng: np.random.Generator) -> Genome:
        """Cross over within a common branch, else return one of the two."""
        option = self._option(first)
        if isinstance(option, str) and option == self._option(second):
            return {option: self.branches[option].crossover(first[option], second[option], rng)}
        return copy.deepcopy(first if rng.random() < 0.5 else second)

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return itself, and the leaves of the genome's branch."""
        option = self._option(genome)
        if isinstance(option, str):
            inner = self.branches[option].leaves(genome[option], join(path, option))
            return {path: self, **inner}
        return {path: self}

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return itself."""
        return {path: self}

    def describe(self) -> Any:
        """Return the space as plain data."""
        branches = {name: branch.describe() for name, branch in self.branches.items()}
        return {"choice": copy.deepcopy(list(self.values)), "branches": branches}

    def _option(self, genome: Genome) -> int | str | None:
        if isinstance(genome, dict):
            name = next(iter(genome), None)
            return name if len(genome) == 1 and name in self.branches else None
        try:
            return self._keys.index(canonical_json(genome))
        except (TypeError, ValueError):
            return None

    def _make(self, option: int | str, rng: np.random.Generator) -> Genome:
        if isinstance(option, str):
            return {option: self.branches[option].sample(rng)}
        return copy.deepcopy(self.values[option])
