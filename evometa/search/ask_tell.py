"""The book-keeping that all strategies share."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evometa.errors import GenomeError, SpaceError, StudyError
from evometa.records import (
    BASELINE,
    EARLIER,
    Candidate,
    Evaluation,
    Genome,
    Key,
    Status,
    canonical_json,
    derive_seed,
)
from evometa.search.protocol import Asked, Proposal, Strategy
from evometa.space import Space
from evometa.space.paths import copied

PROPOSALS = 20  # of the strategy, before its last duplicate is mutated instead
MUTATIONS = 50
SAMPLES = 200

log = logging.getLogger(__name__)


class AskTell:
    """A `Searcher` made of a `Strategy`: numbers, seeds, seed points, and no genome twice.

    Candidate *n* depends on the study's seed and on what was told before alone. What is kept for
    each candidate is its number and its genome's 16-byte hash; populations are bounded.

    Args:
        space: what may be proposed.
        strategy: the algorithm.
        seed: the study's seed.
        seeds: known designs by name, proposed first.
        limit: how many candidates to propose in all; None for no limit.
        designs: the best of other searches by name, proposed next.
        earlier: evaluations of other searches to learn from before the first proposal. Those
            outside the space are left out.
        first: rung from which results are learned from, failures apart.

    Raises:
        GenomeError: if a seed point lies outside the space.
    """

    def __init__(
        self,
        space: Space,
        strategy: Strategy,
        seed: int,
        seeds: Mapping[str, Genome] | None = None,
        limit: int | None = None,
        designs: Mapping[str, Genome] | None = None,
        earlier: Sequence[Evaluation] = (),
        first: int = 0,
    ) -> None:
        self._space, self._strategy, self._seed = space, strategy, seed
        self._known = [(BASELINE, name, genome) for name, genome in (seeds or {}).items()]
        self._known += [(EARLIER, name, genome) for name, genome in (designs or {}).items()]
        for _, name, genome in self._known:
            try:
                space.validate(genome)
            except GenomeError as error:
                raise GenomeError(f"seed point {name!r}: {error}") from error
        self._next = self._count = 0
        self._limit, self._first = limit, first
        self._proposed: set[bytes] = set()
        self._told: set[Key] = set()
        self._waiting: dict[int, Candidate] = {}
        self._complained = False
        self._size = space.size()
        for evaluation in earlier:
            if self._is_inside(evaluation.candidate.genome):
                strategy.observe(evaluation)

    def ask(self, n: int) -> list[Candidate]:
        """Return `n` candidates; fewer only when nothing is left to propose."""
        waiting = list(self._waiting.values())
        pack: list[Candidate] = []
        while len(pack) < n and (self._limit is None or self._count < self._limit):
            known = self._next_known()
            proposal = known[1] if known else self._propose(Asked(waiting, pack, self._is_new))
            if proposal is None:
                break
            self._proposed.add(_digest(proposal.genome))
            candidate = Candidate(
                number=self._next,
                genome=proposal.genome,
                seed=derive_seed(self._seed, "candidate", self._next),
                parents=proposal.parents,
                operator=proposal.operator,
                searcher=self._strategy.name,
                name=known[0] if known else "",
            )
            self._waiting[self._next] = candidate
            pack.append(candidate)
            self._next += 1
            self._count += 1
        return pack

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take notice of evaluations, in any order; a second telling of one changes nothing.

        Those of candidates that were not asked for here, of an earlier part of a run say, are
        learned from as well where their genomes lie in the space, and later candidates are
        numbered after them.
        """
        for evaluation in evaluations:
            candidate = evaluation.candidate
            if self.knows(candidate):
                continue
            self._told.add(candidate.key)
            asked = self._waiting.pop(candidate.number, None)
            self._count += asked is None and candidate.is_new
            if candidate.number >= self._next and not self._is_inside(candidate.genome):
                continue  # of another space: nothing to learn from here
            self._proposed.add(_digest(candidate.genome))
            self._next = max(self._next, candidate.number + 1)
            if candidate.rung >= self._first:
                rung = candidate.rung - self._first  # strategies know of no look ahead
                self._observe(replace(evaluation, candidate=replace(candidate, rung=rung)))
            elif evaluation.status is not Status.OK:
                self._observe(evaluation)

    def knows(self, candidate: Candidate) -> bool:
        """Return whether the candidate's evaluation at its rung, with its seed, has been told."""
        return candidate.key in self._told

    def _next_known(self) -> tuple[str, Proposal] | None:
        """Return the next known design that is new here, with its name."""
        while self._known:
            operator, name, genome = self._known.pop(0)
            if self._is_new(genome):
                return name, Proposal(genome, operator=operator)
        return None

    def _propose(self, asked: Asked) -> Proposal | None:
        if len(self._proposed) >= self._size:
            return None
        rng = np.random.default_rng([self._seed, self._next])
        proposal = None
        for _ in range(PROPOSALS):
            proposal = self._strategy_proposal(rng, asked) or proposal
            if proposal is not None and self._is_new(proposal.genome):
                return proposal
        try:
            return self._other(proposal, rng)
        except SpaceError as error:  # constraints leave next to nothing
            log.warning("nothing is left to propose: %s", error)
            return None

    def _other(self, proposal: Proposal | None, rng: np.random.Generator) -> Proposal | None:
        """Return a new genome near a proposal that is not, or any new one."""
        for _ in range(MUTATIONS if proposal else 0):
            assert proposal is not None
            genome = self._space.mutate(proposal.genome, rng)
            if self._is_new(genome):
                return Proposal(genome, proposal.parents, proposal.operator)
        for _ in range(SAMPLES):
            genome = self._space.sample(rng)
            if self._is_new(genome):
                return Proposal(genome, operator="random")
        return None  # constraints leave fewer genomes than the size of the space says

    def _is_inside(self, genome: Genome) -> bool:
        try:
            self._space.validate(genome)
        except GenomeError:
            return False
        return True

    def _is_new(self, genome: Genome) -> bool:
        return _digest(genome) not in self._proposed

    def _strategy_proposal(self, rng: np.random.Generator, asked: Asked) -> Proposal | None:
        """Return the strategy's proposal, or None where it lies outside the space."""
        try:
            proposal = self._strategy.propose(rng, asked)
        except SpaceError:  # it finds nothing that satisfies the constraints
            return None
        except Exception as error:
            raise self._fault("propose", f"{type(error).__name__}: {error}") from error
        if not isinstance(proposal, Proposal):
            raise self._fault("propose", f"it returned {proposal!r}, which is no Proposal")
        if proposal.operator in (BASELINE, EARLIER):
            raise self._fault("propose", f"the operator {proposal.operator!r} marks known designs")
        try:
            self._space.validate(proposal.genome)
        except GenomeError as error:
            if not self._complained:
                self._complained = True
                log.warning(
                    "the searcher %r proposes genomes outside the space, which are rejected; the "
                    "first: %s",
                    self._strategy.name,
                    error,
                )
            return None
        return replace(proposal, genome=copied(proposal.genome))

    def _observe(self, evaluation: Evaluation) -> None:
        try:
            self._strategy.observe(evaluation)
        except Exception as error:
            raise self._fault("observe", f"{type(error).__name__}: {error}") from error

    def _fault(self, where: str, what: str) -> StudyError:
        return StudyError(
            f"the searcher {self._strategy.name!r} failed in `{where}`: {what}. Every finished "
            "candidate is kept; another searcher is chosen with --searcher"
        )


def unknown_name(kind: str, name: str, known: Sequence[Any]) -> str:
    """Return the message for a name that is not known."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} must be one of {', '.join(known)}, got {name!r}{hint}"


def _digest(genome: Genome) -> bytes:
    return hashlib.blake2b(canonical_json(genome).encode(), digest_size=16).digest()
