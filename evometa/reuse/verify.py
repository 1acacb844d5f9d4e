"""Does an export compute what the learner does that was searched?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from evometa.errors import EvometaError
from evometa.learner import predictor, unmapped
from evometa.reuse.exported.learner import Learner
from evometa.reuse.learner import FewShotLearner
from evometa.reuse.samples import Sample
from evometa.reuse.tracing import Limits, portable

TOLERANCE = 1e-5  # of the largest output: both do the same operations, in single precision


class Verified(NamedTuple):
    """What a check has found.

    Attributes:
        difference: largest difference of outputs, as a share of the largest output.
        limits: how many `examples`, `classes` and `queries` the export takes.
    """

    difference: float
    limits: Limits


def verify(learner: FewShotLearner, exported: Learner, samples: Sequence[Sample]) -> Verified:
    """Hold an export against the learner on unseen tasks.

    With as many examples as in meta-training, with fewer and with more, of fewer and of more
    classes, and after each number of steps. Then with one example and with one query, which are not
    always possible; the limits say so.

    Args:
        learner: the learner that was searched.
        exported: the export.
        samples: two tasks.

    Raises:
        EvometaError: if outputs differ.
    """
    limits = dict(exported.facts["limits"])
    worst = 0.0
    for sample, steps in _trials(learner, samples, exported.facts["steps"]):
        if _fits(sample, limits):
            found = _difference(learner, exported, sample, steps)
            if not found <= TOLERANCE:
                raise EvometaError(
                    "the export does not compute what the search did: outputs for "
                    f"{len(sample.y)} examples differ by {found:.2g} of the largest. This is a "
                    "fault of evometa; please report it with the genome"
                )
            worst = max(worst, found)
    for axis, sample in (
        ("examples", samples[0].part(support=slice(1))),
        ("queries", samples[0].part(query=slice(1))),
    ):
        if _fits(sample, limits) and not _same(learner, exported, sample):
            limits[axis] = (2, limits[axis][1])
    return Verified(worst, limits)


def _trials(
    learner: FewShotLearner, samples: Sequence[Sample], steps: int
) -> Iterator[tuple[Sample, int | None]]:
    one, two = samples
    yield from ((one, None), (two, None))
    yield from ((one, count) for count in range(steps))
    ways = int(one.y.max()) + 1 if learner.outputs is None and learner.most is None else 0
    yield one.joined(two, ways), None
    if len(one.y) > 2:
        yield one.part(support=slice(0, None, 2)), None
        yield one.part(support=slice(len(one.y) // 2 + 1)), None


def _fits(sample: Sample, limits: Limits) -> bool:
    lengths = {"examples": len(sample.y), "queries": len(sample.answers)}
    if not sample.y.is_floating_point():
        lengths["classes"] = sample.classes
    return all(
        limits[axis][0] <= length <= (limits[axis][1] or length) for axis, length in lengths.items()
    )


def _same(learner: FewShotLearner, exported: Learner, sample: Sample) -> bool:
    try:
        return _difference(learner, exported, sample, None) <= TOLERANCE
    except (ValueError, RuntimeError):  # as batch norm of a single number
        return False


def _difference(
    learner: FewShotLearner, exported: Learner, sample: Sample, steps: int | None
) -> float:
    """Return the largest difference of outputs, as a share of the largest output."""
    with portable():
        wanted = _outputs(learner, sample, steps)
        found = exported.adapt(sample.x, exported.named(sample.y), steps).outputs(sample.new)
    if found.shape != wanted.shape:
        return float("inf")
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1e-12))


def _outputs(learner: FewShotLearner, sample: Sample, steps: int | None) -> Tensor:
    single, support = unmapped(learner.learner), sample.support
    adapted = single.adapt(learner.meta, support)
    if steps is not None:
        *_, adapted = single.trajectory(learner.meta, support, steps)
    with torch.no_grad():
        outputs: Tensor = predictor(single, adapted)(sample.new)
    return outputs if sample.y.is_floating_point() else outputs[..., : sample.classes]
