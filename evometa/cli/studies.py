"""The commands that run a study: search, resume, check."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from evometa.cli import options
from evometa.cli.console import out
from evometa.cli.options import quoted
from evometa.cli.runs import print_best

if TYPE_CHECKING:
    from evometa.execute import Executor
    from evometa.launch import Settings, Watch, Workers
    from evometa.observe import MakeObserver
    from evometa.store import Place
    from evometa.study_file import StudyFile


def search(
    file: options.StudyPath,
    run: options.NewRun = None,
    candidates: options.Candidates = None,
    searcher: options.SearcherName = None,
    rungs: options.Rungs = None,
    seeds: options.Seeds = None,
    look_ahead: options.LookAhead = False,
    constraint: options.Constraints = None,
    warm_start: options.WarmStart = None,
    hours: options.Hours = None,
    device_seconds: options.DeviceSeconds = None,
    patience: options.Patience = None,
    seed: options.Seed = 0,
    order: options.TellingOrder = "logical",
    window: options.Window = 16,
    pack: options.PackSize = 1,
    iterations: options.Iterations = None,
    observer: options.ObserverNames = None,
    data: options.DataFolder = None,
    download: options.Download = False,
    skip_broken: options.SkipBroken = False,
    device: options.Device = "auto",
    plan: options.Plan = "auto",
    executor: options.ExecutorName = "ray",
    address: options.Address = None,
    workers: options.Count = None,
    gpus: options.Gpus = None,
    time_limit: options.TimeLimit = None,
    worker_logs: options.WorkerLogs = False,
) -> None:
    """Search: propose, meta-train and score candidates; print the best beside the baselines."""
    from evometa import launch
    from evometa.budget import Budget
    from evometa.study_file import load_study

    study_file, observers = load_study(file), _observers(observer)
    settings = launch.Settings(
        candidates=candidates or study_file.study.candidates,
        seed=seed,
        searcher=searcher or launch.named(study_file.study.searcher),
        budget=Budget(hours, device_seconds, patience),
        rungs=rungs or 0,
        look_ahead=look_ahead,
        seeds=seeds or 0,
        constraints=tuple(constraint or ()),
        order=order,  # type: ignore[arg-type]
        window=window,
        pack=pack,
        device=device,
        data=launch.Data(_text(data), download, skip_broken),
    )
    run = run or Path("runs") / file.stem
    logs = _logs(run) if worker_logs else None
    where = launch.Workers(executor, address, workers, gpus, time_limit, logs)
    launch.refuse_existing(run, study_file)
    training = {} if iterations is None else {"iterations": iterations}
    study_file = launch.adjusted(study_file, settings, training)
    with _searching(run):
        _start(study_file, run, settings, where, plan, warm_start or (), observers)


def resume(
    run: options.RunPath,
    candidates: options.Total = None,
    hours: options.Hours = None,
    device_seconds: options.DeviceSeconds = None,
    patience: options.Patience = None,
    observer: options.ObserverNames = None,
    data: options.DataFolder = None,
    executor: options.ExecutorName = "ray",
    address: options.Address = None,
    workers: options.Count = None,
    gpus: options.Gpus = None,
    time_limit: options.TimeLimit = None,
    worker_logs: options.WorkerLogs = False,
) -> None:
    """Go on with a stopped or killed search, to the same table as without the break."""
    from evometa import launch
    from evometa.budget import Budget
    from evometa.store import read_search

    budget = Budget(hours, device_seconds, patience)
    observers = _observers(observer)
    kept, _ = read_search(run)
    logs = _logs(run) if worker_logs else None
    out.print(
        escape(f"This runs the study file that {run} keeps, {kept.get('file')}."),
        highlight=False,
        soft_wrap=True,
    )
    if candidates is not None and len(kept.get("levels", ())) + kept.get("seeds", 1) > 2:
        out.print(
            "With rungs or seeds, a larger total goes on from what is there; it does not end with "
            "the table of a search that had it from the beginning.",
            highlight=False,
        )
    with _searching(run):
        launch.resume(
            run,
            launch.Workers(executor, address, workers, gpus, time_limit, logs),
            _watch(kept["objectives"], kept["metrics"][0]),
            candidates=candidates,
            budget=None if budget == Budget() else budget,
            data=None if data is None else launch.Data(_text(data)),
            observers=observers,
        )


def check(
    file: options.StudyPath,
    samples: Annotated[int, typer.Option(help="Genomes to draw.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Draws the genomes.")] = 0,
    data: options.DataFolder = None,
    download: options.Download = False,
    skip_broken: options.SkipBroken = False,
) -> None:
    """Validate a study file: sizes, samples, gate pass rate, cost of a candidate. No training."""
    from evometa import launch
    from evometa.check import print_check
    from evometa.study_file import load_study
    from evometa.task.reading import unlogged

    with unlogged():  # what it says is printed
        study_file = launch.prepare(
            load_study(file), launch.Data(_text(data), download, skip_broken)
        )
    print_check(out, study_file, samples, seed)


def _start(
    file: StudyFile,
    run: Place,
    settings: Settings,
    where: Workers,
    plan: str,
    warm_start: Sequence[Place],
    observers: Sequence[MakeObserver],
) -> None:
    """Search from the beginning, after what can fail without a worker."""
    from evometa import launch
    from evometa.warm import read_earlier

    with out.status("Loading the data, and trying a few candidates without training"):
        file = launch.prepare(file, settings.data)
        admitted = launch.preflight(file, settings.seed, settings.device)
        plans = launch.choose_plans(file, admitted, plan, settings.device, where)
    settings = replace(settings, plans=plans)
    earlier = read_earlier(warm_start, file.study, launch.describe(file, settings))
    if earlier.seeds:
        out.print(
            f"Earlier runs: the best {len(earlier.seeds)} genomes come first, "
            f"{len(earlier.results)} results are learned from, {earlier.skipped} genomes no longer "
            "fit the space.",
            highlight=False,
        )
    study = file.study
    launch.start(
        file, run, settings, where, _watch(study.objectives, study.scored), earlier, observers
    )


@contextlib.contextmanager
def _searching(run: Place) -> Iterator[None]:
    """Print what was found; on Ctrl-C or SIGTERM how to go on instead, and exit with 130."""
    started = time.monotonic()
    try:
        yield
    except KeyboardInterrupt:
        said = "\nStopped before the search began."
        if (run / "study.json").exists():
            said = "\nStopped; every finished candidate is kept. Go on with:\n  evometa resume "
            said += quoted(run)
        out.print(escape(said), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    _finish(run, time.monotonic() - started)


def _observers(names: Sequence[str] | None) -> list[MakeObserver]:
    from evometa.observe import find_observer

    return [find_observer(name) for name in names or ()]


def _text(data: Path | None) -> str | None:
    return None if data is None else str(data)


def _logs(run: Place) -> str:
    if not isinstance(run, Path):
        raise typer.BadParameter("worker logs are files: the run must be a folder, not a URL")
    return str((run / "logs").resolve())


def _watch(objectives: Mapping[str, str], scored: str) -> Callable[[int, Executor], Watch]:
    from evometa.report import Progress

    return lambda total, executor: Progress(out, objectives, total, executor.counts, scored)


def _finish(run: Place, took: float) -> None:
    from evometa.report import print_failures
    from evometa.store import RunDirectory, read_table

    print_best([run], 10)
    print_failures(out, read_table(run), run)
    ended = RunDirectory.read_summary(run).get("ended", "")
    if ended:
        out.print(escape(f"\nEnded: {ended}."), highlight=False)
    minutes, seconds = divmod(round(took), 60)
    out.print(
        escape(
            f"\n{minutes}:{seconds:02d} minutes. See more: evometa top {quoted(run)} -n 20, "
            f"evometa show {quoted(run)} ID"
        ),
        highlight=False,
    )
