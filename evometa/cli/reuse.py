"""The commands that train candidates of a run again: confirm, rerun, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from evometa.cli import options
from evometa.cli.console import out
from evometa.cli.options import quoted

if TYPE_CHECKING:
    from evometa.reuse.stored import StoredRun
    from evometa.store import Place

CandidateId = Annotated[str, typer.Argument(metavar="ID", help="Of a candidate: c000042.")]


def confirm(
    run: options.RunPath,
    top: Annotated[int, typer.Option(help="How many of the best.", min=1)] = 5,
    seeds: Annotated[int, typer.Option(help="New trainings of each.", min=1)] = 3,
    episodes: Annotated[int, typer.Option(help="Of meta-test.", min=2)] = 600,
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
) -> None:
    """Train the best anew with other seeds, and test them on meta-test beside the baselines."""
    from evometa.launch import Workers
    from evometa.report import Progress as Trainings
    from evometa.report.confirmed import compare, print_confirmed
    from evometa.reuse.confirm import Confirmation
    from evometa.reuse.confirm import confirm as run_again

    stored = _read(run, data)
    wanted = Confirmation(top, seeds, episodes, iterations, tuple(only or ()), again)
    study = stored.file.study
    try:
        table = run_again(
            stored,
            wanted,
            Workers(executor, address, workers, gpus),
            lambda total, executor: Trainings(out, study.objectives, total, executor.counts),
        )
    except KeyboardInterrupt:
        out.print(
            "\nStopped; every finished training is kept. The same command"
            f"{', without --again,' * again} goes on with the others."
        )
        raise typer.Exit(130) from None
    print_confirmed(out, compare(table, stored.kept), stored.kept, table)
    text = escape(f"\nThe report has it as well: evometa report {quoted(run)}")
    out.print(text, highlight=False, soft_wrap=True)


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


def _read(run: Place, data: Path | None) -> StoredRun:
    """Read a run and run its study file, and say so before."""
    from evometa.reuse.stored import read_run
    from evometa.store import RunDirectory

    kept = RunDirectory.read(run)
    out.print(
        escape(f"This runs the study file that {run} keeps, {kept.get('file')}."),
        highlight=False,
        soft_wrap=True,
    )
    return read_run(run, data)
