"""What every learner offers."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from torch import Tensor

Meta: TypeAlias = dict[str, dict[str, Tensor]]
"""What a learner knows before an episode. The outer loop trains `params` and `learned`;
`buffers` are carried along."""

Adapted: TypeAlias = Any
"""What a learner knows after the support set: a pytree of tensors."""

Examples: TypeAlias = tuple[Tensor, Tensor]
"""`(inputs, targets)` of one side of one episode: `(examples, *shape)`, `(examples, ...)`."""


class Learner(Protocol):
    """How an episode is learned: pure functions of values that can be mapped over tasks."""

    def init(self) -> Meta:
        """Return the meta-parameters before any training."""
        ...

    def adapt(self, meta: Meta, support: Examples) -> Adapted:
        """Learn one episode's support set."""
        ...

    def predict(self, adapted: Adapted, inputs: Tensor) -> Tensor:
        """Predict one episode's queries, shape `(queries, *shape)`."""
        ...

    def meta_loss(
        self, meta: Meta, support: Examples, query: Examples
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Adapt to the support set; return the query loss and the scores, all scalars."""
        ...
