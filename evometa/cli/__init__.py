"""The command line: parses, calls, prints.

A command is a function: write it beside its like, or in a module of its own, and name it in
`COMMANDS`. Options that several share are in `options`. A command imports what it needs when it
runs, so that the others start at once; a module is not called like a command.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from evometa import __version__
from evometa.cli.console import err, out, prepare
from evometa.cli.reuse import confirm, export, rerun
from evometa.cli.runs import convert, report, show, top
from evometa.cli.studies import check, resume, search
from evometa.errors import EvometaError

__all__ = ["app", "main"]

COMMANDS = (search, resume, top, show, report, confirm, rerun, export, convert, check)

app = typer.Typer(
    help="Search network architectures together with the learning rules they adapt with.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command line; errors raised on purpose are printed without a traceback."""
    prepare()
    signal.signal(signal.SIGTERM, _terminate)
    # what Ray reads when it is imported: the death of a worker is told in the table, not in between
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died|Raylet is terminated")
    try:
        app()
    except SystemExit as ended:
        if ended.code or out.lost is None:
            raise
        _fail(f"what the command prints cannot be written: {out.lost}")
    except EvometaError as error:
        _fail(str(error))
    except Exception:
        err.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


def _fail(why: str) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(why)}", highlight=False, soft_wrap=True)
    sys.exit(2)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search network architectures together with the learning rules they adapt with."""
    if version:
        out.print(__version__)
        raise typer.Exit


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Treat SIGTERM, which batch systems send before they kill, like Ctrl-C."""
    raise KeyboardInterrupt
