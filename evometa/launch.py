"""Put a search together from concrete parts, start it or go on with it.

The only place that knows both which searcher and which executor; the command line calls it, and so
may a notebook.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evometa.budget import Budget, Meter
from evometa.errors import ExecutorError, StoreError, StudyError
from evometa.evaluate import (
    Admission,
    BeyondLimits,
    Evaluator,
    Rejected,
    admit,
    calibrate,
    identify,
    parse_plan,
)
from evometa.evaluate.evaluator import choose_device
from evometa.execute import Executor, Limits, Serial
from evometa.execute.ray_pool import RayPool
from evometa.records import derive_seed
from evometa.report import summary_of
from evometa.run import DONE, Observer, Order, Schedule, Search
from evometa.search import Level, Searcher, Wishes, make_searcher
from evometa.space import gene_value
from evometa.store import (
    Place,
    RunDirectory,
    Writer,
    evaluations,
    make_schema,
    read_table,
    repair,
    versions,
)
from evometa.study import Level as StudyLevel
from evometa.study import Rung, StudyFile, halving, load_study
from evometa.warm import Earlier

PREFLIGHT_SAMPLES = 8
LOOK_AHEAD_EPISODES = 20


class Watch(Observer, Protocol):
    """An observer that is entered while the search runs."""

    def __enter__(self) -> Watch:
        """Begin to show."""
        ...

    def __exit__(self, *error: object) -> None:
        """Stop showing."""
        ...


@dataclass(frozen=True)
class Data:
    """Where the task's data is.

    Attributes:
        folder: what the task loads; None for tasks that make their own.
        download: fetch the published files if there is no folder.
        skip_broken: leave out broken images instead of stopping.
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
    """

    executor: str = "ray"
    address: str | None = None
    count: int | None = None
    gpus: float | None = None
    time_limit: float | None = None

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


def prepare(file: StudyFile, data: Data) -> StudyFile:
    """Return the study with its task's data loaded.

    Raises:
        TaskError: if the data is missing or broken.
    """
    folder = Path(data.folder) if data.folder else None
    study = file.study
    how = {"download": data.download, "skip_broken": data.skip_broken}
    rungs = [
        replace(rung, task=rung.task.load(folder, **how)) if rung.task else rung
        for rung in study.rungs
    ]
    return replace(file, study=replace(study, task=study.task.load(folder, **how), rungs=rungs))


def adjusted(file: StudyFile, settings: Settings, training: Mapping[str, Any]) -> StudyFile:
    """Return the file with its study changed as the settings ask for.

    Args:
        file: the study as declared.
        settings: rungs, seeds and constraints.
        training: fields of `Training` to change.

    Raises:
        StudyError: if the study does not allow it.
    """
    study = file.study.with_training(**training) if training else file.study
    rungs = tuple(study.rungs)
    if settings.rungs:
        rungs = halving(settings.rungs)
    if settings.look_ahead and not (rungs and rungs[0].iterations == 0):
        rungs = (Rung(iterations=0, validation=LOOK_AHEAD_EPISODES), *rungs)
    study = replace(
        study,
        rungs=rungs,
        seeds=settings.seeds or study.seeds,
        constraints=(*study.constraints, *settings.constraints),
    )
    return replace(file, study=study)


def refuse_existing(run: Place, file: StudyFile) -> None:
    """Refuse a run directory that exists, and say whether it can be resumed.

    Raises:
        StoreError: if `run` holds a search.
    """
    if not (run / "study.json").exists():
        return  # a folder that is no run is refused when the run's is made
    kept = RunDirectory.read(run)
    if kept["file_sha256"] == file.sha256:
        raise StoreError(
            f"{run} holds a search of this study; go on with it: evometa resume {run}, "
            "or start another with --run FOLDER"
        )
    raise StoreError(
        f"{run} holds a search of another study: {kept['file']} (sha256 "
        f"{kept['file_sha256'][:12]}), not {file.path} (sha256 {file.sha256[:12]}); "
        "start this one with --run FOLDER"
    )


def preflight(
    file: StudyFile, seed: int, device_name: str = "auto", samples: int = PREFLIGHT_SAMPLES
) -> list[Admission]:
    """Pass the baselines and a few samples through the gate, before any worker is started.

    Returns:
        Those that passed, the baselines first.

    Raises:
        StudyError: if a baseline, or every sample, is rejected: the file is at fault then.
    """
    device = choose_device(device_name)
    study = file.study
    admitted = []
    for name, genome in study.baselines.items():
        try:
            admitted.append(admit(study, genome, seed, device))
        except BeyondLimits:  # it is recorded as INVALID
            continue
        except Rejected as reason:
            raise StudyError(f"{file.path}: baseline {name!r} cannot work: {reason}") from reason
    rng = np.random.default_rng(derive_seed(seed, "preflight"))
    reasons = []
    for _ in range(samples):
        genome = study.space.sample(rng)
        try:
            admitted.append(admit(study, genome, seed, device))
        except Rejected as reason:
            reasons.append(f"{reason} (genome {json.dumps(genome)})")
    if len(reasons) == samples:
        raise StudyError(
            f"{file.path}: none of {samples} genomes drawn from the space can work; the first: "
            f"{reasons[0]}"
        )
    return admitted


def choose_plans(
    file: StudyFile, admitted: Sequence[Admission], wanted: str, device_name: str, workers: Workers
) -> dict[str, str]:
    """Return how the inner loops of each kind of network are to be executed.

    Args:
        file: the study, its task loaded.
        admitted: candidates to try plans on.
        wanted: a plan for all, or `"auto"` for the fastest by a short calibration. On a remote
            cluster, whose devices are not at hand here, `"auto"` is the default of each device.
        device_name: where candidates are trained.
        workers: where that is.
    """
    if wanted != "auto":
        return dict.fromkeys(("dense", "convolution"), str(parse_plan(wanted)))
    if workers.address is not None:
        return {}
    plans = calibrate(file.study, admitted, choose_device(device_name))
    return {kind: str(plan) for kind, plan in plans.items()}


def describe(file: StudyFile, settings: Settings) -> dict[str, Any]:
    """Return the study as plain data, as study.json keeps it."""
    study = file.study
    return {
        "schema": 2,
        "file": str(file.path.resolve()),
        "file_sha256": file.sha256,
        "space": study.space.describe(),
        "task": study.task.describe(),
        "objectives": dict(study.objectives),
        "metrics": list(study.metrics),
        "baselines": dict(study.baselines),
        "training": asdict(study.training),
        "constraints": [str(limit) for limit in study.limits],
        "levels": [_described(level) for level in study.levels],
        "settings": asdict(settings),
        "versions": versions(),
    }


def named(searcher: str | Callable[..., Any]) -> str:
    """Return a searcher's name; empty for one of the study's own."""
    return searcher if isinstance(searcher, str) else ""


def _described(level: StudyLevel) -> dict[str, Any]:
    return {
        "iterations": level.iterations,
        "tasks": level.training.tasks,
        "validation": level.training.validation,
        "steps": level.steps,
        "task": level.task.describe(),
        "seed": level.seed,
    }


def start(
    file: StudyFile,
    run: Place,
    settings: Settings,
    workers: Workers,
    watch: Callable[[int, int], Watch],
    earlier: Earlier | None = None,
) -> pa.Table:
    """Search from the beginning; return the table.

    Args:
        file: the study, its task loaded by `prepare`.
        run: the run directory to create.
        settings: what the search is started with.
        workers: where candidates are evaluated.
        watch: makes the observer from the number of candidates and of workers.
        earlier: what earlier runs have found; default nothing.

    Raises:
        StoreError: if the run directory exists.
    """
    earlier = earlier or Earlier()
    searcher = _searcher(file, settings, earlier)
    with ExitStack() as stack:  # what may fail comes before the folder is made
        executor = _executor(file, settings, workers, run)
        stack.callback(executor.close)
        description = {**describe(file, settings), "earlier": asdict(earlier)}
        directory = stack.enter_context(RunDirectory.create(run, description, file.source))
        return _search(file, directory, settings, searcher, executor, watch)


def resume(
    run: Place,
    workers: Workers,
    watch: Callable[[int, int], Watch],
    *,
    candidates: int | None = None,
    data: Data | None = None,
) -> pa.Table:
    """Go on with a search that was stopped; return the table.

    Args:
        run: an existing run directory. Its copy of the study file is run.
        workers: where candidates are evaluated; may differ from before.
        watch: makes the observer from the number of candidates and of workers.
        candidates: a new total; default the one it was started with.
        data: where the data is now; default where it was.

    Raises:
        StoreError: if there is no run, or another driver holds it.
        StudyError: if the study or its data is not what it was.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(RunDirectory.open(run))
        settings, file = stored_study(directory, data)
        if candidates is not None:
            settings = replace(settings, candidates=candidates)
        check_same(directory.study, describe(file, settings))
        repair(run)
        earlier = Earlier(**directory.study.get("earlier", {}))
        searcher = _searcher(file, settings, earlier)
        executor = _executor(file, settings, workers, run)
        stack.callback(executor.close)
        return _search(file, directory, settings, searcher, executor, watch)


def stored_study(directory: RunDirectory, data: Data | None = None) -> tuple[Settings, StudyFile]:
    """Load the study that a run directory keeps, with its data."""
    kept = dict(directory.study["settings"])
    kept["data"] = data or Data(**kept["data"])
    kept["budget"] = Budget(**kept.get("budget", {}))
    settings = Settings(**kept)
    original = Path(directory.study["file"])
    beside = original.parent if original.parent.is_dir() else None
    file = load_study(directory.study_file, beside=beside)
    file = adjusted(file, settings, directory.study["training"])
    return settings, prepare(file, settings.data)


def check_same(kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `StudyError` naming what differs between two studies as plain data."""
    wanted = ("file_sha256", "space", "task", "objectives", "baselines", "training", "levels")
    now = json.loads(json.dumps(now))
    parts = [part for part in wanted if part in kept]  # older runs have fewer
    different = [
        f"{part}: {kept[part]} -> {now[part]}" for part in parts if kept[part] != now[part]
    ]
    if different:
        raise StudyError(
            "a run goes on only with the study it was started with, but these differ: "
            + "; ".join(different)
            + ". Start a new run with another --run folder"
        )


def _search(
    file: StudyFile,
    directory: RunDirectory,
    settings: Settings,
    searcher: Searcher,
    executor: Executor,
    watch: Callable[[int, int], Watch],
) -> pa.Table:
    study = file.study
    schedule = Schedule(settings.window, settings.order, settings.pack)
    meter = Meter(settings.budget, study.objectives, len(study.rungs), study.limits)
    stored = list(evaluations(read_table(directory.path)))
    with (
        Writer(directory, schema_of(file), gene_value) as writer,
        watch(settings.candidates, executor.workers) as observer,
    ):
        search = Search(searcher, executor, writer, observer, meter, schedule, identify(file.study))
        ended = search.run(stored)
    table = read_table(directory.path)
    begun = pc.count_distinct(table["number"]).as_py()
    if ended == DONE:
        ended = "" if begun >= settings.candidates else _used_up(begun)
    directory.end(summary_of(table, study.objectives, ended))
    return table


def _used_up(begun: int) -> str:
    return f"the space holds no genome that has not been tried, after {begun:,} candidates"


def _searcher(file: StudyFile, settings: Settings, earlier: Earlier) -> Searcher:
    study = file.study
    wishes = Wishes(
        settings.candidates,
        {**study.baselines, **earlier.seeds},
        [Level(look_ahead=not level.iterations, race=level.seed > 0) for level in study.levels],
        study.limits,
        earlier.evaluations(len(study.rungs)),
        scored=study.task.metrics[0] == next(iter(study.objectives)),
    )
    name = settings.searcher or study.searcher
    return make_searcher(name, study.space, study.objectives, settings.seed, wishes)


def schema_of(file: StudyFile) -> pa.Schema:
    """Return the columns of a study's table."""
    genes = file.study.space.genes()
    return make_schema({path: leaf.type for path, leaf in genes.items()}, file.study.metrics)


def _executor(file: StudyFile, settings: Settings, workers: Workers, run: Place) -> Executor:
    # on an object store, promoted candidates are trained from the start
    local = isinstance(run, Path) and file.study.rungs
    weights = str(Path(str(run), "weights").resolve()) if local else None
    evaluate = Evaluator(file.study, settings.seed, settings.device, settings.plans, weights)
    if workers.executor == "serial":
        return Serial(evaluate)
    limit = workers.time_limit
    return RayPool(
        evaluate,
        address=workers.address,
        workers=workers.count,
        modules=file.modules,
        gpus=workers.gpus,
        limits=Limits() if limit is None else Limits(soft=limit, hard=1.5 * limit),
    )
