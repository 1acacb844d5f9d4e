"""How the outer loop trains what a learner starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COSINE_FLOOR = 0.01  # MAML++ anneals from 1e-3 to 1e-5
OPTIMISERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True, slots=True)
class Outer:
    """Optimiser, rate and schedule of the outer loop.

    Attributes:
        optimiser: `"adam"` (Kingma and Ba, 2015) or `"sgd"`, plain gradient descent.
        rate: its rate, before the schedule.
        schedule: `"constant"`; `"cosine"`, down to a hundredth of the rate (MAML++, Antoniou et
            al., 2019); `"linear"`, down to 0 (Reptile, Nichol et al., 2018).

    Raises:
        ValueError: if an argument is none of these.
    """

    optimiser: str = "adam"
    rate: float = 1e-3
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"`outer` must be one of {OPTIMISERS}, got {self.optimiser!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"`schedule` must be one of {SCHEDULES}, got {self.schedule!r}")
        if not self.rate > 0:
            raise ValueError(f"the outer `rate > 0` must hold, got {self.rate!r}")

    @property
    def structure(self) -> str:
        """Text that is equal for settings which differ only in numbers."""
        return f"{self.optimiser} {self.schedule}"

    def factor(self, progress: float) -> float:
        """Return the rate at a point of the training, relative to the rate at its start.

        Args:
            progress: meta-iterations done over all meta-iterations, from 0 to 1.
        """
        if self.schedule == "cosine":
            return COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "linear":
            return 1 - progress
        return 1.0


DEFAULT_OUTER = Outer()


def make_outer(genome: Mapping[str, Any]) -> Outer:
    """Turn the `outer` gene, `{optimiser: {rate, schedule}}`, into settings."""
    if not isinstance(genome, Mapping) or len(genome) != 1:
        raise ValueError(
            f"`outer` must be like {{'adam': {{'rate': 0.001, 'schedule': 'constant'}}}}, "
            f"got {genome!r}"
        )
    ((optimiser, settings),) = genome.items()
    return Outer(optimiser, **settings)
