"""What every learning rule offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from evometa.rule.outer import Outer

Tensors: TypeAlias = dict[str, Tensor]
State: TypeAlias = Any
"""What a rule carries from step to step: a pytree of tensors."""


class Rule(Protocol):
    """An update of parameters from gradients: pure, differentiable, without in-place operations.

    All methods take and return dicts of tensors by parameter name, for the adapting parameters of
    one task. They are mapped over tasks and candidates: numbers that may differ between candidates
    of equal structure therefore come in as tensors, `learned` or `constants`.
    """

    @property
    def steps(self) -> int:
        """Number of inner steps."""
        ...

    @property
    def structure(self) -> str:
        """Text that is equal for rules which differ only in numbers."""
        ...

    @property
    def frame(self) -> str:
        """Text that is equal for rules which may differ in numbers and in their updates."""
        ...

    @property
    def alone(self) -> Rule:
        """The rule without those that it shares a pack with."""
        ...

    @property
    def multi_step(self) -> float:
        """Share of meta-training in which the losses after all steps count (MAML++); 0: none."""
        ...

    @property
    def affine(self) -> str:
        """`"shared"`, or `"step"`: batch-norm weights and biases of their own for each step."""
        ...

    @property
    def outer(self) -> Outer:
        """How the outer loop trains what the rule starts from."""
        ...

    def order_at(self, progress: float) -> int:
        """Return the order of derivative at a point of meta-training, from 0 to 1.

        2 differentiates through the inner gradient, 1 takes it as a constant, 0 takes the way from
        the initial to the adapted parameters for the gradient (Reptile).
        """
        ...

    @property
    def streams(self) -> bool:
        """Whether the support is taken in its order, one slice after the other."""
        ...

    def slices(self, examples: int, length: int | None = None) -> Iterator[slice | None]:
        """Yield for each update which of the support's examples it sees; None for all."""
        ...

    def place(self, step: int) -> int:
        """Return the place of an update among a rule's own steps, whose last one goes on."""
        ...

    @property
    def loss(self) -> str:
        """Loss of the inner loop: the `"task"`'s own, `"squared"` or `"huber"`."""
        ...

    def adapting(self, params: Tensors) -> list[str]:
        """Choose which of the parameters, in the network's order, adapt."""
        ...

    def learned(self, params: Tensors, generator: torch.Generator | None = None) -> Tensors:
        """Return the initial values of what the outer loop trains besides the parameters.

        Args:
            params: the adapting parameters; an axis of length 1 stands for one of any length.
            generator: draws what is random; default one of a fixed seed.
        """
        ...

    def constants(self, params: Tensors) -> Tensors:
        """Return the rule's fixed numbers, in the type of the parameters."""
        ...

    def init(self, params: Tensors, learned: Tensors, constants: Tensors) -> State:
        """Return the state before the first step."""
        ...

    def apply(
        self, grads: Tensors, loss: Tensor, state: State, params: Tensors, step: int
    ) -> tuple[Tensors, State]:
        """Return the parameters after inner step `step` (from 0), and the state.

        Args:
            grads: gradient of the support loss.
            loss: the support loss, a tensor without axes.
            state: from `init` or the step before.
            params: before the step.
            step: its number.
        """
        ...
