"""What a metric is: the way it improves, and how one number comes from many episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from evometa.errors import StudyError
from evometa.records import mean_interval

Direction: TypeAlias = Literal["min", "max"]
DIRECTIONS = ("min", "max")
RESAMPLES = 1000  # of the bootstrap that gives intervals of what is no mean

Summary: TypeAlias = Callable[[Any], float]
"""From the scores of all episodes, an array that begins with `episodes`, to one number."""


def interquartile_mean(values: Any) -> float:
    """Return the mean of the middle half (Agarwal et al., 2021); whole values, none in part."""
    ordered = np.sort(np.asarray(values, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


SUMMARIES: Mapping[str, Summary] = MappingProxyType(
    {
        "mean": lambda values: math.fsum(values) / len(values),
        "median": lambda values: float(np.median(values)),
        "iqm": interquartile_mean,
        "rms": lambda values: float(np.sqrt(np.mean(np.square(values)))),
        "min": lambda values: float(np.min(values)),
        "max": lambda values: float(np.max(values)),
    }
)


@dataclass(frozen=True)
class Metric:
    """A metric that is more than a direction.

    Attributes:
        direction: `"min"` or `"max"`, the way in which it improves.
        summary: how the scores of all episodes become one number: `"mean"`, whose 95 % interval
            is the normal one; or `"median"`, `"iqm"` (mean of the middle half), `"rms"` (root of
            the mean square), `"min"`, `"max"`, or a function of an array that begins with
            `episodes`, whose intervals are those of a bootstrap over episodes. With a function a
            score may be of any shape: predictions beside labels, say, for one curve over all
            episodes.

    Raises:
        StudyError: if an argument is none of these.
    """

    direction: Direction
    summary: str | Summary = "mean"

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise StudyError(
                f"the direction of a metric must be 'min' or 'max', got {self.direction!r}"
            )
        if not callable(self.summary) and self.summary not in SUMMARIES:
            raise StudyError(
                f"the summary of a metric must be one of {', '.join(SUMMARIES)}, or a function of "
                f"an array, got {self.summary!r}"
            )

    @property
    def is_mean(self) -> bool:
        """Whether it is a plain mean over episodes."""
        return self.summary == "mean"

    @property
    def name(self) -> str:
        """The summary's name."""
        return self.summary if isinstance(self.summary, str) else self.summary.__name__

    def value(self, scores: Sequence[Any]) -> float:
        """Return the one number of the scores of all episodes."""
        if isinstance(self.summary, str):
            return SUMMARIES[self.summary](scores)
        return float(self.summary(np.asarray(scores)))

    def each(self, scores: Sequence[Any]) -> list[float]:
        """Return one number for each episode; that of all where an episode alone has none."""
        if not callable(self.summary):
            return list(scores)
        whole, found = self.value(scores), [self._tried([score]) for score in scores]
        return [each if math.isfinite(each) else whole for each in found]

    def _tried(self, scores: Any) -> float:
        """Return the number of some episodes; NaN where the function does not take so few."""
        try:
            return self.value(scores)
        except Exception:  # of the user's own: one class alone has no curve, say
            return math.nan

    def half_interval(self, scores: Sequence[Any]) -> float:
        """Return the half-width of the 95 % interval; 0 for fewer than two episodes."""
        if self.is_mean or len(scores) < 2:
            return mean_interval(scores)[1]
        values, rng = np.asarray(scores), np.random.default_rng(0)
        draws = rng.integers(len(values), size=(RESAMPLES, len(values)))
        found = np.array([self._tried(values[draw]) for draw in draws])
        found = found[np.isfinite(found)]
        low, high = np.quantile(found, (0.025, 0.975)) if len(found) else (0.0, 0.0)
        return float(high - low) / 2


@dataclass(frozen=True)
class Measure:
    """A metric of the candidate that the user measures.

    Attributes:
        function: of a `Measured` candidate, which holds its module, inputs, and how to adapt it;
            returns a finite number.
        direction: `"min"` or `"max"`, the way in which it improves.
        trained: measure the candidate after meta-training; else before, where a constraint can
            spare the training.

    Raises:
        StudyError: if an argument is none of these.
    """

    function: Callable[[Any], float]
    direction: Direction
    trained: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise StudyError(f"a measure must be a function, got {self.function!r}")
        if self.direction not in DIRECTIONS:
            raise StudyError(
                f"the direction of a measure must be 'min' or 'max', got {self.direction!r}"
            )


def as_metrics(declared: Any, owner: str) -> dict[str, Metric]:
    """Read what a task declares as its metrics.

    Args:
        declared: name to `"min"`, `"max"` or a `Metric`.
        owner: whose they are, for the message.

    Raises:
        StudyError: if there is none, or one has no direction.
    """
    if not isinstance(declared, Mapping) or not declared:
        raise StudyError(
            f"the metrics of {owner} must say in which direction each improves, such as "
            f"{{'auc': 'max', 'query_loss': 'min'}}, got {declared!r}"
        )
    found = {}
    for name, metric in declared.items():
        if metric not in DIRECTIONS and not isinstance(metric, Metric):
            raise StudyError(
                f"the metric {name!r} of {owner} must have the direction 'min' or 'max', or be a "
                f"Metric, got {metric!r}"
            )
        found[str(name)] = metric if isinstance(metric, Metric) else Metric(metric)
    return found


class Scored(NamedTuple):
    """The metric whose scores a table keeps, one an episode.

    Attributes:
        name: its name.
        direction: the way in which it improves.
        is_mean: whether it is the mean over episodes.
    """

    name: str
    direction: Direction
    is_mean: bool = True

    @property
    def of_scores(self) -> str:
        """What the mean of the scores is: the metric, unless that is no mean."""
        return self.name if self.is_mean else f"mean {self.name} of an episode"


def scored_metric(study: Mapping[str, Any]) -> Scored:
    """Return the metric whose scores are kept, from a study.json."""
    name = str(next(iter(study["metrics"])))
    is_mean = study.get("summaries", {}).get(name, "mean") == "mean"
    return Scored(name, stored_directions(study)[name], is_mean)


def stored_directions(study: Mapping[str, Any]) -> dict[str, Direction]:
    """Return the direction of each metric of a study.json; an objective has the last word.

    Runs of older versions do not say: there accuracy was to be maximised, all others minimised.
    """
    old = {name: "max" if name.endswith("accuracy") else "min" for name in study["metrics"]}
    return {**old, **study.get("directions", {}), **study["objectives"]}
