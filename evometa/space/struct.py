"""Named fields, and constraints between them."""

from __future__ import annotations

import copy
import difflib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from evometa.errors import GenomeError, SpaceError
from evometa.records import Genome
from evometa.space.protocol import Space, join, refuse

Constraint: TypeAlias = Callable[[Any], bool]

ATTEMPTS = 1000


class Struct:
    """Named fields.

    Args:
        mapping: fields by name, where a name is not a Python identifier.
        constraints: functions of the genome that must return true, in a sequence or by name.
        fields: spaces by name.

    Raises:
        SpaceError: if a field is not a space.
    """

    def __init__(
        self,
        mapping: Mapping[str, Space] | None = None,
        /,
        constraints: Sequence[Constraint] | Mapping[str, Constraint] = (),
        **fields: Space,
    ) -> None:
        self.fields: dict[str, Space] = {**(mapping or {}), **fields}
        for name, field in self.fields.items():
            if not isinstance(field, Space):
                raise SpaceError(
                    f"a field of a Struct must be a space, got {name}={field!r}; "
                    f"for a constant use {name}=Choice({field!r})"
                )
        if not isinstance(constraints, Mapping):
            constraints = {
                getattr(function, "__name__", "constraint")
                + (f" {index}" if index else ""): function
                for index, function in enumerate(constraints)
            }
        self.constraints = dict(constraints)
        self._sizes = {name: field.size() for name, field in self.fields.items()}
        self._weights = _weights(self._sizes)

    @property
    def type(self) -> type:
        """`str`."""
        return str

    def sample(self, rng: np.random.Generator) -> dict[str, Genome]:
        """Draw each field, again until the constraints hold."""
        return self._until_feasible(
            lambda: {name: field.sample(rng) for name, field in self.fields.items()}
        )

    def validate(self, genome: Genome, path: str = "") -> None:
        """Raise `GenomeError` unless the fields fit and the constraints hold."""
        if not isinstance(genome, dict):
            raise refuse(path, f"a dict with the fields {', '.join(self.fields)}", genome)
        for name in genome:
            if name not in self.fields:
                near = difflib.get_close_matches(str(name), self.fields, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise GenomeError(
                    f"{join(path, str(name))}: unknown field, the fields are "
                    f"{', '.join(self.fields)}{hint}"
                )
        for name, field in self.fields.items():
            if name not in genome:
                raise GenomeError(f"{join(path, name)}: missing")
            field.validate(genome[name], join(path, name))
        broken = self._broken(genome)
        if broken:
            raise GenomeError(f"{path or 'genome'}: must satisfy the constraint {broken!r}")

    def size(self) -> float:
        """Return the product of the fields' sizes."""
        return math.prod(self._sizes.values())

    def mutate(self, genome: Genome, rng: np.random.Generator) -> dict[str, Genome]:
        """Change one field; a field with many genes more likely than one with few."""
        if not self._weights:
            return copy.deepcopy(dict(genome))
        names = list(self._weights)
        chances = list(self._weights.values())

        def change() -> dict[str, Genome]:
            name = names[int(rng.choice(len(names), p=chances))]
            return {
                key: field.mutate(genome[key], rng) if key == name else copy.deepcopy(genome[key])
                for key, field in self.fields.items()
            }

        return self._until_feasible(change)

    def crossover(
        self, first: Genome, second: Genome, rng: np.random.Generator
    ) -> dict[str, Genome]:
        """Cross over each field; where the constraints never hold, return a copy of the first."""

        def mix() -> dict[str, Genome]:
            return {
                name: field.crossover(first[name], second[name], rng)
                for name, field in self.fields.items()
            }

        for _ in range(20):
            child = mix()
            if not self._broken(child):
                return child
        return copy.deepcopy(dict(first))

    def leaves(self, genome: Genome, path: str = "") -> dict[str, Space]:
        """Return the leaves of all fields."""
        found: dict[str, Space] = {}
        for name, field in self.fields.items():
            found |= field.leaves(genome[name], join(path, name))
        return found

    def genes(self, path: str = "") -> dict[str, Space]:
        """Return the genes of all fields."""
        found: dict[str, Space] = {}
        for name, field in self.fields.items():
            found |= field.genes(join(path, name))
        return found

    def describe(self) -> Any:
        """Return the space as plain data; constraints by name."""
        fields = {name: field.describe() for name, field in self.fields.items()}
        return {"struct": fields, "constraints": list(self.constraints)}

    def _broken(self, genome: Genome) -> str | None:
        for name, holds in self.constraints.items():
            try:
                if not holds(genome):
                    return name
            except Exception as error:
                raise SpaceError(
                    f"the constraint {name!r} raised {type(error).__name__}: {error} "
                    f"on the genome {genome!r}"
                ) from error
        return None

    def _until_feasible(self, make: Callable[[], dict[str, Genome]]) -> dict[str, Genome]:
        broken: Counter[str] = Counter()
        for _ in range(ATTEMPTS):
            genome = make()
            name = self._broken(genome)
            if name is None:
                return genome
            broken[name] += 1
        name, count = broken.most_common(1)[0]
        raise SpaceError(
            f"no genome in {ATTEMPTS} attempts satisfied the constraints; {name!r} failed {count} "
            "times. Narrow the fields so that more genomes satisfy it"
        )


def _weights(sizes: Mapping[str, float]) -> dict[str, float]:
    """Weigh fields by how many genes they hold, roughly: the logarithm of their size."""
    raw = {name: min(8.0, max(1.0, math.log10(size))) for name, size in sizes.items() if size > 1}
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}
