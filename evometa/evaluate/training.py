"""Meta-train a learner, and score it on episodes of unseen classes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from evometa.learner import GradientLearner, Meta
from evometa.study import Training
from evometa.task.protocol import Batch, EpisodeBatch, Task

Plan: TypeAlias = Literal["loop", "vmap"]
LOOP: Plan = "loop"
VMAP: Plan = "vmap"

CURVE_POINTS = 20
VALIDATION_CHUNK = 50  # episodes adapted at once when scoring


class Diverged(Exception):
    """A loss or a parameter became NaN or infinite; the message says when."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores of a learner on common episodes.

    Attributes:
        scores: metric name to one value an episode, in episode order.
        adapt_seconds: median wall time to adapt to one support set.
    """

    scores: dict[str, list[float]]
    adapt_seconds: float


@contextmanager
def forked_random(seed: int) -> Iterator[None]:
    """Seed torch's global generator within the block, and restore it after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def leaves(meta: Meta) -> Meta:
    """Return meta-parameters as leaves of a new graph; buffers are shared."""
    trained = {
        part: {name: value.detach().clone().requires_grad_() for name, value in meta[part].items()}
        for part in ("params", "learned")
    }
    return {**trained, "buffers": meta["buffers"]}


def meta_gradient(
    learner: GradientLearner, meta: Meta, episodes: EpisodeBatch, plan: Plan
) -> float:
    """Add the gradient of the mean query loss over the meta-batch to the leaves' `.grad`.

    Args:
        learner: what adapts.
        meta: leaves, as `leaves` makes them.
        episodes: `tasks` episodes.
        plan: `"vmap"` maps over the tasks; `"loop"` takes one after the other, in the memory of
            one.

    Returns:
        The mean query loss.
    """
    tasks = len(episodes.support.inputs)
    if plan == VMAP:
        per_task, _ = vmap(learner.meta_loss, in_dims=(None, 0, 0), randomness="different")(
            meta, episodes.support, episodes.query
        )
        loss = per_task.mean()
        torch.autograd.backward(loss)
        return float(loss.detach())
    total = 0.0
    for index in range(tasks):
        loss, _ = learner.meta_loss(meta, *_episode(episodes, index))
        torch.autograd.backward(loss / tasks)
        total += float(loss.detach())
    return total / tasks


def meta_train(
    learner: GradientLearner,
    task: Task,
    training: Training,
    *,
    seed: int,
    plan: Plan,
    device: torch.device,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Meta, list[tuple[int, float]]]:
    """Train the meta-parameters by Adam on the query loss after adaptation.

    Args:
        learner: what adapts; gives the initial meta-parameters.
        task: where episodes come from; only `meta-train` is drawn.
        training: iterations, meta-batch and rate.
        seed: seeds the episodes.
        plan: how a meta-batch is executed.
        device: where.
        progress: called after each meta-iteration with its number from 1 and its loss.

    Returns:
        The trained meta-parameters, and about 20 points `(iteration, mean loss since the last)`.

    Raises:
        Diverged: as soon as a loss is not finite, or a parameter is not at the end.
    """
    meta = leaves(pytree.tree_map(lambda value: value.to(device), learner.init()))
    trained = [*meta["params"].values(), *meta["learned"].values()]
    optimiser = torch.optim.Adam(trained, lr=training.rate)
    generator = torch.Generator().manual_seed(seed)
    every = max(1, training.iterations // CURVE_POINTS)
    curve: list[tuple[int, float]] = []
    recent: list[float] = []
    for iteration in range(1, training.iterations + 1):
        episodes = task.episodes("meta-train", training.tasks, generator)
        optimiser.zero_grad()
        loss = meta_gradient(learner, meta, to_device(episodes, device), plan)
        if not math.isfinite(loss):
            raise Diverged(f"the meta-training loss became {loss} at meta-iteration {iteration}")
        optimiser.step()
        recent.append(loss)
        if iteration % every == 0 or iteration == training.iterations:
            curve.append((iteration, statistics.fmean(recent)))
            recent = []
        if progress is not None:
            progress(iteration, loss)
    if not all(bool(value.isfinite().all()) for value in trained):
        raise Diverged(f"a parameter is not finite after {training.iterations} meta-iterations")
    return pytree.tree_map(torch.detach, meta), curve


def validate(
    learner: GradientLearner,
    meta: Meta,
    episodes: EpisodeBatch,
    *,
    metrics: tuple[str, ...],
    plan: Plan,
    device: torch.device,
) -> Outcome:
    """Adapt to each episode, and score the queries.

    Args:
        learner: what adapts, as in `meta_train`.
        meta: trained meta-parameters.
        episodes: the common episodes of a study.
        metrics: names of the scores to keep.
        plan: how episodes are executed.
        device: where.

    Raises:
        Diverged: if a score is not finite.
    """
    learner = learner.evaluating()
    tasks = len(episodes.support.inputs)
    scores: dict[str, list[float]] = {name: [] for name in metrics}
    with torch.no_grad():
        for start in range(0, tasks, VALIDATION_CHUNK):
            chunk = to_device(_episodes(episodes, start, start + VALIDATION_CHUNK), device)
            found = _chunk_scores(learner, meta, chunk, plan)
            for name in metrics:
                scores[name].extend(found[name].double().tolist())
        seconds = _adapt_seconds(learner, meta, to_device(_episodes(episodes, 0, 1), device))
    for name, values in scores.items():
        if not all(map(math.isfinite, values)):
            bad = sum(not math.isfinite(value) for value in values)
            raise Diverged(f"{name} is not finite on {bad} of {tasks} meta-validation episodes")
    return Outcome(scores, seconds)


def to_device(episodes: EpisodeBatch, device: torch.device) -> EpisodeBatch:
    """Move episodes to a device."""
    return EpisodeBatch(*(Batch(*(tensor.to(device) for tensor in side)) for side in episodes))


def _chunk_scores(
    learner: GradientLearner, meta: Meta, episodes: EpisodeBatch, plan: Plan
) -> dict[str, Tensor]:
    if plan == VMAP:
        _, scores = vmap(learner.meta_loss, in_dims=(None, 0, 0), randomness="different")(
            meta, episodes.support, episodes.query
        )
        return dict(scores)
    rows = [
        learner.meta_loss(meta, *_episode(episodes, index))[1]
        for index in range(len(episodes.support.inputs))
    ]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _adapt_seconds(learner: GradientLearner, meta: Meta, episodes: EpisodeBatch) -> float:
    support, _ = _episode(episodes, 0)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        adapted = learner.adapt(meta, support)
        if support[0].is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        del adapted
    return statistics.median(times[1:])  # the first one warms up


def _episode(
    episodes: EpisodeBatch, index: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    support, query = episodes
    return (
        (support.inputs[index], support.targets[index]),
        (query.inputs[index], query.targets[index]),
    )


def _episodes(episodes: EpisodeBatch, start: int, stop: int) -> EpisodeBatch:
    return EpisodeBatch(*(Batch(*(tensor[start:stop] for tensor in side)) for side in episodes))
