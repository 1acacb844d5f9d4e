"""Metrics of a candidate that the user measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evometa.errors import StudyError
from evometa.evaluate.faults import place_of
from evometa.learner import Learner, Meta, predictor, unmapped
from evometa.metrics import Measure
from evometa.records import Genome
from evometa.task.episodes import over
from evometa.task.protocol import Predict, Side


@dataclass(frozen=True)
class Measured:
    """A candidate that is measured; all of it is a copy, on the CPU.

    Attributes:
        genome: its genome.
        module: its network as `build` made it, in evaluation mode; once it is trained, with the
            meta-trained weights.
        inputs: what the network is given of one support set.
        adapt: learns that support set; returns the adapted learner as a function of inputs.
    """

    genome: Genome
    module: nn.Module
    inputs: Any
    adapt: Callable[[], Predict]


def adapting(learner: Learner, meta: Meta, support: Side) -> Callable[[], Predict]:
    """Return a function that learns a support set."""
    single = unmapped(learner)

    def adapt() -> Predict:
        with torch.no_grad():
            return predictor(single, single.adapt(meta, over(torch.clone, support)))

    return adapt


def measured(
    measures: Mapping[str, Measure], candidate: Callable[[], Measured], *, trained: bool
) -> dict[str, float]:
    """Return what the measures of the trained, or of the untrained candidate give.

    Raises:
        StudyError: if one raises, or gives no finite number.
    """
    found = {}
    for name, measure in measures.items():
        if measure.trained is not trained:
            continue
        try:
            value = float(measure.function(candidate()))
        except Exception as error:
            raise StudyError(
                f"the measure {name!r} raised{place_of(error)}: {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value):
            raise StudyError(f"the measure {name!r} must give a finite number, but gave {value}")
        found[name] = value
    return found
