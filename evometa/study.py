"""The declaration that a user writes: what is searched, on which task, towards what."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evometa.errors import StudyError
from evometa.learner import Families, Family, with_own
from evometa.limits import Limit, parse_limit
from evometa.metrics import Measure, Metric, as_metrics
from evometa.records import Genome, Objectives
from evometa.space import Primitive, Space, trees
from evometa.task.protocol import Task

COSTS = ("params", "macs", "rule_size", "adapt_seconds", "adapt_bytes")
"""Metrics that every evaluation has besides those of its task.

The first three are known before any training.
"""

NORMS = ("inductive", "transductive", "per-step")
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Training:
    """How a candidate is meta-trained and validated.

    Attributes:
        iterations: meta-iterations (outer steps).
        tasks: episodes in one meta-batch.
        validation: meta-validation episodes, the same for all candidates of a study.
        norm: batch-norm protocol, stored with each score: `"inductive"`, new examples are
            normalised by the statistics of the support set, so that one query is predicted as well
            as twenty; `"transductive"`, by those of the queries that come together, as in the
            published MAML code, which fails when they come one by one (the metric
            `one_by_one_METRIC` says how much); or `"per-step"`, by running averages (MAML++).
        precision: `"float32"`; `"tf32"`, faster matrix products on CUDA; `"bfloat16"`, mixed.
        deterministic: use kernels that give the same bits every time on a device, where PyTorch has
            them; matters on CUDA, and costs speed.
        later: also score after each step up to this one, beyond those that the rule is trained
            with; gives the metric `later_METRIC`, the worst mean from the last trained step on; a
            score that is not finite there counts as the worst. 0 for no look beyond.
    """

    iterations: int = 1000
    tasks: int = 25
    validation: int = 200
    norm: str = "inductive"
    precision: str = "float32"
    deterministic: bool = False
    later: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "tasks", "validation"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise StudyError(f"`{name} >= 1` must hold, but got ({name}={value!r})")
        if not isinstance(self.later, int) or self.later < 0:
            raise StudyError(f"`later >= 0` must hold, but got (later={self.later!r})")
        for name, allowed in (("norm", NORMS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise StudyError(
                    f"`{name}` must be one of {', '.join(map(repr, allowed))}, but got "
                    f"({name}={getattr(self, name)!r})"
                )


@dataclass(frozen=True)
class Rung:
    """A cheaper evaluation than the full one; what is None is as in the full one.

    Attributes:
        iterations: meta-iterations. Outer schedules are those of the full length, so that a
            candidate which is promoted goes on as if it had never stopped; 0 for a look at the
            candidate before any training.
        share: the same as a share of the full length, above 0 and at most 1.
        tasks: episodes in one meta-batch.
        validation: meta-validation episodes.
        steps: most inner steps.
        task: a cheaper task: fewer shots, smaller images. Its metrics must be the same.
    """

    iterations: int | None = None
    share: float | None = None
    tasks: int | None = None
    validation: int | None = None
    steps: int | None = None
    task: Task | None = None

    def __post_init__(self) -> None:
        for name, least in (("iterations", 0), ("tasks", 1), ("validation", 1), ("steps", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise StudyError(f"`{name} >= {least}` must hold, but got ({name}={value!r})")
        if self.share is not None and (self.iterations is not None or not 0 < self.share <= 1):
            raise StudyError(
                "either `iterations` or `0 < share <= 1` must be given, but got "
                f"(iterations={self.iterations!r}, share={self.share!r})"
            )

    def length(self, full: int) -> int:
        """Return its meta-iterations, where the full evaluation has `full`."""
        if self.share is not None:
            return max(1, round(self.share * full))
        return full if self.iterations is None else self.iterations


def halving(rungs: int, factor: float = 3.0) -> tuple[Rung, ...]:
    """Return rungs of `1/factor`, `1/factor**2`, ... of the meta-iterations, the cheapest first.

    Args:
        rungs: how many there are with the full one, which is not returned.
        factor: how many times as long the next rung is.

    Raises:
        StudyError: if there is no such number of rungs.
    """
    if not isinstance(rungs, int) or rungs < 1 or not factor > 1:
        raise StudyError(
            f"`rungs >= 1` and `factor > 1` must hold, but got (rungs={rungs!r}, factor={factor!r})"
        )
    return tuple(Rung(share=factor**-k) for k in range(rungs - 1, 0, -1))


@dataclass(frozen=True)
class Level:
    """What is done with a candidate at a rung, whatever its seed.

    Attributes:
        iterations: meta-iterations that it has had afterwards.
        training: as declared; its `iterations` are those of the full length.
        task: what it is trained and scored on.
        steps: most inner steps; None for no limit.
    """

    iterations: int
    training: Training
    task: Task
    steps: int | None = None


@dataclass(frozen=True)
class Study:
    """What is searched, and how a candidate is scored.

    Attributes:
        space: what may be proposed. The rule of a genome is `genome["rule"]`; without one, every
            candidate adapts by the preset `maml`.
        build: makes an ordinary module from a genome.
        task: the few-shot tasks.
        objectives: metric name to `"min"` or `"max"`; the first is the primary one. Default: the
            task's first metric, in the direction that the task declares.
        baselines: known designs by name, evaluated first and shown beside the best.
        training: how a candidate is meta-trained and validated.
        candidates: how many candidates a search evaluates unless told otherwise.
        constraints: such as `"params <= 50_000"`. Candidates that break one on `params`, `macs` or
            `rule_size` are rejected before any training, the others rank behind all that break
            none.
        rungs: cheaper evaluations, the cheapest first; see `halving`. Of the candidates of a rung
            the best third goes on to the next.
        seeds: with how many seeds those that may be the best are trained in full.
        searcher: a name of `evometa.search`, or a function of space, objectives and seed that
            makes a strategy.
        families: ways of learning of the user's own, besides those of `evometa.learner`.
        measures: metrics of the candidate that the user measures, by name: a latency on their
            device, say. They may be objectives and constraints; those of the untrained candidate
            reject it before any training.

    Raises:
        StudyError: if an argument cannot work.
        GenomeError: if a baseline lies outside the space.
    """

    space: Space
    build: Callable[[Any], Any]
    task: Task
    objectives: Objectives = field(default_factory=dict)
    baselines: Mapping[str, Genome] = field(default_factory=dict)
    training: Training = Training()
    candidates: int = 100
    constraints: Sequence[str] = ()
    rungs: Sequence[Rung] = ()
    seeds: int = 1
    searcher: str | Callable[..., Any] = "hybrid"
    families: Sequence[Family] = ()
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.build):
            raise StudyError(f"`build` must be a function of a genome, got {self.build!r}")
        if not self.objectives:
            object.__setattr__(
                self, "objectives", {self.scored: self.metrics[self.scored].direction}
            )
        for name, direction in self.objectives.items():
            if name not in self.metrics:
                raise StudyError(
                    f"an objective must be one of {', '.join(self.metrics)}, got {name!r}"
                )
            if direction not in ("min", "max"):
                raise StudyError(
                    f"the direction of objective {name!r} must be 'min' or 'max', got {direction!r}"
                )
        for name, genome in self.baselines.items():
            if not name:
                raise StudyError(f"a baseline must have a name, but this one has none: {genome!r}")
            self.space.validate(genome)
        if not isinstance(self.seeds, int) or self.seeds < 1:
            raise StudyError(f"`seeds >= 1` must hold, but got (seeds={self.seeds!r})")
        _ = self.limits, self.levels  # raise where they cannot work
        _ = self.primitives, self.all_families  # raise where two of them clash

    @property
    def task_metrics(self) -> dict[str, Metric]:
        """The metrics of the task; the first is the one whose scores are kept."""
        return as_metrics(self.task.metrics, type(self.task).__name__)

    @property
    def scored(self) -> str:
        """The metric whose scores are kept, one an episode: the task's first."""
        return next(iter(self.task_metrics))

    @property
    def metrics(self) -> dict[str, Metric]:
        """All metrics that an `OK` evaluation has, by name."""
        found = self.task_metrics
        first = Metric(found[self.scored].direction)
        if self.training.later:
            found[f"later_{self.scored}"] = first
        if self.training.norm == "transductive":
            found[f"one_by_one_{self.scored}"] = first
        found |= dict.fromkeys(COSTS, Metric("min"))
        for name, measure in self.measures.items():
            if not isinstance(measure, Measure):
                raise StudyError(
                    f"the measure {name!r} must be a Measure(function, 'min') or 'max', got "
                    f"{measure!r}"
                )
            if name in found:
                raise StudyError(f"a measure must not be called like the metric {name!r}")
            found[name] = Metric(measure.direction)
        return found

    @property
    def all_families(self) -> Families:
        """All ways of learning by name, the user's own among them."""
        return with_own(self.families)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The constraints, parsed."""
        if isinstance(self.constraints, str):
            raise StudyError(
                f"`constraints` must be a sequence of texts, got one: {self.constraints!r}"
            )
        return tuple(parse_limit(text, tuple(self.metrics)) for text in self.constraints)

    @property
    def levels(self) -> tuple[Level, ...]:
        """What is done at each rung; the last is the full evaluation."""
        full = self.training
        levels = []
        for rung in self.rungs:
            task = rung.task or self.task
            if as_metrics(task.metrics, type(task).__name__) != self.task_metrics:
                raise StudyError(
                    f"the task of a rung must have the metrics {self.task.metrics}, but one has "
                    f"{task.metrics}"
                )
            training = replace(
                full,
                tasks=rung.tasks or full.tasks,
                validation=rung.validation or full.validation,
            )
            levels.append(Level(rung.length(full.iterations), training, task, rung.steps))
        levels.append(Level(full.iterations, full, self.task))
        lengths = [level.iterations for level in levels]
        if lengths != sorted(lengths):
            raise StudyError(
                f"the meta-iterations of rungs must not fall, the full evaluation being the last, "
                f"but got {', '.join(map(str, lengths))}"
            )
        return tuple(levels)

    @property
    def primitives(self) -> tuple[Primitive, ...]:
        """Primitives of one's own that the updates of rules may use."""
        fields = getattr(self.space, "fields", {})
        own = [p for t in trees(fields["rule"]) for p in t.primitives] if "rule" in fields else []
        found: dict[str, Primitive] = {}
        for primitive in own:
            if primitive.function is None:
                continue
            if found.setdefault(primitive.name, primitive) != primitive:
                raise StudyError(
                    f"primitives of rules must differ in name, got {primitive.name!r} twice"
                )
        return tuple(found.values())

    def with_training(self, **changes: Any) -> Study:
        """Return the study with some of its `Training` changed."""
        return replace(self, training=replace(self.training, **changes))


def __getattr__(name: str) -> Any:
    if name in ("StudyFile", "load_study"):  # they have moved; they need the names above
        return getattr(importlib.import_module("evometa.study_file"), name)
    raise AttributeError(f"module 'evometa.study' has no attribute {name!r}")
