"""Few-shot regression of sine waves (Finn et al., 2017, section 5.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.errors import TaskError
from evometa.metrics import Direction
from evometa.task.protocol import Batch, EpisodeBatch, Predict, Side, split_seed


@dataclass(frozen=True)
class Sinusoid:
    """`y = amplitude * sin(x - phase)`, seen at `shots` points.

    Amplitude, phase and points are drawn uniformly. The three splits draw from the same
    distribution, in streams that never meet.

    Attributes:
        shots: points of the support set.
        queries: points of the query set of meta-train.
        eval_queries: points of the query set of meta-validation and meta-test; more of them make
            scores less noisy at no cost in training.
        amplitude: its range.
        phase: its range, in radians.
        x: range of the points.
    """

    shots: int = 10
    queries: int = 10
    eval_queries: int = 100
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    x: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        for name in ("shots", "queries", "eval_queries"):
            if getattr(self, name) < 1:
                raise TaskError(f"`{name} >= 1` must hold, but got ({name}={getattr(self, name)})")

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """Mean squared error of the queries."""
        return {"query_loss": "min"}

    def load(
        self, data: Path | None, *, download: bool = False, skip_broken: bool = False
    ) -> Sinusoid:
        """Return itself: waves need no data.

        Raises:
            TaskError: if a data folder is given all the same.
        """
        if data is not None:
            raise TaskError(f"sine waves need no data, but got --data {data}; leave it out")
        return self

    def episodes(self, split: str, n: int, generator: torch.Generator) -> EpisodeBatch:
        """Draw `n` waves: inputs and targets of shape `(n, examples, 1)`."""
        stream = torch.Generator().manual_seed(split_seed(split, generator))
        queries = self.queries if split == "meta-train" else self.eval_queries

        def uniform(size: tuple[int, ...], low: float, high: float) -> Tensor:
            return torch.rand(size, generator=stream, dtype=torch.float32) * (high - low) + low

        amplitude = uniform((n, 1, 1), *self.amplitude)
        phase = uniform((n, 1, 1), *self.phase)
        x = uniform((n, self.shots + queries, 1), *self.x)
        y = amplitude * torch.sin(x - phase)
        k = self.shots
        return EpisodeBatch(Batch(x[:, :k], y[:, :k]), Batch(x[:, k:], y[:, k:]))

    def loss(self, predict: Predict, side: Side) -> Tensor:
        """Return the mean squared error.

        Raises:
            ValueError: if the shapes differ, which would broadcast silently.
        """
        predictions, targets = predict(side.inputs), side.targets
        if predictions.shape != targets.shape:
            raise ValueError(
                f"predictions must have shape {tuple(targets.shape)}, got "
                f"{tuple(predictions.shape)}"
            )
        return F.mse_loss(predictions, targets)

    def scores(self, predict: Predict, side: Side) -> dict[str, Tensor]:
        """Return the mean squared error."""
        return {"query_loss": self.loss(predict, side)}

    def describe(self) -> dict[str, Any]:
        """Return name and arguments."""
        return {"name": "Sinusoid", **asdict(self)}
