"""When is a search over?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from evometa.errors import StudyError
from evometa.records import Evaluation, Objectives, Status, dominates, rank_key


@dataclass(frozen=True)
class Budget:
    """What a search may spend, besides its number of candidates.

    What has been started is always finished, recorded and told.

    Attributes:
        hours: wall time of this session of the search.
        device_seconds: seconds of all evaluations together, those of earlier sessions included.
        patience: results in a row without which the front has moved; for one objective, without a
            new best.

    Raises:
        StudyError: if a number is not positive.
    """

    hours: float | None = None
    device_seconds: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("hours", "device_seconds", "patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise StudyError(f"`{name} > 0` must hold, but got ({name}={value!r})")


class Meter:
    """Counts what a search spends.

    Args:
        budget: what it may spend.
        objectives: name to direction.
        last: rung of the full evaluation, whose results make the front; of others, only failures
            count towards the patience. A further seed makes no front: one seed more is no candidate
            more. Nor does a candidate that breaks a constraint.
    """

    def __init__(self, budget: Budget, objectives: Objectives, last: int = 0) -> None:
        self._budget, self._objectives, self._last = budget, objectives, last
        self._started = time.monotonic()
        self._seconds = 0.0
        self._front: list[tuple[float, ...]] = []
        self._in_vain = 0

    def told(self, evaluation: Evaluation) -> None:
        """Count a result, in the order of telling: its time, and whether it moves the front."""
        self._seconds += evaluation.seconds
        if self._budget.patience is None or self.spent:
            return
        good, candidate = evaluation.status is Status.OK, evaluation.candidate
        self._in_vain += not good or candidate.rung >= self._last
        if not good or candidate.rung != self._last or candidate.repeat or evaluation.violation:
            return
        mine = rank_key(evaluation, self._objectives)
        if any(other == mine or dominates(other, mine) for other in self._front):
            return
        self._front = [other for other in self._front if not dominates(mine, other)]
        self._front.append(mine)
        self._in_vain = 0

    @property
    def spent(self) -> str:
        """Which part of the budget is used up; empty if none is."""
        budget = self._budget
        if budget.hours is not None and time.monotonic() - self._started >= 3600 * budget.hours:
            return f"{budget.hours:g} hours are over"
        if budget.device_seconds is not None and self._seconds >= budget.device_seconds:
            return f"{budget.device_seconds:g} device-seconds are used up"
        if budget.patience is not None and self._in_vain >= budget.patience:
            what = "best" if len(self._objectives) == 1 else "front"
            return f"the {what} has not moved over {budget.patience} results"
        return ""
