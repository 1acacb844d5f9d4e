"""Named fields, and constraints between them."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, final

import numpy as np

from evometa.errors import GenomeError, SpaceError
from evometa.records import Genome
from evometa.space.paths import copied, is_name, join
from evometa.space.protocol import Leaf, Numeric, Space, is_space, pick, refuse, shown

Constraint: TypeAlias = Callable[[Any], bool]
Constraints: TypeAlias = Sequence[Constraint] | Mapping[str, Constraint]

ATTEMPTS = 1000  # before constraints are given up on
STRIDE = 100  # rejected mutants after which one more place is changed
MIXES = 50  # children tried before crossover returns a parent
DEAD_ENDS = 10  # mutations of a field that its own constraints forbade, each after ATTEMPTS


class _DeadEnd(SpaceError):
    """No other genome satisfies a Struct's constraints; another field may still change."""


@final
@dataclass(frozen=True, init=False, repr=False)
class Struct:
    """Named fields.

    Args:
        fields: spaces by name; of use where a name is no Python identifier, or is `constraints`.
        constraints: functions of the genome that must return true, in a sequence or by name. Each
            is given a copy.
        named: spaces by name.

    Raises:
        SpaceError: if a field is not a space or comes twice, or a constraint is not a function.
    """

    _fields: tuple[tuple[str, Space], ...]
    _constraints: tuple[tuple[str, Constraint], ...]

    def __init__(
        self,
        fields: Mapping[str, Space] | None = None,
        /,
        constraints: Constraints = (),
        **named: Space,
    ) -> None:
        if not isinstance(fields, Mapping | None):
            raise SpaceError(f"the fields of a Struct must come by name, but got {shown(fields)}")
        for name in named:
            if name in (fields or {}):
                raise SpaceError(f"a field of a Struct must be given once, but got {name!r} twice")
        together = {**(fields or {}), **named}
        for name, space in together.items():
            _check_field(name, space)
        object.__setattr__(self, "_fields", tuple(together.items()))
        object.__setattr__(self, "_constraints", tuple(_by_name(constraints).items()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name!r}: {space!r}" for name, space in self._fields)
        names = [name for name, _ in self._constraints]
        return f"Struct({{{fields}}}{f', constraints={names}' if names else ''})"

    @property
    def fields(self) -> Mapping[str, Space]:
        """The spaces by name."""
        return MappingProxyType(dict(self._fields))

    @property
    def constraints(self) -> Mapping[str, Constraint]:
        """The constraints by name."""
        return MappingProxyType(dict(self._constraints))

    def sample(self, rng: np.random.Generator) -> dict[str, Genome]:
        """Draw each field, again until the constraints hold."""
        broken: Counter[str] = Counter()
        for _ in range(ATTEMPTS):
            genome = {name: space.sample(rng) for name, space in self._fields}
            name = self._broken(genome)
            if name is None:
                return genome
            broken[name] += 1
        raise SpaceError(_in_vain(broken))

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the fields fit and the constraints hold."""
        names = [name for name, _ in self._fields]
        fields = f"the fields are {', '.join(names)}" if names else "there are no fields"
        if not isinstance(genome, dict):
            raise refuse(path, f"a dict; {fields}", genome)
        for name in genome:
            if name not in names:
                hint = _hint(name, [other for other in names if other not in genome] or names)
                raise GenomeError(f"{join(path, str(name))}: unknown field; {fields}{hint}")
        for name, space in self._fields:
            if name not in genome:
                raise GenomeError(f"{join(path, name)}: missing; {fields}")
            space.validate(genome[name], join(path, name))
        broken = self._broken(genome)
        if broken is not None:
            raise GenomeError(
                f"{path or 'genome'}: must satisfy the constraint {broken!r}, got {shown(genome)}"
            )

    def size(self) -> float:
        """Return the product of the fields' sizes."""
        return math.prod((space.size() for _, space in self._fields), start=1.0)

    def moves(self, genome: Genome) -> int:
        """Return the moves within all fields."""
        return sum(space.moves(genome[name]) for name, space in self._fields)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> dict[str, Genome]:
        """Change one place, again until the constraints hold.

        Where they forbid every single change, more and more places change together.
        """
        if not self.moves(genome):
            return self._copy(genome)
        broken: Counter[str] = Counter()
        dead_ends = 0
        for attempt in range(ATTEMPTS):
            mutant: dict[str, Genome] = genome
            try:
                for _ in range(1 + attempt // STRIDE):
                    mutant = self._change(mutant, rng)
            except _DeadEnd:
                dead_ends += 1
                if dead_ends == DEAD_ENDS:
                    raise
                continue
            if attempt >= STRIDE and mutant == genome:
                continue  # the changes undid each other
            name = self._broken(mutant)
            if name is None:
                return mutant
            broken[name] += 1
        raise _DeadEnd(_in_vain(broken))

    def crossover(
        self, first: Genome, second: Genome, rng: np.random.Generator
    ) -> dict[str, Genome]:
        """Cross over each field; where the constraints keep failing, return a copy of a parent."""
        for _ in range(MIXES):
            child = {
                name: space.crossover(first[name], second[name], rng)
                for name, space in self._fields
            }
            if self._broken(child) is None:
                return child
        return self._copy(first if rng.random() < 0.5 else second)

    def numeric(self, genome: Genome, path: str = "") -> dict[str, Numeric]:
        """Return the numbers of all fields."""
        found: dict[str, Numeric] = {}
        for name, space in self._fields:
            found |= space.numeric(genome[name], join(path, name))
        return found

    def genes(self, path: str = "") -> dict[str, Leaf]:
        """Return the genes of all fields."""
        found: dict[str, Leaf] = {}
        for name, space in self._fields:
            found |= space.genes(join(path, name))
        return found

    def describe(self) -> Any:
        """Return the space as plain data; constraints by name."""
        fields = {name: space.describe() for name, space in self._fields}
        return {"struct": fields, "constraints": [name for name, _ in self._constraints]}

    def _copy(self, genome: Genome) -> dict[str, Genome]:
        return {name: copied(genome[name]) for name, _ in self._fields}

    def _change(self, genome: Genome, rng: np.random.Generator) -> dict[str, Genome]:
        """Return the genome changed in one place, constraints aside."""
        new = self._copy(genome)
        weights = [space.moves(genome[name]) for name, space in self._fields]
        move = pick(sum(weights), rng)
        for (name, space), weight in zip(self._fields, weights, strict=True):
            if move < weight:
                new[name] = space.mutate(new[name], rng)
                break
            move -= weight
        return new

    def _broken(self, genome: Genome) -> str | None:
        """Return the name of the first constraint that does not hold."""
        for name, holds in self._constraints:
            try:
                if not holds(copied(genome)):
                    return name
            except Exception as error:
                raise SpaceError(
                    f"a constraint must return true or false for every genome, but {name!r} raised "
                    f"{type(error).__name__}: {error}, on the genome {genome!r}"
                ) from error
        return None


def _check_field(name: str, space: Any) -> None:
    if not is_name(name):
        raise SpaceError(f"the name of a field must be text without '.[]', but got {name!r}")
    if not is_space(space):
        if isinstance(space, type):
            mend = f"write {name}={space.__name__}(...)"
        elif isinstance(space, Mapping):
            mend = f"write {name}=Struct(...)"
        else:
            mend = f"for a constant use {name}=Choice({space!r})"
        raise SpaceError(f"a field of a Struct must be a space, but got {name}={space!r}; {mend}")


def _by_name(constraints: Any) -> dict[str, Constraint]:
    """Name constraints that come in a sequence; `#2` tells the second from equal or no names."""
    if isinstance(constraints, Sequence) and not isinstance(constraints, str):
        names = [getattr(holds, "__name__", type(holds).__name__) for holds in constraints]
        constraints = {
            name if names.count(name) == 1 and name != "<lambda>" else f"{name} #{index}": holds
            for index, (name, holds) in enumerate(zip(names, constraints, strict=True), 1)
        }
    if not isinstance(constraints, Mapping) or not all(map(callable, constraints.values())):
        raise SpaceError(
            "`constraints` must be a sequence of functions, or a mapping of names to functions, "
            f"but got {constraints!r}"
        )
    return {str(name): holds for name, holds in constraints.items()}


def _hint(name: object, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), names, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _in_vain(broken: Counter[str]) -> str:
    name, count = broken.most_common(1)[0]
    return (
        f"no genome in {ATTEMPTS} attempts satisfied the constraints; {name!r} failed {count} "
        "times. Narrow the fields so that more genomes satisfy it"
    )
