"""The verbs of a trained learner as programs: of any family, they only ask what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from evometa.errors import EvometaError
from evometa.learner import Learner, Meta, predictor, unmapped
from evometa.reuse.samples import Sample
from evometa.reuse.tracing import Limits, Tracer, exported, portable, returned
from evometa.task.protocol import Batch, ClassBatch


@dataclass(frozen=True)
class Programs:
    """What a learner does, in a form that needs PyTorch alone.

    Attributes:
        adapt: from the weights and a support set to what the adapted learner knows, a list.
        predict: from that and inputs to predictions.
        trajectory: as `adapt`, to a list of what is known before the first step and after each,
            one after the other; None where a learner has no steps to choose from.
        weights: the meta-parameters by name, as programs take them.
        steps: how many a trajectory has.
        limits: how many `examples`, `classes` and `queries` they take.
    """

    adapt: ExportedProgram
    predict: ExportedProgram
    trajectory: ExportedProgram | None
    weights: dict[str, Tensor]
    steps: int
    limits: Limits


def make_programs(learner: Learner, meta: Meta, sample: Sample) -> Programs:
    """Trace a learner's verbs.

    Args:
        learner: the learner.
        meta: its trained meta-parameters.
        sample: a task.

    Raises:
        EvometaError: if it does not compute tensors from tensors alone; says why.
    """
    try:
        # a single one could be taken for what is always one
        few = len(sample.y) == 1 or len(sample.answers) == 1
        wide = sample.joined(sample) if few else sample
        return _traced(_Given.of(learner, meta, wide), "examples", "classes")
    except Exception as reason:
        try:
            return _traced(_Given.of(learner, meta, sample))  # for as many examples as there are
        except Exception:
            lines = str(reason).strip().splitlines() or [""]
            raise EvometaError(
                "the learner cannot be written as a program: "
                f"{type(reason).__name__}: {lines[0]}; use load_learner"
            ) from reason


@dataclass(frozen=True)
class _Given:
    """A learner, and what it is traced with."""

    learner: Learner
    parts: tuple[str, ...]
    weights: dict[str, Tensor]
    support: Batch | ClassBatch
    queries: Any

    @staticmethod
    def of(learner: Learner, meta: Meta, sample: Sample) -> _Given:
        weights = {
            f"{part}/{name}": value.detach()
            for part, tensors in meta.items()
            for name, value in tensors.items()
        }
        return _Given(unmapped(learner), tuple(meta), weights, sample.support, sample.new)

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[Meta, Any]:
        """Return meta-parameters and a support set from their tensors."""
        meta: dict[str, dict[str, Tensor]] = {part: {} for part in self.parts}
        for key, value in zip(self.weights, tensors, strict=False):
            part, name = key.split("/", 1)
            meta[part][name] = value
        tree = pytree.tree_structure(self.support)
        return meta, pytree.tree_unflatten(tensors[len(self.weights) :], tree)

    def axes(self, *free: str) -> list[str]:
        """Return the axis of each tensor of the support set, if it may have any length."""
        side = self.support
        count = len(pytree.tree_leaves(side.inputs)) + 1
        axes = ["examples"] * count + ["classes"] * isinstance(side, ClassBatch)
        return [axis if axis in free else "" for axis in axes]


def _traced(given: _Given, *free: str) -> Programs:
    learner, tracer = given.learner, Tracer()
    values = [*given.weights.values(), *pytree.tree_leaves(given.support)]
    axes = [""] * len(given.weights) + given.axes(*free)
    stand_ins = [tracer.stand_in(*each) for each in zip(values, axes, strict=True)]
    trees: list[Any] = []

    def flat(adapted: Any) -> list[Tensor]:
        leaves, tree = pytree.tree_flatten(adapted)
        if not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise TypeError("what a learner knows after adapting must be a pytree of tensors")
        trees.append(tree)
        return leaves

    def adapt(*tensors: Tensor) -> list[Tensor]:
        return flat(learner.adapt(*given.arguments(tensors)))

    def trajectory(*tensors: Tensor) -> list[Tensor]:
        line = learner.trajectory(*given.arguments(tensors))
        return [leaf for adapted in line for leaf in flat(adapted)]

    def predict(*tensors: Tensor) -> Tensor:
        known = pytree.tree_unflatten(tensors[:count], trees[0])
        inputs = pytree.tree_unflatten(tensors[count:], pytree.tree_structure(given.queries))
        outputs = predictor(learner, known)(inputs)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"predictions must be one tensor, got {type(outputs).__name__}")
        return outputs

    adapting = tracer.graph(adapt, stand_ins)
    known = returned(adapting)
    count = len(known)
    asked = [tracer.stand_in(leaf, "queries") for leaf in pytree.tree_leaves(given.queries)]
    predicting = tracer.graph(lambda *tensors: [predict(*tensors)], [*known, *asked])
    stepping = tracer.graph(trajectory, stand_ins) if learner.traits.steps else None
    if any(tree != trees[0] for tree in trees):
        raise TypeError("what a learner knows must have one form after all steps")
    with portable():
        state = adapting(*values)
        queries = pytree.tree_leaves(given.queries)
        return Programs(
            exported(adapting, stand_ins, values),
            exported(predicting, [*known, *asked], [*state, *queries]),
            None if stepping is None else exported(stepping, stand_ins, values),
            given.weights,
            0 if stepping is None else len(returned(stepping)) // count - 1,
            {**_fixed(given), **tracer.limits()},
        )


def _fixed(given: _Given) -> Limits:
    """Return the lengths of the axes that were not traced for any."""
    side = given.support
    lengths = {"examples": len(side.targets)}
    if isinstance(side, ClassBatch):
        lengths["classes"] = len(side.classes)
    return {axis: (length, length) for axis, length in lengths.items()}
