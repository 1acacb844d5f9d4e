"""The commands that read a run: top, show, report, convert."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from evometa.cli.console import err, out
from evometa.cli.options import AsJson, RunPath, RunPaths, local_path, quoted
from evometa.errors import EvometaError, StoreError
from evometa.files import is_stream, write_stream

if TYPE_CHECKING:
    import pyarrow as pa

    from evometa.store import Place

LIVE_SECONDS = 5.0  # between two writings of a live report


def top(
    runs: RunPaths,
    n: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 10,
    by: Annotated[str | None, typer.Option(help="Objective to rank by.")] = None,
    as_json: AsJson = False,
    operators: Annotated[
        bool, typer.Option("--operators", help="Print which mutations made better children.")
    ] = False,
) -> None:
    """Print the best candidates of a run, or of several together, beside the baselines."""
    if operators:
        from evometa.report import print_operators
        from evometa.store import read_search

        for run in runs:
            study, table = read_search(run)
            print_operators(out, table, study["objectives"])
        return
    print_best(runs, n, by, as_json=as_json)


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
    from evometa.store import read_search

    study, table = read_search(run)
    genome = json.loads(find(table, candidate)["genome"])
    if as_json and python:
        raise typer.BadParameter("either --json or --python, not both")
    if as_json:
        out.data(json.dumps(genome, indent=1))
        return
    if python:
        print_python(out, genome)
        return
    print_candidate(out, table, candidate, study["objectives"])
    older = {row["candidate_id"]: row["genome"] for row in lineage(table, candidate)[1:]}
    print_rule(out, genome, older)


def report(
    run: RunPath,
    file: Annotated[
        Path | None,
        local_path(
            "The HTML file, or a device or pipe; default report.html in the run.",
            "--out",
            metavar="FILE",
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Write again every few seconds while the search runs.")
    ] = False,
) -> None:
    """Write what a run found as one HTML file, which opens from disk and fetches nothing."""
    from evometa.store import is_held

    stream = file is not None and is_stream(file)
    said = err if stream else out  # what is written may go to the standard output
    file = file or run / "report.html"
    live = live and is_held(run) and not stream
    if live:
        out.print(escape(f"Keeping {file} up to date; Ctrl-C ends this, not the search."))
    with contextlib.suppress(KeyboardInterrupt):  # the last page must not load itself again
        while live and is_held(run):
            started = time.monotonic()
            write_report(run, file, live=True)
            time.sleep(max(LIVE_SECONDS, 3 * (time.monotonic() - started)))
    write_report(run, file, live=False, stream=stream)
    said.print(escape(f"The report of {run} is in {file}"), highlight=False, soft_wrap=True)


def convert(
    run: RunPath,
    to: Annotated[str, typer.Option("--to", help="optuna, tensorboard, csv or json.")],
    file: Annotated[Path, local_path("Where; must not exist.", metavar="FILE")],
) -> None:
    """Write a run's table for other tools: an Optuna journal, TensorBoard scalars, CSV, JSON."""
    from evometa.report.convert import write
    from evometa.store import read_search

    write(to, file, run.resolve().name, *read_search(run))
    said = err if is_stream(file) else out
    said.print(escape(f"The table of {run} is in {file}"), highlight=False, soft_wrap=True)


def print_best(
    runs: Sequence[Place], n: int, by: str | None = None, *, as_json: bool = False
) -> None:
    """Print the best candidates of runs beside their baselines, and what the rungs of one say."""
    from evometa.limits import stored_limits
    from evometa.metrics import scored_metric
    from evometa.report import print_rungs, print_top, rank, tied
    from evometa.report.several import joined
    from evometa.store import load, read_search, run_names

    if len(runs) > 1:
        studies = [read_search(run)[0] for run in runs]
        study, table = joined(run_names(runs), studies, load(*runs))
    else:
        study, table = read_search(runs[0])
    if study.get("kind") == "comparison" and not as_json:
        text = f"{runs[0]} compares given designs, and has searched nothing. What came out: "
        out.print(escape(f"{text}evometa report {quoted(runs[0])}"), highlight=False)
        return
    objectives, scored = study["objectives"], scored_metric(study)
    limits = stored_limits(study)
    ranked = rank(table, objectives, scored=scored, by=by, n=n, limits=limits)
    if as_json:
        out.data(json.dumps([row.as_dict() for row in ranked], indent=1))
        return
    print_top(out, ranked, objectives, scored=scored.name)
    name = by or next(iter(objectives))
    if same := tied(table, name):
        out.print(
            f"\n[yellow]All {same} candidates have the same {escape(name)}, so their order says "
            "nothing.[/] `evometa check` shows what the data was read as.",
            highlight=False,
        )
    if len(runs) == 1:
        print_rungs(out, table, objectives, study.get("levels", ()))


def _confirmation(run: Place) -> pa.Table | None:
    """Return the run's confirmation; one that cannot be read must not keep the report away."""
    from evometa.store import read_confirmed

    try:
        return read_confirmed(run)
    except StoreError as error:
        err.print(escape(f"warning: {error}"), style="yellow", highlight=False)
        return None


def write_report(run: Place, file: Place, *, live: bool, stream: bool = False) -> None:
    """Write what a run found as one HTML file.

    Args:
        run: the run directory.
        file: where.
        live: the page loads itself again.
        stream: the file is a device or a pipe.
    """
    from evometa.report.page import render
    from evometa.store import read_search, write_text

    study, table = read_search(run)
    text = render(run.resolve().name, study, table, confirmed=_confirmation(run), live=live)
    if not stream or not isinstance(file, Path):
        write_text(file, text)
        return
    try:
        write_stream(file, lambda opened: opened.write(text.encode("utf-8", "replace")))
    except OSError as error:
        raise EvometaError(f"{file} cannot be written: {error}") from error
