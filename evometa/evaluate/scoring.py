"""Score trained candidates on episodes of unseen classes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evometa.evaluate.memory import peak_bytes
from evometa.evaluate.pack import Pack
from evometa.evaluate.plan import Plan
from evometa.evaluate.program import halved, mapped, part_of, spans
from evometa.evaluate.training import to_device
from evometa.learner import Learner, Meta
from evometa.task.protocol import EpisodeBatch, Task

CHUNK = 50  # episodes at once, at most
WORST = 1e6  # stands for a loss that is infinite or NaN beyond the steps that were trained


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores of a candidate on common episodes.

    Attributes:
        line: metric name to one value an episode, after 0, 1, ... inner steps.
        trained: the place in `line` that the learner was trained for.
        adapt_seconds: median wall time to adapt to one support set.
        adapt_bytes: peak memory of tensors made while adapting to one support set.
    """

    line: list[dict[str, list[float]]]
    trained: int
    adapt_seconds: float
    adapt_bytes: int

    @property
    def scores(self) -> dict[str, list[float]]:
        """Metric name to one value an episode, after the steps that were trained."""
        return self.line[self.trained]

    @property
    def diverged(self) -> str:
        """What is not finite; empty if all is."""
        for name, values in self.scores.items():
            odd = sum(not math.isfinite(value) for value in values)
            if odd:
                return f"{name} is not finite on {odd} of {len(values)} episodes"
        return ""

    def means(self, name: str) -> list[float]:
        """Return a metric's means after 0, 1, ... inner steps; losses at most `WORST`."""
        worst = 0.0 if name == "accuracy" else WORST
        return [
            statistics.fmean(min(v, WORST) if math.isfinite(v) else worst for v in row[name])
            for row in self.line
        ]


def score(
    learners: Sequence[Learner],
    metas: Sequence[Meta],
    task: Task,
    episodes: EpisodeBatch,
    *,
    plan: Plan,
    device: torch.device,
    steps: int | None = None,
) -> list[Outcome]:
    """Adapt to each episode, and score the queries.

    Args:
        learners: what adapts; equal in structure.
        metas: trained meta-parameters, one a learner.
        task: gives the scores.
        episodes: the common episodes of a study, tensors of shape `(tasks, examples, ...)`.
        plan: how episodes are executed.
        device: where.
        steps: inner steps to look at; at least, and by default, as many as in meta-training.

    Returns:
        One outcome a learner.

    Raises:
        torch.OutOfMemoryError: if a single episode does not fit.
    """
    pack = Pack.of(metas, [0.0] * len(metas), device)
    trained = learners[0].steps
    steps = max(steps or 0, trained) if trained else None
    rows = _all_scores(learners[0], pack, task, episodes, plan, device, steps)
    outcomes = []
    for index, learner in enumerate(learners):
        line = [{name: row[name][index].tolist() for name in task.metrics} for row in rows]
        seconds, size = _adapt_cost(learner.alone, pack.meta(index), part_of(episodes, 0), device)
        outcomes.append(Outcome(line, trained, seconds, size))
    return outcomes


def _all_scores(
    learner: Learner,
    pack: Pack,
    task: Task,
    episodes: EpisodeBatch,
    plan: Plan,
    device: torch.device,
    steps: int | None,
) -> list[dict[str, Tensor]]:
    """Return for each step the metrics, float64 of shape `(candidates, tasks)`."""

    def episode(
        flat: Tensor, carried: Any, numbers: Any, support: Any, query: Any, *, single: bool
    ) -> list[dict[str, Tensor]]:
        meta = {**pack.layout.unflatten(flat), **carried, "stage": numbers}
        scoring = learner.prepared(training=False, mapped=not single)
        return [
            task.scores(scoring.predict(adapted, query[0]), query[1])
            for adapted in scoring.trajectory(meta, support, steps)
        ]

    tasks, members = len(episodes.support.inputs), len(pack)
    while True:
        try:
            rows = []
            for start, stop in spans(members, plan.candidates):
                part = pack.keep(range(start, stop))
                columns = []
                for first, last in spans(tasks, min(plan.tasks or CHUNK, CHUNK)):
                    chunk = to_device(part_of(episodes, slice(first, last)), device)
                    chunk = _for_each(chunk, len(part))
                    with torch.no_grad():
                        columns.append(mapped(episode, part.flat, part.carried, {}, chunk))
                rows.append([_joined(line, 1) for line in zip(*columns, strict=True)])
            return [_joined(line, 0) for line in zip(*rows, strict=True)]
        except torch.OutOfMemoryError:
            smaller = halved(plan, members, min(tasks, CHUNK))
            if smaller is None:
                raise
            plan = smaller


def _for_each(episodes: EpisodeBatch, members: int) -> EpisodeBatch:
    support, query = (
        type(side)(*(tensor.expand(members, *tensor.shape) for tensor in side)) for side in episodes
    )
    return EpisodeBatch(support, query)


def _joined(parts: Sequence[dict[str, Tensor]], axis: int) -> dict[str, Tensor]:
    return {name: torch.cat([part[name].double() for part in parts], axis) for name in parts[0]}


def _adapt_cost(
    learner: Learner, meta: Meta, episode: EpisodeBatch, device: torch.device
) -> tuple[float, int]:
    support = tuple(tensor.to(device) for tensor in episode.support)
    single = learner.prepared(training=False, mapped=False)
    times = []
    with torch.no_grad():
        for _ in range(6):
            started = time.perf_counter()
            adapted = single.adapt(meta, (support[0], support[1]))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
            del adapted
        size = peak_bytes(lambda: single.adapt(meta, (support[0], support[1])))
    return statistics.median(times[1:]), size  # the first one warms up
