"""What a search is started with, and where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evometa.budget import Budget
from evometa.errors import ExecutorError, StudyError
from evometa.evaluate import parse_plan
from evometa.run import Order


@dataclass(frozen=True)
class Data:
    """Where the task's data is.

    Attributes:
        folder: what the task loads; None for tasks that make their own.
        download: fetch the published files if there is no folder.
        skip_broken: leave out what is broken, or too small, instead of stopping.
    """

    folder: str | None = None
    download: bool = False
    skip_broken: bool = False


@dataclass(frozen=True)
class Workers:
    """Where candidates are evaluated; never part of the study, so it may differ on resume.

    Attributes:
        executor: `"ray"`, or `"serial"` in this process.
        address: a Ray cluster; None starts a local one.
        count: how many; None takes all.
        gpus: of each worker on Ray, may be a fraction; None takes one where there are any.
        time_limit: seconds that a candidate may take on Ray, as `TIMEOUT`; its worker is killed at
            one and a half times that. None for ever.
        logs: folder for what candidates print and log on Ray, one file a worker, on the machine of
            the worker; None keeps nothing.
    """

    executor: str = "ray"
    address: str | None = None
    count: int | None = None
    gpus: float | None = None
    time_limit: float | None = None
    logs: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in ("ray", "serial"):
            raise ExecutorError(f"`executor` must be 'ray' or 'serial', got {self.executor!r}")


@dataclass(frozen=True)
class Settings:
    """What a search was started with; stored in study.json and taken from there on resume.

    Attributes:
        candidates: how many to train in all; those that are promoted count once.
        seed: decides everything random.
        searcher: a name of `evometa.search`; empty for the study's.
        budget: what else ends the search.
        rungs: how many fidelities there are, in meta-iterations; 0 for the study's own.
        look_ahead: whether candidates are looked at before any training.
        seeds: with how many seeds those that may be the best are trained; 0 for the study's own.
        constraints: on metrics, besides the study's.
        order: `"logical"` or `"arrival"`.
        window: how far proposals run ahead of results.
        pack: how many candidates are proposed and evaluated together.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...
        data: where the task's data is.
        plans: how the inner loops of `"dense"` and `"convolution"` networks are executed; those
            that are not named run by the default for the device.
    """

    candidates: int
    seed: int = 0
    searcher: str = ""
    budget: Budget = field(default_factory=Budget)
    rungs: int = 0
    look_ahead: bool = False
    seeds: int = 0
    constraints: Sequence[str] = ()
    order: Order = "logical"
    window: int = 16
    pack: int = 1
    device: str = "auto"
    data: Data = Data()
    plans: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in self.plans.values():
            parse_plan(text)
        for name, least in (("candidates", 1), ("window", 1), ("pack", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise StudyError(
                    f"`{name} >= {least}` must hold, but got ({name}={getattr(self, name)!r})"
                )
        if self.pack > self.window:
            raise StudyError(
                f"`pack <= window` must hold, but got (pack={self.pack}, window={self.window}); "
                "raise --window"
            )
        if self.order not in ("logical", "arrival"):
            raise StudyError(f"`order` must be 'logical' or 'arrival', got {self.order!r}")
