"""What the results so far say of genomes that have not been tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from evometa.records import Candidate, Evaluation, Genome, Objectives, Status, losses
from evometa.search.surrogate import Array, Columns, Surrogate, Weights
from evometa.space import Space
from evometa.space.features import Features, features

KEPT = 192  # results that the model is given: half of them the best, half the latest
STALE = 100  # the model is renewed when one in so many results is new
GROWTH = 1.2  # the weights of genes are learned again when there are so many times the results
PARENTS = 12
HUGE = 1e60
RUNG = ("rung", "rung")
LINEAR = 1.0  # times the median's distance from the best: up to there losses count as they are


@dataclass(frozen=True, slots=True)
class Seen:
    """A result, as the model sees it.

    Attributes:
        id: of the candidate.
        genome: plain data.
        features: of the genome.
        losses: objective values, to be minimised; None for a failure.
        violation: by how much it breaks constraints.
    """

    id: str
    genome: Genome
    features: Features
    losses: tuple[float, ...] | None
    violation: float


class Model:
    """Remembers the results that matter, and judges genomes by them.

    A failure counts as the worst result. Rungs are a gene like others: what is learned from short
    trainings counts for long ones as far as the results show that it does.

    Args:
        space: what genomes lie in.
        objectives: name to direction.
    """

    def __init__(self, space: Space, objectives: Objectives) -> None:
        self._space, self._objectives = space, objectives
        self._seen: list[Seen] = []
        self._told = self._successes = self._top = 0
        self._columns, self._weights = Columns(), Weights()
        self._learn_at = self._renew_at = 0
        self._surrogate: Surrogate | None = None
        self._kept: list[Seen] = []
        self._values = np.zeros((0, 0))
        self._near = np.zeros((0, 0))
        self._believed: set[int] = set()

    @property
    def successes(self) -> int:
        """How many results were no failures."""
        return self._successes

    @property
    def told(self) -> int:
        """How many results there were."""
        return self._told

    def observe(self, evaluation: Evaluation) -> None:
        """Remember a result; forget the least telling one when there are too many."""
        candidate = evaluation.candidate
        good = evaluation.status is Status.OK
        found = features(self._space, candidate.genome)
        # further seeds are those of chosen ones, so they stand apart as a higher rung does
        stage = candidate.rung + candidate.repeat
        if stage:
            found[RUNG] = stage / 2
        values = losses(evaluation, self._objectives) if good else None
        self._seen.append(Seen(candidate.id, candidate.genome, found, values, evaluation.violation))
        self._told += 1
        self._successes += good
        self._top = max(self._top, stage)
        if len(self._seen) > 2 * KEPT:
            self._seen = self._telling()

    def judge(self, waiting: Sequence[Candidate], direction: Array) -> Judge:
        """Return the judgement on genomes, in one direction of the objectives.

        Args:
            waiting: those that are being evaluated.
            direction: weights of the objectives, positive, of sum 1.
        """
        if self._surrogate is None or self._told >= self._renew_at:
            self._renew(waiting)
        assert self._surrogate is not None
        for candidate in waiting:
            if candidate.number not in self._believed:
                self._believed.add(candidate.number)
                self._surrogate.believe(self.rows([candidate.genome])[0])
        targets = _towards(self._values, direction)
        return Judge(self, self._surrogate, self._near, targets, self._kept)

    def rows(self, genomes: Sequence[Genome]) -> Array:
        """Return the features of genomes at the highest rung so far, shape `(genomes, columns)`."""
        found = [features(self._space, genome) for genome in genomes]
        return self._columns.rows(self._at_top(found))

    def _at_top(self, found: Sequence[Features]) -> list[Features]:
        return [{**each, RUNG: self._top / 2} for each in found] if self._top else list(found)

    def _renew(self, waiting: Sequence[Candidate]) -> None:
        self._kept = kept = self._telling()
        rows = self._columns.rows([seen.features for seen in kept], learn=True)
        self._values = _standardised(kept, len(self._objectives))
        self._weights.grow(self._columns.genes)
        gene_of = self._columns.gene_of
        if self._told >= self._learn_at:
            self._weights.learn(rows, gene_of, self._values)
            self._learn_at = int(self._told * GROWTH) + 1
        pending = self.rows([candidate.genome for candidate in waiting])
        self._believed = {candidate.number for candidate in waiting}
        scale = np.exp(self._weights.log_weights / 2)[gene_of]
        noise = float(np.exp(self._weights.log_noise))
        self._surrogate = Surrogate(np.vstack([rows, pending]), len(rows), scale, noise)
        at_top = self._columns.rows(self._at_top([seen.features for seen in kept]))
        self._near = self._surrogate.near(at_top)
        self._renew_at = self._told + max(1, self._told // STALE)

    def _telling(self) -> list[Seen]:
        """Return at most `KEPT` results: the best, and of the others the latest."""
        if len(self._seen) <= KEPT:
            return list(self._seen)
        allowed = [i for i, seen in enumerate(self._seen) if _is_allowed(seen)]
        values = np.array([self._seen[i].losses for i in allowed])
        ranks = values.argsort(0).argsort(0).min(1).tolist() if allowed else []
        keys: dict[int, tuple[float, float]] = {
            i: (0.0, rank) for i, rank in zip(allowed, ranks, strict=True)
        }
        for i, seen in enumerate(self._seen):  # then by the constraints; failures are the last
            keys.setdefault(i, (np.inf if seen.losses is None else seen.violation, 0.0))
        order = sorted(range(len(self._seen)), key=lambda i: (keys[i], i))
        best = set(order[: KEPT // 2])
        others = [i for i in range(len(self._seen)) if i not in best]
        return [self._seen[i] for i in sorted(best | set(others[-KEPT // 2 :]))]


class Judge:
    """Judges genomes, in one direction of the objectives.

    Args:
        model: gives the rows of genomes.
        surrogate: predicts.
        near: kernel of what was seen, as if at the highest rung, with itself.
        targets: standardised losses of what was seen, in one direction, shape `(seen,)`.
        seen: the results.

    Attributes:
        parents: the best candidates by what is expected of them, not by one lucky result.
    """

    def __init__(
        self,
        model: Model,
        surrogate: Surrogate,
        near: Array,
        targets: Array,
        seen: Sequence[Seen],
    ) -> None:
        self._model, self._surrogate = model, surrogate
        self._solved = surrogate.solve(targets)
        means = near @ self._solved
        alive = [i for i, each in enumerate(seen) if each.losses is not None]
        order = sorted(alive, key=lambda i: (means[i], i))
        self._best = float(means[order[0]])
        by_id: dict[str, Seen] = {}
        for i in order:
            by_id.setdefault(seen[i].id, seen[i])
        self.parents = list(by_id.values())[:PARENTS]

    def promise(self, genomes: Sequence[Genome]) -> Array:
        """Return the expected improvement of each genome over the best (Jones et al., 1998)."""
        means, spread = self._surrogate.predict(self._model.rows(genomes), self._solved)
        better = (self._best - means) / spread
        density = np.exp(-0.5 * better**2) / (2 * np.pi) ** 0.5
        return np.asarray(spread * (better * ndtr(better) + density))


def _is_allowed(seen: Seen) -> bool:
    return seen.losses is not None and not seen.violation


def _standardised(seen: Sequence[Seen], objectives: int) -> Array:
    """Return losses, the large ones on a logarithmic scale.

    So a result that is far off, or a failure, tells little more than that it is bad. One that
    breaks constraints is as bad as the worst of those that do not.
    """
    allowed = any(_is_allowed(each) for each in seen)
    own = {  # until one is allowed, the less of a violation the better
        i: each.losses if allowed else (each.violation,) * objectives
        for i, each in enumerate(seen)
        if (_is_allowed(each) if allowed else each.losses is not None)
    }
    if not own:
        return np.zeros((len(seen), objectives))
    good = np.clip(np.array(list(own.values())), -HUGE, HUGE)  # sums of which do not overflow
    lowest, worst = good.min(0), good.max(0)
    filled = np.clip([own.get(i, worst) for i in range(len(seen))], lowest, worst)
    unit = LINEAR * (np.median(good, axis=0) - lowest) + 1e-12 * (1 + np.abs(lowest))
    logs = np.log1p((filled - lowest) / unit)
    return np.asarray((logs - logs.mean(0)) / np.maximum(logs.std(0), 1e-9))


def _towards(values: Array, direction: Array) -> Array:
    """Return the augmented Chebyshev value in a direction (ParEGO; Knowles, 2006), standardised."""
    if values.shape[1] == 1:
        return values[:, 0]
    span = np.maximum(values.max(0) - values.min(0), 1e-9)
    weighted = direction * (values - values.min(0)) / span
    targets = weighted.max(1) + 0.05 * weighted.sum(1)
    return np.asarray((targets - targets.mean()) / max(targets.std(), 1e-9))
