"""Gaussian processes on features, linear ones among them: what is predicted, and how sure it is.

Harrison et al. (2018, ALPaCA) and Patacchiola et al. (2020, deep kernel transfer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import one_of, squared_distances
from evometa.learner.protocol import Tensors
from evometa.rule import outer_space
from evometa.space import Choice, Float, Primitive, Space, Struct
from evometa.task.classes import class_count
from evometa.task.protocol import IGNORED

KERNELS = ("linear", "rbf")
LOSSES = ("task", "likelihood")
JITTER = 1e-5  # least noise, relative to the mean variance of the support set


class Process(NamedTuple):
    """A Gaussian process after a support set.

    Attributes:
        features: that it has seen, shape `(examples, features)`.
        factor: Cholesky factor of their covariance, shape `(examples, examples)`.
        weights: of the examples in a prediction, shape `(examples, outputs)`.
        real: 1 for an example, 0 for padding, shape `(examples,)`.
        noise: variance of the noise.
    """

    features: Tensor
    factor: Tensor
    weights: Tensor
    real: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Bayesian(Head):
    """Predicts by Gaussian process regression on features; classes by that of one-hot labels.

    The outer loop learns the noise and the kernel's numbers. The linear kernel is that of Bayesian
    linear regression with a constant feature. The logit of a class is the mean of its label, times
    a learned scale, less where its variance is large (the moderated output of MacKay, 1992).

    Attributes:
        classes: whether it predicts classes; else values.
        kernel: `"linear"` or `"rbf"`, both plus a constant.
        noise: initial variance of the noise.
        scale: initial one of the logits.
        target: what the outer loop makes small: `"task"`, the task's loss; `"likelihood"`, the
            mean negative log density of values, or of one-hot labels, as published with ALPaCA.

    Raises:
        ValueError: if an argument is none of these.
    """

    classes: bool
    kernel: str = "linear"
    noise: float = 0.1
    scale: float = 10.0
    target: str = "task"

    def __post_init__(self) -> None:
        one_of("kernel", self.kernel, KERNELS)
        one_of("target", self.target, LOSSES)
        for name in ("noise", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        return f"bayesian {'classes' if self.classes else 'values'} {self.kernel} {self.target}"

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return noise, amplitude, constant and length, as logarithms, and the scale of logits."""
        del generator
        learned = {
            "log_noise": like.new_tensor(self.noise).log(),
            "log_amplitude": like.new_tensor(0.0),
            "log_constant": like.new_tensor(0.0),
        }
        if self.kernel == "rbf":
            learned["log_length"] = like.new_tensor(0.0)
        if self.classes:
            learned["scale"] = like.new_tensor(self.scale)
        return Own({}, learned, {})

    def fit(self, own: Tensors, shown: Shown) -> Process:
        """Return the process after a support set."""
        features, targets = shown.features, shown.targets
        real = shown.real.to(features.dtype)
        targets = (shown.one_hot if self.classes else targets).to(features.dtype)
        covariance = self._kernel(own, features, features) * real.unsqueeze(1) * real
        spread = covariance.diagonal().sum() / real.sum()
        noise = own["log_noise"].exp() + JITTER * spread
        one = torch.eye(len(features), dtype=features.dtype, device=features.device)
        factor, _ = torch.linalg.cholesky_ex(covariance + noise * one)
        return Process(features, factor, torch.cholesky_solve(targets, factor), real, noise)

    def score(self, own: Tensors, state: Process, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`, or means of shape `(queries, outputs)`."""
        mean, variance = self.density(own, state, features)
        if not self.classes:
            return mean
        spread = own["scale"].square() * (variance - state.noise).unsqueeze(1)
        return own["scale"] * mean / (1 + math.pi / 8 * spread).sqrt()

    def objective(self, own: Tensors, state: Process, asked: Asked, loss: Tensor) -> Tensor:
        """Return the task's loss, or the mean negative log density of the queries' targets."""
        if self.target == "task":
            return loss
        mean, variance = self.density(own, state, asked.features)
        targets = asked.one_hot if self.classes else asked.targets
        variance = variance.unsqueeze(1)
        each = ((targets - mean).square() / variance + (2 * math.pi * variance).log()).mean(1) / 2
        real = torch.ones_like(each)
        if self.classes:
            real = (asked.targets != IGNORED).to(each.dtype)
        return (each * real).sum() / real.sum()

    def density(self, own: Tensors, state: Process, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, `(queries, outputs)`, and the variance, `(queries,)`, noise included."""
        across = self._kernel(own, features, state.features) * state.real
        known = torch.linalg.solve_triangular(state.factor, across.T, upper=False).square().sum(0)
        variance = self._variances(own, features) - known
        return across @ state.weights, variance.clamp(min=0) + state.noise

    def _kernel(self, own: Tensors, one: Tensor, other: Tensor) -> Tensor:
        size = one.shape[1]
        if self.kernel == "linear":
            base = one @ other.T / size
        else:
            length = own["log_length"].exp()
            base = (-squared_distances(one, other) / (2 * size * length.square())).exp()
        return own["log_amplitude"].exp() * base + own["log_constant"].exp()

    def _variances(self, own: Tensors, features: Tensor) -> Tensor:
        """Return the diagonal of the kernel, shape `(queries,)`."""
        squares = features.square().mean(1)
        base = squares if self.kernel == "linear" else torch.ones_like(squares)
        return own["log_amplitude"].exp() * base + own["log_constant"].exp()


def bayesian_space(
    *,
    kernel: Space | None = None,
    noise: Space | None = None,
    scale: Space | None = None,
    target: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of Bayesian heads.

    Args:
        kernel: default `Choice("linear", "rbf")`.
        noise: initial variance; default `Float(0.01, 1, log=True)`.
        scale: initial scale of the logits of classes; default `Choice(10.0)`.
        target: what meta-training makes small; default `Choice("task", "likelihood")`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        kernel=Choice(*KERNELS) if kernel is None else kernel,
        noise=Float(0.01, 1.0, log=True) if noise is None else noise,
        scale=Choice(10.0) if scale is None else scale,
        target=Choice(*LOSSES) if target is None else target,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `bayesian_space` into a learner; raises as `make_embedded` does."""
    classes = class_count(setting.task) is not None
    return make_embedded(
        genes, setting, "Bayesian heads", lambda **own: Bayesian(classes, **own), values=True
    )


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    kernel = "f(x)·f(z)" if genes["kernel"] == "linear" else "exp(-‖f(x) - f(z)‖²/2λ²)"
    return f"y ← GP(f(x)) after (f(X), Y), kernel a·{kernel} + c, noise and kernel learned"


FAMILY = Family(
    name="bayesian",
    make=_make,
    space=bayesian_space,
    presets={
        "bayesian": {
            "kernel": "linear",
            "noise": 0.1,
            "scale": 10.0,
            "target": "task",
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
