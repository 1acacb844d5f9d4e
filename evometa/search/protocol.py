"""What every searcher offers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evometa.records import Candidate, Evaluation, Genome


class Searcher(Protocol):
    """Proposes candidates and learns from their evaluations."""

    def ask(self, n: int) -> list[Candidate]:
        """Return `n` candidates; fewer only when nothing is left to propose."""
        ...

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take notice of evaluations, in any order; a second telling of one changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy would try next.

    Attributes:
        genome: one point of the space.
        parents: ids of the candidates it was made from.
        operator: what made it: `"random"`, `"mutate"`, `"crossover"`, ...
    """

    genome: Genome
    parents: tuple[str, ...] = ()
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for before, and not told yet.

    Attributes:
        waiting: candidates of earlier packs, oldest first.
        pack: those asked for together with the one to be proposed now; if they are equal to it in
            structure, one program evaluates them all.
        is_new: tells whether a genome has never been proposed.
    """

    waiting: Collection[Candidate] = ()
    pack: Sequence[Candidate] = ()
    is_new: Callable[[Genome], bool] = lambda genome: True


class Strategy(Protocol):
    """An algorithm of search, without any book-keeping."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Propose a genome. All randomness comes from `rng`, which is new at each proposal."""
        ...

    def observe(self, evaluation: Evaluation) -> None:
        """Learn from an evaluation of any status. Each candidate comes once at each rung."""
        ...
