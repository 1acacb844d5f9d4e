"""The command line: parses, calls, prints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from evometa import __version__
from evometa.errors import EvometaError

app = typer.Typer(
    help="Search network architectures together with the learning rules they adapt with.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)
LIVE_SECONDS = 5.0  # between two writings of a live report


def _place(text: str) -> Any:
    from evometa.store import place

    return place(text)


StudyPath = Annotated[Path, typer.Argument(help="A Python file that assigns `study`.")]
RunPath = Annotated[
    Any, typer.Argument(help="A run directory, or its URL.", metavar="RUN", parser=_place)
]
DataOption = Annotated[str | None, typer.Option("--data", help="Folder of the task's data.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the published data set.")]
SkipBroken = Annotated[bool, typer.Option(help="Leave out broken images instead of stopping.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; default: a local one.")]
Count = Annotated[int | None, typer.Option("--workers", help="Workers; default: all cores.", min=1)]
Gpus = Annotated[
    float | None, typer.Option("--gpus", help="GPUs of a worker, may be a fraction.", min=0)
]
TimeLimit = Annotated[
    float | None, typer.Option(help="Seconds that a candidate may take; default: no limit.")
]
ExecutorName = Annotated[str, typer.Option("--executor", help="ray, or serial (this process).")]


def main() -> None:
    """Run the command line; errors raised on purpose are printed without a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    # what Ray reads when it is imported: the death of a worker is told in the table, not in between
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died|Raylet is terminated")
    try:
        app()
    except EvometaError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


@app.command()
def search(
    file: StudyPath,
    run: Annotated[
        Any,
        typer.Option(
            help="Run directory, or a URL: s3://...; default runs/NAME.",
            metavar="RUN",
            parser=_place,
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("-n", "--candidates", help="How many to train.", min=1)
    ] = None,
    searcher: Annotated[
        str | None,
        typer.Option(help="hybrid, evolution, nsga2, tpe, random, ...; default: the study's."),
    ] = None,
    rungs: Annotated[
        int | None,
        typer.Option(help="Fidelities: each trains a third as long as the next.", min=1),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Train those that may be the best with so many seeds.", min=1)
    ] = None,
    look_ahead: Annotated[
        bool, typer.Option("--look-ahead", help="Screen candidates before any training.")
    ] = False,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Such as 'params <= 50_000'; or several."),
    ] = None,
    warm_start: Annotated[
        list[Path] | None, typer.Option(help="An earlier run to begin with; or several.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Stop after so many hours.")] = None,
    device_seconds: Annotated[
        float | None, typer.Option(help="Stop after so many seconds of evaluation.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop when so many results have not moved the front.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides everything random.", min=0)] = 0,
    order: Annotated[str, typer.Option(help="Tell results in logical or arrival order.")] = (
        "logical"
    ),
    window: Annotated[
        int, typer.Option(help="How far proposals run ahead; 2 to 4 times the workers.", min=1)
    ] = 16,
    pack: Annotated[
        int, typer.Option(help="Candidates proposed and evaluated together, in a pack.", min=1)
    ] = 1,
    iterations: Annotated[
        int | None, typer.Option(help="Meta-iterations a candidate; default: the study's.", min=1)
    ] = None,
    data: DataOption = None,
    download: Download = False,
    skip_broken: SkipBroken = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    plan: Annotated[
        str, typer.Option(help="auto, loop, vmap, vmap:TASKS, with +compile, +graph, ...")
    ] = "auto",
    executor: ExecutorName = "ray",
    address: Address = None,
    workers: Count = None,
    gpus: Gpus = None,
    time_limit: TimeLimit = None,
) -> None:
    """Search: propose, meta-train and score candidates; print the best beside the baselines."""
    from evometa import launch
    from evometa.budget import Budget
    from evometa.study import load_study
    from evometa.warm import read_earlier

    study_file = load_study(file)
    run = run or Path("runs") / file.stem
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
        data=launch.Data(data, download, skip_broken),
    )
    launch.refuse_existing(run, study_file)
    changes = {} if iterations is None else {"iterations": iterations}
    study_file = launch.adjusted(study_file, settings, changes)
    with out.status("Loading the data, and trying a few candidates without training"):
        study_file = launch.prepare(study_file, settings.data)
        admitted = launch.preflight(study_file, seed, settings.device)
        where = _workers(executor, address, workers, gpus, time_limit)
        plans = launch.choose_plans(study_file, admitted, plan, settings.device, where)
        settings = replace(settings, plans=plans)
    described = launch.describe(study_file, settings)
    earlier = read_earlier(warm_start or (), study_file.study, described)
    _print_earlier(earlier)
    started = time.monotonic()
    with _resumable(run):
        launch.start(
            study_file,
            run,
            settings,
            where,
            _watch(study_file.study.objectives),
            earlier,
        )
    _finish(run, started)


@app.command()
def resume(
    run: RunPath,
    candidates: Annotated[
        int | None, typer.Option("-n", "--candidates", help="A new total.", min=1)
    ] = None,
    data: DataOption = None,
    executor: ExecutorName = "ray",
    address: Address = None,
    workers: Count = None,
    gpus: Gpus = None,
    time_limit: TimeLimit = None,
) -> None:
    """Go on with a stopped or killed search, to the same table as without the break."""
    from evometa import launch
    from evometa.store import RunDirectory

    kept = RunDirectory.read(run)
    out.print(
        escape(f"This runs the study file that {run} keeps, {kept['file']}."), highlight=False
    )
    if candidates is not None and len(kept.get("levels", ())) > 1:
        out.print(
            "With rungs or seeds, a larger total goes on from what is there; it does not end with "
            "the table of a search that had it from the beginning.",
            highlight=False,
        )
    started = time.monotonic()
    with _resumable(run):
        launch.resume(
            run,
            _workers(executor, address, workers, gpus, time_limit),
            _watch(kept["objectives"]),
            candidates=candidates,
            data=None if data is None else launch.Data(data),
        )
    _finish(run, started)


@app.command()
def top(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 10,
    by: Annotated[str | None, typer.Option(help="Objective to rank by.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    operators: Annotated[
        bool, typer.Option("--operators", help="Print which mutations made better children.")
    ] = False,
) -> None:
    """Print the best candidates beside the baselines, with 95% intervals."""
    if operators:
        from evometa.report import print_operators
        from evometa.store import RunDirectory, read_table

        print_operators(out, read_table(run), RunDirectory.read(run)["objectives"])
        return
    _print_top(run, n, by, as_json=as_json)


@app.command()
def show(
    run: RunPath,
    candidate: Annotated[str, typer.Argument(metavar="ID")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the genome as JSON instead.")
    ] = False,
    python: Annotated[
        bool, typer.Option("--python", help="Print the update as a Python function instead.")
    ] = False,
) -> None:
    """Print one candidate: genome, update, network, scores, learning curve, ancestors."""
    from evometa.report import find, lineage, print_candidate
    from evometa.report.rules import print_python, print_rule
    from evometa.store import RunDirectory, read_table

    study, table = RunDirectory.read(run), read_table(run)
    genome = json.loads(find(table, candidate)["genome"])
    if as_json and python:
        raise typer.BadParameter("either --json or --python, not both")
    if as_json:
        print(json.dumps(genome, indent=1))  # noqa: T201 - for pipes
        return
    if python:
        print_python(out, genome)
        return
    print_candidate(out, table, candidate, study["objectives"])
    older = {row["candidate_id"]: row["genome"] for row in lineage(table, candidate)[1:]}
    print_rule(out, genome, older)


@app.command()
def report(
    run: RunPath,
    file: Annotated[
        Path | None, typer.Option("--out", help="The HTML file; default report.html in the run.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Write again every few seconds while the search runs.")
    ] = False,
) -> None:
    """Write what a run found as one HTML file, which opens from disk and fetches nothing."""
    from evometa.store import is_held

    file = file or run / "report.html"
    live = live and is_held(run)
    if live:
        out.print(f"Keeping {escape(str(file))} up to date; Ctrl-C ends this, not the search.")
    with contextlib.suppress(KeyboardInterrupt):  # the last page must not load itself again
        while live and is_held(run):
            started = time.monotonic()
            _write_report(run, file, live=True)
            time.sleep(max(LIVE_SECONDS, 3 * (time.monotonic() - started)))
    _write_report(run, file, live=False)
    out.print(f"The report of {escape(str(run))} is in {escape(str(file))}", highlight=False)


@app.command()
def convert(
    run: RunPath,
    to: Annotated[str, typer.Option("--to", help="optuna, tensorboard, csv or json.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where; must not exist.")],
) -> None:
    """Write a run's table for other tools: an Optuna journal, TensorBoard scalars, CSV, JSON."""
    from evometa.report.convert import write
    from evometa.store import RunDirectory, read_table

    write(to, file, run.resolve().name, RunDirectory.read(run), read_table(run))
    out.print(f"The table of {escape(str(run))} is in {escape(str(file))}", highlight=False)


@app.command()
def check(
    file: StudyPath,
    samples: Annotated[int, typer.Option(help="Genomes to draw.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Draws the genomes.")] = 0,
    data: DataOption = None,
    download: Download = False,
    skip_broken: SkipBroken = False,
) -> None:
    """Validate a study file: sizes, samples, gate pass rate, cost of a candidate. No training."""
    from evometa import launch
    from evometa.check import print_check
    from evometa.study import load_study

    study_file = launch.prepare(load_study(file), launch.Data(data, download, skip_broken))
    print_check(out, study_file, samples, seed)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search network architectures together with the learning rules they adapt with."""
    if version:
        out.print(__version__)
        raise typer.Exit


class _resumable:
    """On Ctrl-C, say how to go on, and exit with the customary 130."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            return
        said = "\nStopped before the search began."
        if (self._run / "study.json").exists():
            said = (
                "\nStopped; every finished candidate is kept. Go on with:\n"
                f"  evometa resume {self._run}"
            )
        out.print(escape(said), highlight=False)
        raise typer.Exit(130)


def _workers(
    executor: str,
    address: str | None,
    count: int | None,
    gpus: float | None,
    time_limit: float | None,
) -> Any:
    from evometa.launch import Workers

    return Workers(executor, address, count, gpus, time_limit)


def _watch(objectives: Mapping[str, str]) -> Any:
    from evometa.report import Progress

    return lambda total, workers: Progress(out, objectives, total, workers)


def _finish(run: Path, started: float) -> None:
    from evometa.report import print_failures
    from evometa.store import RunDirectory, read_table

    _print_top(run, 10, None, as_json=False)
    print_failures(out, read_table(run), run)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    ended = RunDirectory.read_summary(run).get("ended", "")
    if ended:
        out.print(f"\nEnded: {escape(ended)}.", highlight=False)
    out.print(
        f"\n{minutes}:{seconds:02d} minutes. See more: evometa top {escape(str(run))} -n 20, "
        f"evometa show {escape(str(run))} ID",
        highlight=False,
    )


def _print_earlier(earlier: Any) -> None:
    if earlier.seeds:
        out.print(
            f"Earlier runs: the best {len(earlier.seeds)} genomes come first, "
            f"{len(earlier.results)} results are learned from, {earlier.skipped} genomes no longer "
            "fit the space.",
            highlight=False,
        )


def _write_report(run: Path, file: Path, *, live: bool) -> None:
    from evometa.report.page import render
    from evometa.store import RunDirectory, read_confirmed, read_table, write_text

    study, table = RunDirectory.read(run), read_table(run)
    text = render(run.resolve().name, study, table, confirmed=read_confirmed(run), live=live)
    write_text(file, text)


def _print_top(run: Path, n: int, by: str | None, *, as_json: bool) -> None:
    from evometa.limits import parse_limit
    from evometa.report import full_rung, print_rungs, print_top, rank
    from evometa.store import RunDirectory, read_table

    study, table = RunDirectory.read(run), read_table(run)
    objectives, scored = study["objectives"], study["metrics"][0]
    limits = [parse_limit(text, study["metrics"]) for text in study.get("constraints", ())]
    ranked = rank(
        table, objectives, scored=scored, by=by, n=n, full=full_rung(study), limits=limits
    )
    if as_json:
        print(json.dumps([row.as_dict() for row in ranked], indent=1))  # noqa: T201 - for pipes
        return
    print_top(out, ranked, objectives, scored=scored)
    print_rungs(out, table, objectives, study.get("levels", ()))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Treat SIGTERM, which batch systems send before they kill, like Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
