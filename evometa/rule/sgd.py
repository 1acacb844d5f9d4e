"""Gradient descent with fixed or learned rates: MAML, FOMAML, ANIL, BOIL and Meta-SGD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evometa.rule.protocol import Tensors


@dataclass(frozen=True, slots=True)
class Sgd:
    """`p <- p - rate * gradient`, on some of the parameters, for a number of steps.

    Attributes:
        steps: number of inner steps.
        rate: the rate, or the initial value of all learned rates.
        order: 2 for MAML (Finn et al., 2017), 1 for its first-order approximation.
        rates: what is learned: `"fixed"` (nothing), `"shared"` (one rate), `"layer"` (one a layer),
            `"parameter"` (one a weight: Meta-SGD, Li et al., 2017).
        adapts: `"all"` parameters, the `"head"` (ANIL, Raghu et al., 2020) or the `"body"`
            (BOIL, Oh et al., 2021). The head is the last layer that has parameters.
    """

    steps: int
    rate: float
    order: int = 2
    rates: str = "fixed"
    adapts: str = "all"

    @property
    def structure(self) -> str:
        """Text that is equal for rules which differ only in numbers."""
        return f"sgd steps={self.steps} order={self.order} rates={self.rates} adapts={self.adapts}"

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
        if self.rates == "parameter":
            return {name: torch.full_like(value, self.rate) for name, value in params.items()}
        return {}

    def init(self, params: Tensors, learned: Tensors) -> dict[str, Tensor | float]:
        """Return the rate of each parameter: that is all the state gradient descent has."""
        if self.rates == "shared":
            return dict.fromkeys(params, learned["rate"])
        if self.rates == "layer":
            return {name: learned[_layer(name)] for name in params}
        if self.rates == "parameter":
            return {name: learned[name] for name in params}
        return dict.fromkeys(params, self.rate)

    def update(
        self, grads: Tensors, state: dict[str, Tensor | float], params: Tensors, step: int
    ) -> tuple[Tensors, dict[str, Tensor | float]]:
        """Return the parameters after one step, and the unchanged rates."""
        del step  # the same at every step
        return {name: params[name] - state[name] * grads[name] for name in params}, state


def make_rule(genome: Mapping[str, Any]) -> Sgd:
    """Turn a rule genome into a rule."""
    return Sgd(**genome)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
