"""The command line: parses, calls, prints.

A command is a function: write it beside its like, or in a module of its own, and name it in
`COMMANDS`. Options that several share are in `options`. A command imports what it needs when it
runs, so that the others start at once; a module is not called like a command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from evometa import __version__
from evometa.cli.console import err, out, prepare
from evometa.cli.reuse import compare, confirm, export, rerun
from evometa.cli.runs import convert, report, show, top
from evometa.cli.studies import check, resume, search
from evometa.errors import EvometaError
from evometa.execute.interrupts import Interrupts

__all__ = ["app", "main"]

LEAVE_SECONDS = 5.0
INTERRUPTED = 130  # by Ctrl-C or SIGTERM alike: 128 + SIGINT, as is the custom

COMMANDS = (search, resume, compare, top, show, report, confirm, rerun, export, convert, check)

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
    Interrupts().install()
    # what Ray reads when it is imported: the death of a worker is told in the table, not in between
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died|Raylet is terminated")
    code = 2
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not code and out.lost is not None:
            code = 2
            _complain(f"what the command prints cannot be written: {out.lost}")
    except EvometaError as error:
        _complain(str(error))
    except Exception:
        code = 1
        err.print(traceback.format_exc(), markup=False, highlight=False, soft_wrap=True)
    _leave(code)


def _complain(why: str) -> None:
    err.print(f"[bold red]error:[/] {escape(why)}", highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Search network architectures together with the learning rules they adapt with."""
    if version:
        out.print(__version__)
        raise typer.Exit


def _leave(code: int) -> NoReturn:
    """End this process; threads that user code has left in it get a few seconds to end as well."""
    if code == INTERRUPTED:  # more of the same would end Python in the middle of its own end
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    threads = [thread for thread in threading.enumerate() if not thread.daemon]
    left = [thread.name for thread in threads if thread is not threading.main_thread()]
    if left:
        threading.Thread(target=_end, args=(code, left), daemon=True).start()
    sys.exit(code)  # waits for them


def _end(code: int, left: list[str]) -> None:
    time.sleep(LEAVE_SECONDS)
    err.print(f"warning: threads that the study left behind are ended: {', '.join(left)}")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
