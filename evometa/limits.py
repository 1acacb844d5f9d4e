"""Constraints on metrics, such as `params <= 50_000`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evometa.errors import StudyError

FARTHEST = 1e6  # times a bound: farther is as bad
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([-+]?[\d_]*\.?[\d_]*(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of a metric.

    Attributes:
        metric: its name.
        most: whether `bound` is the most that is allowed, or else the least.
        bound: the bound.
    """

    metric: str
    most: bool
    bound: float

    def __str__(self) -> str:
        whole = self.bound.is_integer()
        bound = str(int(self.bound)) if whole else repr(self.bound)
        return f"{self.metric} {'<=' if self.most else '>='} {bound}"

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Return by which share of the bound a metric is beyond it; 0 if it is within."""
        beyond = metrics[self.metric] - self.bound
        beyond = max(0.0, beyond if self.most else -beyond)
        return min(FARTHEST, beyond / (abs(self.bound) or 1.0))


def parse_limit(text: str, metrics: Sequence[str]) -> Limit:
    """Read a limit.

    Args:
        text: `METRIC <= NUMBER` or `METRIC >= NUMBER`.
        metrics: the names there are.

    Raises:
        StudyError: if it reads otherwise, or the metric is unknown.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    try:
        if found is None:
            raise ValueError
        bound = float(found[3])
        if not math.isfinite(bound):
            raise ValueError
    except ValueError:
        raise StudyError(f"a constraint must read like 'params <= 50_000', got {text!r}") from None
    if found[1] not in metrics:
        raise StudyError(
            f"the metric of a constraint must be one of {', '.join(metrics)}, got {text!r}"
        )
    return Limit(found[1], found[2] == "<=", bound)


def stored_limits(study: Mapping[str, Any]) -> list[Limit]:
    """Return the constraints that a study.json keeps."""
    return [parse_limit(text, study["metrics"]) for text in study.get("constraints", ())]


def broken(metrics: Mapping[str, float], limits: Sequence[Limit]) -> str:
    """Return what is broken of the limits on metrics that are known; empty if nothing."""
    known = [limit for limit in limits if limit.metric in metrics]
    return "; ".join(
        f"{limit.metric} is {metrics[limit.metric]:g}, but the study asks for {limit}"
        for limit in known
        if limit.violation(metrics)
    )


def violation(metrics: Mapping[str, float], limits: Sequence[Limit]) -> float:
    """Return by how much limits are broken, summed over them; 0 if none is."""
    return sum((limit.violation(metrics) for limit in limits), 0.0)


def penalised(worst: float, violation: float) -> float:
    """Return the loss of who breaks limits, where nothing but a loss is understood (Deb, 2000).

    Args:
        worst: loss of the worst of those that break none.
        violation: above 0.
    """
    return max(worst + violation, math.nextafter(worst, math.inf))  # however large the losses are
