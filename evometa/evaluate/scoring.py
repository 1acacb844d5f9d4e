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
from torch.utils import _pytree as pytree

from evometa.evaluate.memory import peak_bytes
from evometa.evaluate.pack import Pack
from evometa.evaluate.plan import Plan
from evometa.evaluate.program import halved, mapped, spans
from evometa.learner import Learner, Meta, predictor, unmapped
from evometa.metrics import Metric
from evometa.task.episodes import leading, over, part_of, to_device
from evometa.task.protocol import EpisodeBatch, Predict, Task

CHUNK = 50  # episodes at once, at most
WORST = 1e6  # stands for a loss that is infinite or NaN beyond the steps that were trained
ONE_BY_ONE = 4  # episodes whose queries are also predicted one at a time


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores of a candidate on common episodes.

    Attributes:
        line: metric name to one score an episode, after 0, 1, ... inner steps.
        trained: the place in `line` that the learner was trained for.
        adapt_seconds: median wall time to adapt to one support set.
        adapt_bytes: peak memory of tensors made while adapting to one support set.
    """

    line: list[dict[str, list[Any]]]
    trained: int
    adapt_seconds: float
    adapt_bytes: int

    @property
    def scores(self) -> dict[str, list[Any]]:
        """Metric name to one score an episode, after the steps that were trained."""
        return self.line[self.trained]

    @property
    def diverged(self) -> str:
        """What is not finite; empty if all is."""
        for name, values in self.scores.items():
            odd = sum(not _finite(value) for value in values)
            if odd:
                return f"{name} is not finite on {odd} of {len(values)} episodes"
        return ""

    def means(self, name: str, metric: Metric) -> list[float]:
        """Return a metric after 0, 1, ... inner steps; what is not finite counts as the worst.

        The worst is `WORST` for a metric to be minimised. For one to be maximised it is the lowest
        score of any episode and step, and at most 0.
        """
        rows = [row[name] for row in self.line]
        if metric.direction == "min":
            worst = WORST
        else:
            flat = [v for row in rows for score in row for v in _flat(score) if math.isfinite(v)]
            worst = min(0.0, *flat) if flat else 0.0
        return [metric.value([_tamed(score, worst, metric) for score in row]) for row in rows]


def _flat(score: Any) -> list[float]:
    return [score] if isinstance(score, float) else torch.tensor(score).reshape(-1).tolist()


def _finite(score: Any) -> bool:
    return all(map(math.isfinite, _flat(score)))


def _tamed(score: Any, worst: float, metric: Metric) -> Any:
    if not isinstance(score, float):
        return torch.tensor(score).nan_to_num(worst, WORST, -WORST).tolist()
    if not math.isfinite(score):
        return worst
    return min(score, WORST) if metric.direction == "min" else max(score, -WORST)


def score(
    learners: Sequence[Learner],
    metas: Sequence[Meta],
    task: Task,
    episodes: Sequence[EpisodeBatch],
    *,
    plan: Plan,
    device: torch.device,
    steps: int | None = None,
    singles: Sequence[Learner] = (),
) -> list[Outcome]:
    """Adapt to each episode, and score the queries.

    Args:
        learners: what adapts; equal in structure.
        metas: trained meta-parameters, one a learner.
        task: gives the scores.
        episodes: the common episodes of a study, one batch for each of their shapes, tensors of
            shape `(tasks, examples, ...)`.
        plan: how episodes are executed.
        device: where.
        steps: inner steps to look at; at least, and by default, as many as in meta-training.
        singles: the learners as they are outside of the pack; default those in it.

    Returns:
        One outcome a learner.

    Raises:
        torch.OutOfMemoryError: if a single episode does not fit.
    """
    pack = Pack.of(metas, [0.0] * len(metas), device)
    count = learners[0].traits.steps
    beyond = max(steps or 0, count) if count else None
    parts = [_all_scores(learners[0], pack, task, each, plan, device, beyond) for each in episodes]
    longest = max(map(len, parts))  # streams: who has seen all slices stays as they are
    parts = [part + part[-1:] * (longest - len(part)) for part in parts]
    rows = [_joined(line, 1) for line in zip(*parts, strict=True)]
    trained = count or len(rows) - 1
    outcomes = []
    for index, learner in enumerate(singles or learners):
        line = [{name: values[index].tolist() for name, values in row.items()} for row in rows]
        support = to_device(part_of(episodes[0].support, 0), device)
        seconds, size = _adapt_cost(learner, pack.meta(index), support, device)
        outcomes.append(Outcome(line, trained, seconds, size))
    return outcomes


def score_one_by_one(
    learner: Learner, meta: Meta, task: Task, episodes: EpisodeBatch, device: torch.device
) -> dict[str, list[Any]]:
    """Score a candidate whose queries come one at a time, on the first `ONE_BY_ONE` episodes."""
    single = unmapped(learner)
    found: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for row in range(min(ONE_BY_ONE, *leading(episodes, 1))):
            support, query = to_device(part_of(episodes, row), device)
            predict = predictor(single, single.adapt(meta, support))
            found.append(task.scores(_one_at_a_time(predict), query))
    return {name: [score[name].tolist() for score in found] for name in found[0]}


def _one_at_a_time(predict: Predict) -> Predict:
    def each(inputs: Any) -> Any:
        count = leading(inputs, 1)[0]
        parts = [predict(part_of(inputs, slice(i, i + 1))) for i in range(count)]
        return pytree.tree_map(lambda *rows: torch.cat(rows), *parts)

    return each


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

    alone = unmapped(learner)

    def episode(
        flat: Tensor, carried: Any, numbers: Any, support: Any, query: Any, *, single: bool
    ) -> list[dict[str, Tensor]]:
        meta = {**pack.layout.unflatten(flat), **carried, "stage": numbers}
        scoring = alone if single else learner
        return [
            task.scores(predictor(scoring, adapted), query)
            for adapted in scoring.trajectory(meta, support, steps)
        ]

    (tasks,), members = leading(episodes, 1), len(pack)
    while True:
        try:
            rows = []
            for start, stop in spans(members, plan.candidates):
                part = pack.keep(range(start, stop))
                columns = []
                for first, last in spans(tasks, min(plan.tasks or CHUNK, CHUNK)):
                    chunk = to_device(part_of(episodes, slice(first, last)), device)
                    chunk = over(lambda t: t.expand(len(part), *t.shape), chunk)  # noqa: B023
                    with torch.no_grad():
                        columns.append(mapped(episode, part.flat, part.carried, {}, chunk))
                rows.append([_joined(line, 1) for line in zip(*columns, strict=True)])
            return [_joined(line, 0) for line in zip(*rows, strict=True)]
        except torch.OutOfMemoryError:
            smaller = halved(plan, members, min(tasks, CHUNK))
            if smaller is None:
                raise
            plan = smaller


def _joined(parts: Sequence[dict[str, Tensor]], axis: int) -> dict[str, Tensor]:
    return {name: torch.cat([part[name].double() for part in parts], axis) for name in parts[0]}


def _adapt_cost(
    learner: Learner, meta: Meta, support: Any, device: torch.device
) -> tuple[float, int]:
    single = unmapped(learner)
    times = []
    with torch.no_grad():
        for _ in range(6):
            started = time.perf_counter()
            adapted = single.adapt(meta, support)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
            del adapted
        size = peak_bytes(lambda: single.adapt(meta, support))
    return statistics.median(times[1:]), size  # the first one warms up
