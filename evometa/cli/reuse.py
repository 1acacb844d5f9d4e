"""The commands that train without a search: confirm, compare, rerun, export."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from evometa.cli import options
from evometa.cli.console import err, out
from evometa.cli.options import quoted
from evometa.cli.runs import write_report

if TYPE_CHECKING:
    import pyarrow as pa

    from evometa.reuse.stored import StoredRun
    from evometa.reuse.trainings import MakeWatch
    from evometa.store import Place

CandidateId = Annotated[str, typer.Argument(metavar="ID", help="Of a candidate: c000042.")]


def confirm(
    run: options.RunPath,
    top: Annotated[int, typer.Option(help="How many of the best.", min=1)] = 5,
    seeds: options.NewSeeds = 3,
    episodes: options.TestEpisodes = 600,
    iterations: Annotated[
        int | None, typer.Option(help="Meta-iterations; default: the search's.", min=1)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A candidate to take instead of the best; or several."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Forget an earlier confirmation.")] = False,
    data: options.DataFolder = None,
    executor: options.ExecutorName = "ray",
    address: options.Address = None,
    workers: options.Count = None,
    gpus: options.Gpus = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the best anew with other seeds, and test them on meta-test beside the baselines."""
    from evometa.launch import Workers
    from evometa.reuse.confirm import Confirmation
    from evometa.reuse.confirm import confirm as run_again

    wanted = Confirmation(top, seeds, episodes, iterations, tuple(only or ()), again)
    console = err if as_json else out
    with _training(console, again=again):
        stored = _read(run, data, console)
        where, watch = Workers(executor, address, workers, gpus), _watch(stored, console)
        table = run_again(stored, wanted, where, watch)
    _show(stored, table, as_json=as_json)


def compare(
    file: options.StudyPath,
    run: Annotated[
        Any,
        typer.Option(
            "--run",
            help="Run directory, or a URL: s3://...; default runs/NAME-compared.",
            metavar="RUN",
            parser=options.place_of,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A design to take instead of all; or several."),
    ] = None,
    seeds: options.NewSeeds = 3,
    episodes: options.TestEpisodes = 600,
    iterations: options.Iterations = None,
    again: Annotated[bool, typer.Option("--again", help="Forget earlier trainings.")] = False,
    seed: options.Seed = 0,
    data: options.DataFolder = None,
    download: options.Download = False,
    skip_broken: options.SkipBroken = False,
    device: options.Device = "auto",
    plan: options.Plan = "auto",
    executor: options.ExecutorName = "ray",
    address: options.Address = None,
    workers: options.Count = None,
    gpus: options.Gpus = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the designs that a study names as baselines, without a search; test them on meta-test.

    Killed or stopped, the same command goes on.
    """
    from evometa.launch import Data, Settings, Workers
    from evometa.reuse.compare import compare as train
    from evometa.reuse.compare import open_comparison
    from evometa.reuse.trainings import Trainings
    from evometa.study_file import load_study

    wanted = Trainings(seeds, episodes, iterations, again)
    console, names = err if as_json else out, tuple(only or ())
    read = Data(None if data is None else str(data), download, skip_broken)
    run = run or Path("runs") / f"{file.stem}-compared"
    with _training(console, again=again):
        where = Workers(executor, address, workers, gpus)
        study, settings = load_study(file), Settings(1, seed, device=device, data=read)
        if (run / "study.json").exists():
            _say_what_runs(run, console)
        with console.status("Loading the data, and trying the designs without training"):
            stored = open_comparison(study, run, settings, where, only=names, plan=plan)
        table = train(stored, names, wanted, where, _watch(stored, console))
    _show(stored, table, as_json=as_json)


def rerun(
    run: options.RunPath,
    candidate: CandidateId,
    data: options.DataFolder = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; default: as in the search.")
    ] = None,
) -> None:
    """Evaluate a candidate again from its genome and seed, and say whether the same comes out."""
    from evometa.reuse.rerun import DIFFERENT
    from evometa.reuse.rerun import rerun as repeat

    stored = _read(run, data)
    with out.status(f"Evaluating {escape(candidate)} again"):
        found = repeat(stored, candidate, device=device)
    metric = stored.kept["metrics"][0]
    out.print(escape(f"{candidate}: {found.verdict}"), style="bold", highlight=False)
    for name, each in (("stored", found.before), ("now", found.now)):
        value = f"{metric} {each.metrics[metric]:.6g}" if metric in each.metrics else each.error
        out.print(escape(f"  {name:<8} {each.status.value}  {value}"), highlight=False)
    if found.before.scores and found.now.scores:
        out.print(
            f"  mean difference {found.mean:.3g}, largest of an episode {found.largest:.3g}; "
            f"the stored score's 95% interval is ± {found.interval:.3g}",
            highlight=False,
        )
    for name, (then, here) in found.changed.items():
        out.print(escape(f"  {name} was {then}, and is {here}"), highlight=False)
    if found.verdict == DIFFERENT:
        raise typer.Exit(1)


def export(
    run: options.RunPath,
    candidate: CandidateId,
    folder: Annotated[Path, options.local_path("What to create.", metavar="DIR")],
    data: options.DataFolder = None,
) -> None:
    """Write a candidate as files that adapt to new tasks with PyTorch alone."""
    from evometa.reuse.export import export as write

    stored = _read(run, data)
    with Progress(console=out, transient=True) as bar:
        task = bar.add_task("training it again", visible=False)
        found = write(
            stored,
            candidate,
            folder,
            progress=lambda done, total: bar.update(
                task, completed=done, total=total, visible=True
            ),
        )
    out.print(
        escape(
            f"{candidate} is in {folder}; its outputs are those of the search to "
            f"{found.difference:.1e}. Try: python {quoted(folder / 'example.py')}"
        ),
        highlight=False,
        soft_wrap=True,
    )


def _read(run: Place, data: Path | None, console: Console = out) -> StoredRun:
    """Read a run and run its study file, and say so before."""
    from evometa.reuse.stored import read_run

    _say_what_runs(run, console)
    return read_run(run, data)


def _say_what_runs(run: Place, console: Console) -> None:
    from evometa.store import RunDirectory

    kept = RunDirectory.read(run)
    text = f"This runs the study file that {run} keeps, {kept.get('file')}."
    console.print(escape(text), highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _training(console: Console, *, again: bool) -> Iterator[None]:
    """On Ctrl-C or SIGTERM say how to go on, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(
            "\nStopped; every finished training is kept. The same command"
            f"{', without --again,' * again} goes on with the others.",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(130) from None


def _watch(stored: StoredRun, console: Console) -> MakeWatch:
    from evometa.report import Progress as Trainings

    objectives = stored.file.study.objectives
    return lambda total, executor: Trainings(console, objectives, total, executor.counts)


def _show(stored: StoredRun, table: pa.Table, *, as_json: bool) -> None:
    """Print what trainings found, and write the report that has it as well."""
    from evometa.report.confirmed import as_data, compare, print_confirmed

    found = compare(table, stored.kept)
    if as_json:
        out.data(json.dumps(as_data(found, stored.kept, table), indent=1))
    else:
        print_confirmed(out, found, stored.kept, table)
    file = stored.place / "report.html"
    write_report(stored.place, file, live=False)
    text = escape(f"\nThe report has it as well: {file}")
    (err if as_json else out).print(text, highlight=False, soft_wrap=True)
