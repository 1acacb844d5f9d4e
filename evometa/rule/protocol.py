"""What every learning rule offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Tensors: TypeAlias = dict[str, Tensor]
State: TypeAlias = Any
"""What a rule carries from step to step: a pytree of tensors."""


class Rule(Protocol):
    """An update of parameters from gradients: pure, differentiable, without in-place operations.

    All methods take and return dicts of tensors by parameter name, for the adapting parameters
    alone, so that a rule works on one task, and under `vmap` on many.
    """

    @property
    def steps(self) -> int:
        """Number of inner steps."""
        ...

    @property
    def order(self) -> int:
        """2 to differentiate through the inner gradient, 1 to take it as a constant."""
        ...

    @property
    def structure(self) -> str:
        """Text that is equal for rules which differ only in numbers."""
        ...

    def adapting(self, names: Sequence[str]) -> list[str]:
        """Choose which of the parameters, named in the network's order, adapt."""
        ...

    def learned(self, params: Tensors) -> Tensors:
        """Return the initial values of what the outer loop trains besides the parameters."""
        ...

    def init(self, params: Tensors, learned: Tensors) -> State:
        """Return the state before the first step."""
        ...

    def update(
        self, grads: Tensors, state: State, params: Tensors, step: int
    ) -> tuple[Tensors, State]:
        """Return the parameters after inner step `step` (from 0), and the state."""
        ...
