"""Gradient descent with fixed or learned rates: the MAML family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evometa.rule.outer import DEFAULT_OUTER, Outer, make_outer
from evometa.rule.protocol import Tensors

RATES = ("fixed", "shared", "layer", "layer-step", "parameter")
ADAPTS = ("all", "head", "body")
ORDERS = (0, 1, 2)
AFFINE = ("shared", "step")


@dataclass(frozen=True, slots=True)
class Sgd:
    """`p <- p - rate * gradient`, on some of the parameters, for a number of steps.

    Attributes:
        steps: number of inner steps.
        rate: the rate, or the initial value of all learned rates.
        order: 2 for MAML (Finn et al., 2017), 1 for its first-order approximation, 0 for Reptile
            (Nichol et al., 2018), which adapts to support and query set together and moves the
            initial parameters towards the adapted ones.
        rates: what is learned: `"fixed"` (nothing), `"shared"` (one rate), `"layer"` (one a layer),
            `"layer-step"` (one a layer and step: MAML++, Antoniou et al., 2019), `"parameter"` (one
            a weight: Meta-SGD, Li et al., 2017).
        adapts: `"all"` parameters, the `"head"` (ANIL, Raghu et al., 2020) or the `"body"`
            (BOIL, Oh et al., 2021). The head is the last layer that has parameters.
        multi_step: MAML++: share of meta-training in which the query losses after all steps count,
            with weights that move to the last step; 0 for the last one alone.
        anneal: MAML++: share of meta-training that is first order before `order` begins.
        affine: `"step"` gives batch norm its own learned weights and biases at each step (MAML++);
            they do not adapt.
        outer: how the outer loop trains.

    Raises:
        ValueError: if an argument is none of these.
    """

    steps: int
    rate: float
    order: int = 2
    rates: str = "fixed"
    adapts: str = "all"
    multi_step: float = 0.0
    anneal: float = 0.0
    affine: str = "shared"
    outer: Outer = DEFAULT_OUTER

    def __post_init__(self) -> None:
        for name, allowed in (
            ("order", ORDERS),
            ("rates", RATES),
            ("adapts", ADAPTS),
            ("affine", AFFINE),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}")
        if self.steps < 1:
            raise ValueError(f"`steps >= 1` must hold, got {self.steps!r}")
        for name in ("multi_step", "anneal"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`0 <= {name} <= 1` must hold, got {getattr(self, name)!r}")

    @property
    def structure(self) -> str:
        """Text that is equal for rules which differ only in numbers."""
        return (
            f"sgd steps={self.steps} order={self.order} rates={self.rates} adapts={self.adapts} "
            f"multi_step={self.multi_step} anneal={self.anneal} affine={self.affine} "
            f"outer={self.outer.structure}"
        )

    def order_at(self, progress: float) -> int:
        """Return the order of derivative at a point of meta-training."""
        return min(self.order, 1) if progress < self.anneal else self.order

    def first_order(self) -> Sgd:
        """Return the rule without second derivatives."""
        return replace(self, order=min(self.order, 1))

    def adapting(self, names: Sequence[str]) -> list[str]:
        """Choose which of the parameters, named in the network's order, adapt.

        Raises:
            ValueError: if none is left, as with `"body"` on a network of one layer.
        """
        head = _layer(names[-1]) if names else ""
        chosen = [
            name
            for name in names
            if self.adapts == "all" or (_layer(name) == head) == (self.adapts == "head")
        ]
        if not chosen:
            raise ValueError(
                f"the rule adapts the {self.adapts}, but the network has no such parameters "
                f"(it has {list(names)}); use adapts='all'"
            )
        return chosen

    def learned(self, params: Tensors) -> Tensors:
        """Return the initial learned rates, named as `init` reads them; empty if fixed."""
        some = next(iter(params.values()))
        if self.rates == "shared":
            return {"rate": some.new_tensor(self.rate)}
        if self.rates == "layer":
            return {_layer(name): some.new_tensor(self.rate) for name in params}
        if self.rates == "layer-step":
            return {_layer(name): some.new_full((self.steps,), self.rate) for name in params}
        if self.rates == "parameter":
            return {name: torch.full_like(value, self.rate) for name, value in params.items()}
        return {}

    def constants(self, params: Tensors) -> Tensors:
        """Return the rate, if it is fixed."""
        some = next(iter(params.values()))
        return {"rate": some.new_tensor(self.rate)} if self.rates == "fixed" else {}

    def init(self, params: Tensors, learned: Tensors, constants: Tensors) -> Tensors:
        """Return the rates of each parameter: that is all the state gradient descent has."""
        if self.rates == "fixed":
            return dict.fromkeys(params, constants["rate"])
        if self.rates == "shared":
            return dict.fromkeys(params, learned["rate"])
        if self.rates == "parameter":
            return {name: learned[name] for name in params}
        return {name: learned[_layer(name)] for name in params}

    def update(
        self, grads: Tensors, state: Tensors, params: Tensors, step: int
    ) -> tuple[Tensors, Tensors]:
        """Return the parameters after one step, and the unchanged rates."""
        return {
            name: torch.addcmul(value, self._at(state[name], step), grads[name], value=-1)
            for name, value in params.items()
        }, state

    def _at(self, rate: Tensor, step: int) -> Tensor:
        # steps beyond those that were trained go on at the last one's rate
        return rate[min(step, self.steps - 1)] if self.rates == "layer-step" else rate


def make_rule(genome: Mapping[str, Any]) -> Sgd:
    """Turn a rule genome into a rule.

    Raises:
        ValueError: if a gene has no such value.
        TypeError: if a gene is unknown or missing.
    """
    outer = make_outer(genome["outer"]) if "outer" in genome else DEFAULT_OUTER
    return Sgd(**{**genome, "outer": outer})


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
