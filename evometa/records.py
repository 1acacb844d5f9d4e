"""The records that every room passes along: what to evaluate, what came out, and who works."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Genome: TypeAlias = Any
"""Plain data: nested dict, list, str, int, float, bool or None. One point of a space."""

Key: TypeAlias = tuple[int, int, int]
"""Number, rung and repeat of a candidate: what names an evaluation."""

BASELINE, EARLIER = "baseline", "earlier"
"""Operators of known designs: those that a study names, and those of earlier runs."""


class Status(StrEnum):
    """How an evaluation ended. Only `OK` carries metrics that may be ranked."""

    OK = "OK"
    INVALID = "INVALID"  # rejected by the gate before any training
    DIVERGED = "DIVERGED"  # a loss or a parameter became NaN or infinite
    OOM = "OOM"  # out of memory although alone on its device
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"  # the user's code raised; `error` holds the traceback
    LOST = "LOST"  # the infrastructure failed repeatedly


@dataclass(frozen=True, slots=True)
class Candidate:
    """A genome with an identity, a seed and its parents.

    Attributes:
        number: place in the logical order of the study, from 0.
        genome: plain data, one point of the study's space.
        seed: seeds everything random in the candidate's evaluation.
        rung: fidelity level, from 0.
        repeat: 0 for the candidate's own seed, 1, 2, ... for further ones.
        parents: ids of the candidates it was made from.
        operator: what made it: `BASELINE`, `EARLIER`, `"random"`, `"mutate"`, `"crossover"`, ...
        searcher: name of the searcher that proposed it.
        name: a baseline's, or that of a design from an earlier run; empty for all others.
    """

    number: int
    genome: Genome
    seed: int
    rung: int = 0
    repeat: int = 0
    parents: tuple[str, ...] = ()
    operator: str = ""
    searcher: str = ""
    name: str = ""

    @property
    def id(self) -> str:
        """Short, sortable name, unique within a run: `c000042`."""
        return f"c{self.number:06d}"

    @property
    def key(self) -> Key:
        """What names its evaluation."""
        return self.number, self.rung, self.repeat

    @property
    def is_new(self) -> bool:
        """Whether this is its first evaluation: at the lowest rung, with its own seed."""
        return not self.rung and not self.repeat


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of a candidate at a rung, with one seed.

    Attributes:
        candidate: what was evaluated.
        status: how it ended.
        metrics: those of the task over the meta-validation episodes (`query_loss`, `accuracy`,
            ...), costs (`params`, `macs`, `adapt_seconds`, ...) and what the user measures. Empty
            unless known; finite where present.
        violation: by how much constraints are broken, see `evometa.limits`; 0 if none is.
        scores: the task's first metric for each meta-validation episode, in episode order.
        steps: that metric after 0, 1, ... inner steps.
        interval: half-width of its 95 % interval over the episodes.
        curve: `(meta_iteration, meta_train_loss)` along the training.
        error: what went wrong, empty when `OK`.
        signature: hash of the program structure; equal signatures can share one pack.
        network: the network's layers, as PyTorch prints them.
        norm: batch-norm protocol of the scores: `inductive`, `transductive` or `per-step`.
        plan: how the inner loops were executed: `loop`, `vmap`, ...
        note: what the gate changed so that the candidate could work, such as the order of
            derivative; empty if nothing.
        seconds: wall time of the evaluation.
        peak_memory_bytes: peak memory of the device (CUDA) or of the process (CPU).
        device: name of the device.
        node: host that ran it.
        started_at: seconds since the epoch.
        copied_from: id of the equal candidate whose result was reused, or empty.
        saved_seconds: what the equal candidate's evaluation took, if its result was reused.
        further: scores on further splits, by their names; searches score on one alone.
    """

    candidate: Candidate
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    steps: tuple[float, ...] = ()
    interval: float = 0.0
    error: str = ""
    signature: str = ""
    network: str = ""
    norm: str = ""
    plan: str = ""
    note: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    device: str = ""
    node: str = ""
    started_at: float = 0.0
    copied_from: str = ""
    saved_seconds: float = 0.0
    further: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    violation: float = 0.0


@dataclass(frozen=True)
class Counts:
    """The state of the workers.

    Attributes:
        alive: workers that have started.
        busy: those that run a pack.
        starting: those asked for and not yet there.
        lost: how many are gone, for whatever reason but idleness.
        failures: the same by class.
        busy_seconds: sum over workers of the time in which they ran packs that came back.
        utilisation: share of the workers' time in which they ran packs.
    """

    alive: int
    busy: int
    starting: int = 0
    lost: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    busy_seconds: float = 0.0
    utilisation: float = 0.0


def canonical_json(value: Genome) -> str:
    """Return the one JSON text of plain data: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: if `value` holds NaN or an infinity.
        TypeError: if `value` is not plain data.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def genome_hash(genome: Genome) -> str:
    """Return the sha256 of a genome's canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(genome).encode()).hexdigest()


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all parts and on nothing else.

    Used instead of `hash`, which changes with `PYTHONHASHSEED`.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def repeat_seed(seed: int, repeat: int) -> int:
    """Return what seeds a repeat, from a candidate's own seed."""
    return derive_seed(seed, "again", repeat) if repeat else seed


Objectives: TypeAlias = Mapping[str, str]
"""Metric name to direction, `"min"` or `"max"`; the first is the primary one."""


def losses(evaluation: Evaluation, objectives: Objectives) -> tuple[float, ...]:
    """Return the objective values, all to be minimised. Only for `OK` evaluations."""
    return tuple(
        evaluation.metrics[name] * (1.0 if direction == "min" else -1.0)
        for name, direction in objectives.items()
    )


def rank_key(evaluation: Evaluation, objectives: Objectives) -> tuple[float, ...]:
    """Return `(violation, *losses)`, by which evaluations are compared. Only for `OK` ones."""
    return evaluation.violation, *losses(evaluation, objectives)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return whether a `rank_key` dominates another, as constraints demand (Deb, 2000).

    Who breaks constraints less is better; of those that break none, who is nowhere worse and
    somewhere better.
    """
    if one[0] or other[0]:
        return one[0] < other[0]
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def mean_interval(scores: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half-width of its 95% normal interval (0 for fewer than two)."""
    n = len(scores)
    if n == 0:
        return float("nan"), 0.0
    mean = sum(scores) / n
    if n == 1:
        return mean, 0.0
    variance = sum((score - mean) * (score - mean) for score in scores) / (n - 1)
    return mean, 1.96 * (variance / n) ** 0.5
