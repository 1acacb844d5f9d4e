"""Arguments and options of the commands, each with its help."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from evometa.files import local


def place_of(text: str) -> Any:
    """Return the path, or the store's path, that a text names."""
    from evometa.store import place

    return place(text)


def quoted(run: object) -> str:
    """Return a path or URL as a shell takes it, for a command to copy."""
    return shlex.quote(str(run))


def local_path(help_: str, *names: str, metavar: str = "PATH") -> Any:
    """Return an argument, or an option of these names, that takes a path as people write it."""
    if names:
        return typer.Option(*names, help=help_, metavar=metavar, parser=local)
    return typer.Argument(help=help_, metavar=metavar, parser=local)


StudyPath = Annotated[Path, local_path("A Python file that assigns `study`.", metavar="FILE")]
RunPath = Annotated[
    Any, typer.Argument(help="A run directory, or its URL.", metavar="RUN", parser=place_of)
]
RunPaths = Annotated[
    list[Any], typer.Argument(help="Run directories, or URLs.", metavar="RUN...", parser=place_of)
]
NewRun = Annotated[
    Any,
    typer.Option(
        "--run",
        help="Run directory, or a URL: s3://...; default runs/NAME.",
        metavar="RUN",
        parser=place_of,
    ),
]

# what is searched
Candidates = Annotated[
    int | None, typer.Option("-n", "--candidates", help="How many to train.", min=1)
]
Total = Annotated[int | None, typer.Option("-n", "--candidates", help="A new total.", min=1)]
SearcherName = Annotated[
    str | None,
    typer.Option(
        "--searcher", help="hybrid, evolution, nsga2, tpe, random, ...; default: the study's."
    ),
]
Rungs = Annotated[
    int | None, typer.Option(help="Fidelities: each trains a third as long as the next.", min=1)
]
Seeds = Annotated[
    int | None, typer.Option(help="Train those that may be the best with so many seeds.", min=1)
]
LookAhead = Annotated[
    bool, typer.Option("--look-ahead", help="Screen candidates before any training.")
]
Constraints = Annotated[
    list[str] | None,
    typer.Option("--constraint", help="Such as 'params <= 50_000'; or several."),
]
WarmStart = Annotated[
    list[Any] | None,
    typer.Option(
        "--warm-start",
        help="An earlier run to begin with; or several.",
        metavar="RUN",
        parser=place_of,
    ),
]
Hours = Annotated[float | None, typer.Option(help="Stop after so many hours.")]
DeviceSeconds = Annotated[
    float | None, typer.Option(help="Stop after so many seconds of evaluation.")
]
Patience = Annotated[
    int | None, typer.Option(help="Stop when so many results have not moved the front.")
]
Seed = Annotated[int, typer.Option(help="Decides everything random.", min=0)]
TellingOrder = Annotated[
    str, typer.Option("--order", help="Tell results in logical or arrival order.")
]
Window = Annotated[
    int, typer.Option(help="How far proposals run ahead; 2 to 4 times the workers.", min=1)
]
PackSize = Annotated[
    int,
    typer.Option("--pack", help="Candidates proposed and evaluated together, in a pack.", min=1),
]
Iterations = Annotated[
    int | None, typer.Option(help="Meta-iterations a candidate; default: the study's.", min=1)
]

ObserverNames = Annotated[
    list[str] | None,
    typer.Option("--observer", help="FILE.py:NAME of an observer of your own; or several."),
]

# on which data
DataFolder = Annotated[
    Path | None, local_path("Folder of the task's data.", "--data", metavar="DIR")
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the published data set.")]
SkipBroken = Annotated[bool, typer.Option(help="Leave out what is broken, or too small.")]

# what is trained without a search
NewSeeds = Annotated[int, typer.Option("--seeds", help="New trainings of each.", min=1)]
TestEpisodes = Annotated[int, typer.Option("--episodes", help="Of meta-test.", min=2)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# where it runs
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Plan = Annotated[str, typer.Option(help="auto, loop, vmap, vmap:TASKS, with +compile, +graph, ...")]
ExecutorName = Annotated[str, typer.Option("--executor", help="ray, or serial (this process).")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; default: a local one.")]
Count = Annotated[int | None, typer.Option("--workers", help="Workers; default: all cores.", min=1)]
Gpus = Annotated[
    float | None, typer.Option("--gpus", help="GPUs of a worker, may be a fraction.", min=0)
]
TimeLimit = Annotated[
    float | None, typer.Option(help="Seconds that a candidate may take; default: no limit.")
]
WorkerLogs = Annotated[
    bool, typer.Option("--worker-logs", help="Keep what each worker prints, in RUN/logs.")
]
