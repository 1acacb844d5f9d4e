"""The covariance matrix adaptation evolution strategy (Hansen, 2016), for numbers alone."""

from __future__ import annotations

import numpy as np
from cmaes import CMA

from evometa.errors import SpaceError
from evometa.limits import penalised
from evometa.records import Evaluation, Objectives, Status, rank_key
from evometa.search.fixed import Refusal, require
from evometa.search.protocol import Asked, Proposal
from evometa.space import Space, decode, encode

SIGMA = 0.3  # first step, as a share of each range


class CMAES:
    """Draws from a normal distribution, which moves each time a population of results is in.

    Proposals do not wait for that, so all workers are busy. When the distribution has shrunk, it
    begins elsewhere with twice the population (IPOP; Auger and Hansen, 2005). Ranks by the first
    objective; who breaks constraints comes after all others, and a failure last.

    Args:
        space: numbers, in structs.
        objectives: name to direction.
        seed: of the middle of later distributions.

    Raises:
        SpaceError: if a part of the space is not a number.
    """

    name = "cma-es"

    def __init__(self, space: Space, objectives: Objectives, seed: int) -> None:
        require(space, Refusal(self.name, lists=True, branches=True, choices=True))
        first = next(iter(objectives))
        self._space, self._objective = space, {first: objectives[first]}
        self._rng = np.random.default_rng(seed)
        template = space.sample(self._rng)
        self._template, self._size = template, len(encode(template, space))
        if not self._size:
            raise SpaceError("the searcher 'cma-es' needs numbers, but the space has none")
        self._distribution = self._begin(np.full(self._size, 0.5), None)
        self._told: list[tuple[np.ndarray, tuple[float, ...]]] = []  # genes and `rank_key`

    def propose(self, rng: np.random.Generator, asked: Asked) -> Proposal:
        """Draw from the distribution."""
        del asked
        self._distribution.reseed_rng(int(rng.integers(2**31)))
        vector = self._distribution.ask()
        return Proposal(decode(self._template, vector.tolist(), self._space), operator="cma-es")

    def observe(self, evaluation: Evaluation) -> None:
        """Keep a result; move the distribution when a population of them is in."""
        good = evaluation.status is Status.OK
        key = rank_key(evaluation, self._objective) if good else (np.inf, np.inf)
        vector = np.array(encode(evaluation.candidate.genome, self._space))
        self._told.append((vector, key))
        if len(self._told) < self._distribution.population_size:
            return
        worst = max((loss for _, (violation, loss) in self._told if not violation), default=0.0)
        self._distribution.tell(
            [
                (vector, penalised(worst, violation) if violation else loss)
                for vector, (violation, loss) in self._told
            ]
        )
        self._told = []
        if self._distribution.should_stop():
            middle = self._rng.random(self._size)
            self._distribution = self._begin(middle, 2 * self._distribution.population_size)

    def _begin(self, middle: np.ndarray, population: int | None) -> CMA:
        bounds = np.tile([0.0, 1.0], (self._size, 1))
        return CMA(middle, SIGMA, bounds=bounds, seed=0, population_size=population)
