"""The command line, each command in a process of its own.

The processes are forked from one that has imported what commands need: importing it again takes
several seconds a command. Nothing else is shared.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from tests.driven import environment

ROOT = Path(__file__).resolve().parents[1]

_processes = multiprocessing.get_context("forkserver")
# not evometa.cli itself: its consoles look at the environment when they are made
_processes.set_forkserver_preload(
    [
        "evometa.check",
        "evometa.launch",
        "evometa.report.convert",
        "evometa.report.page",
        "evometa.search.hybrid",
        "torch._dynamo",  # what initial weights on the meta device need
        "typer.testing",
    ]
)


class Command:
    """A command that has been started.

    Args:
        arguments: what is typed behind `evometa`.
        folder: where.
    """

    def __init__(self, *arguments, folder):
        handle, output = tempfile.mkstemp(prefix="evometa-said-")
        os.close(handle)
        self._output = Path(output)
        self._process = _processes.Process(
            target=_run,
            args=([*map(str, arguments)], str(folder), environment(), output),
            daemon=True,
        )
        self._process.start()

    def signal(self, number):
        """Send a signal."""
        os.kill(self._process.pid, number)

    def is_alive(self):
        return self._process.is_alive()

    def wait(self, seconds=150):
        """Return its exit status, and what it printed."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
        said = self._output.read_text()
        self._output.unlink()
        assert code is not None, f"not done after {seconds} seconds:\n{said}"
        return code, said


def evometa(*arguments, folder, code=0):
    """Run a command to its end; return what it printed."""
    found, said = Command(*arguments, folder=folder).wait()
    assert found == code, said
    return said


def _run(arguments, folder, environment, output):
    os.environ.clear()
    os.environ.update(environment, PYTHONPATH=str(ROOT))  # for workers, which start elsewhere
    os.chdir(folder)
    handle = os.open(output, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)

    import torch

    from evometa import cli

    torch.set_num_threads(1)
    sys.argv = ["evometa", *arguments]
    cli.main()
