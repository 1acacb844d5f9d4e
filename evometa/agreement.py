"""Does a cheap evaluation predict an expensive one?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

POOR = 0.3  # rank correlation below which a rung hardly predicts the next
ENOUGH = 8  # pairs before anybody is warned


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a rung predicts the next one.

    Attributes:
        rung: the lower one.
        pairs: candidates that were evaluated at both.
        tau: Kendall's rank correlation of the first objective, from -1 to 1; 0 where there are too
            few pairs, or all are equal.
        error: standard error that `tau` would have if the two rungs had nothing in common.
    """

    rung: int
    pairs: int
    tau: float
    error: float

    @property
    def warning(self) -> str:
        """What a user should know; empty if the rung predicts well, or too little is known."""
        if self.pairs < ENOUGH or self.tau > POOR:
            return ""
        return (
            f"rung {self.rung} hardly predicts rung {self.rung + 1}: Kendall's tau is "
            f"{self.tau:.2f} over {self.pairs} candidates; make rung {self.rung} longer, or leave "
            "it out"
        )


def agree(rung: int, pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Return the agreement of losses at a rung with those at the next, one pair a candidate."""
    n = len(pairs)
    if n < 3:
        return Agreement(rung, n, 0.0, 1.0)
    import scipy.stats  # takes a second, which commands without rungs need not wait for

    tau = float(scipy.stats.kendalltau(*zip(*pairs, strict=True)).statistic)
    error = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
    return Agreement(rung, n, tau if math.isfinite(tau) else 0.0, error)
