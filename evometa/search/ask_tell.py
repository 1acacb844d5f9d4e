"""The book-keeping that all strategies share."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evometa.errors import GenomeError, SpaceError
from evometa.records import Candidate, Evaluation, Genome, canonical_json, derive_seed
from evometa.search.protocol import Proposal, Strategy
from evometa.space import Space

PROPOSALS = 20  # of the strategy, before its last duplicate is mutated instead
MUTATIONS = 50
SAMPLES = 200


class AskTell:
    """A `Searcher` made of a `Strategy`: numbers, seeds, seed points, and no genome twice.

    Candidate *n* depends on the study's seed and on what was told before alone. What is kept for
    each candidate is its number and its genome's 16-byte hash; populations are bounded.

    Args:
        space: what may be proposed.
        strategy: the algorithm.
        seed: the study's seed.
        seeds: known designs by name, proposed first.

    Raises:
        GenomeError: if a seed point lies outside the space.
    """

    def __init__(
        self,
        space: Space,
        strategy: Strategy,
        seed: int,
        seeds: Mapping[str, Genome] | None = None,
    ) -> None:
        self._space, self._strategy, self._seed = space, strategy, seed
        self._seeds = list((seeds or {}).items())
        for name, genome in self._seeds:
            try:
                space.validate(genome)
            except GenomeError as error:
                raise GenomeError(f"seed point {name!r}: {error}") from error
        self._next = 0
        self._proposed: set[bytes] = set()
        self._told: set[tuple[int, int]] = set()
        self._size = space.size()

    def ask(self, n: int) -> list[Candidate]:
        """Return `n` candidates; fewer only when nothing is left to propose.

        Raises:
            SpaceError: if the strategy proposes nothing but genomes outside the space.
        """
        candidates: list[Candidate] = []
        while len(candidates) < n:
            proposal = self._propose()
            if proposal is None:
                break
            self._proposed.add(_digest(proposal.genome))
            candidates.append(
                Candidate(
                    number=self._next,
                    genome=proposal.genome,
                    seed=derive_seed(self._seed, "candidate", self._next),
                    parents=proposal.parents,
                    operator=proposal.operator,
                    searcher=self._strategy.name,
                )
            )
            self._next += 1
        return candidates

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Take notice of evaluations, in any order; a second telling of one changes nothing.

        Those of candidates that were not asked for here, of an earlier part of a run say, are
        learned from as well where their genomes lie in the space, and later candidates are
        numbered after them.
        """
        for evaluation in evaluations:
            candidate = evaluation.candidate
            if (candidate.number, candidate.rung) in self._told:
                continue
            self._told.add((candidate.number, candidate.rung))
            if candidate.number >= self._next and not self._is_inside(candidate.genome):
                continue  # of another space: nothing to learn from here
            self._proposed.add(_digest(candidate.genome))
            self._next = max(self._next, candidate.number + 1)
            self._strategy.observe(evaluation)

    def _propose(self) -> Proposal | None:
        while self._seeds:
            name, genome = self._seeds.pop(0)
            if _digest(genome) not in self._proposed:
                return Proposal(genome, operator=f"seed:{name}")
        if len(self._proposed) >= self._size:
            return None
        rng = np.random.default_rng([self._seed, self._next])
        proposal = self._strategy_proposal(rng)
        for _ in range(PROPOSALS - 1):
            if self._is_new(proposal):
                return proposal
            proposal = self._strategy_proposal(rng)
        for _ in range(MUTATIONS):
            if self._is_new(proposal):
                return proposal
            genome = self._space.mutate(proposal.genome, rng)
            proposal = Proposal(genome, proposal.parents, proposal.operator)
        for _ in range(SAMPLES):
            proposal = Proposal(self._space.sample(rng), operator="random")
            if self._is_new(proposal):
                return proposal
        return None  # constraints leave fewer genomes than the size of the space says

    def _is_inside(self, genome: Genome) -> bool:
        try:
            self._space.validate(genome)
        except GenomeError:
            return False
        return True

    def _is_new(self, proposal: Proposal) -> bool:
        return _digest(proposal.genome) not in self._proposed

    def _strategy_proposal(self, rng: np.random.Generator) -> Proposal:
        """Return the strategy's proposal; reject what lies outside the space, and ask again."""
        for _ in range(PROPOSALS):
            proposal = self._strategy.propose(rng)
            try:
                self._space.validate(proposal.genome)
                return proposal
            except GenomeError as error:
                reason = error
        raise SpaceError(
            f"the strategy {self._strategy.name!r} must propose genomes of the space, but "
            f"{PROPOSALS} in a row lie outside; the last: {reason}"
        )


def unknown_name(kind: str, name: str, known: Sequence[Any]) -> str:
    """Return the message for a name that is not known."""
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind} must be one of {', '.join(known)}, got {name!r}{hint}"


def _digest(genome: Genome) -> bytes:
    return hashlib.blake2b(canonical_json(genome).encode(), digest_size=16).digest()
