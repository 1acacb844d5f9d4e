"""Searches in processes of their own, which tests kill, starve of space and lock out.

The processes are forked from one that has imported everything, so that one begins in a moment.
"""

import errno
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from evometa.store import TIME_AND_PLACE, read_table, writer

ROOT = Path(__file__).resolve().parents[1]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["evometa.launch", "evometa.report", "evometa.warm", "torch._dynamo"])

STUDY = """
import time

from evometa import Study, Training, space as s
from evometa.network import mlp
from evometa.learner import preset
from evometa.rule import rule_space
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(2, 30), rule=rule_space(steps=s.Int(1, 2))),
    build=lambda genome: (time.sleep(0.03), mlp(1, [genome["width"]], 1))[1],
    task=Sinusoid(shots=4, queries=4, eval_queries=8),
    objectives={"query_loss": "min", "params": "min"},
    baselines={"MAML": {"width": 5, "rule": preset("maml")}},
    training=Training(iterations=6, tasks=2, validation=4),
)
"""
FULL = 4000  # bytes; less than any part of a table


class Driven:
    """`evometa ARGUMENTS`, in a session of its own.

    Args:
        folder: where.
        arguments: what is typed behind `evometa`.
        befalls: what happens to it, and before which change to its folder, counted from 1: `"kill"`
            ends it and whatever it started; `"fill"` lets the system refuse to make files longer
            than next to nothing; `"lock"` makes the folder read-only, for all time. (Permissions do
            not bind root, and a disk that is in use cannot be mounted again, so what writes is
            refused where Python calls the system.)
        part: rows that are written at once; 0 for as many as come in a second.

    Attributes:
        changes: how many changes to its folder it has begun.
    """

    def __init__(self, folder, *arguments, befalls=("", 0), part=0):
        self._said, self._changes = folder / "said", FORKS.Value("i", 0)
        words, shared = list(map(str, arguments)), (self._changes, befalls, part)
        self.process = FORKS.Process(target=_drive, args=(folder, words, environment(), shared))
        self.process.start()

    @property
    def changes(self):
        return self._changes.value

    def ends(self, seconds):
        """Wait; return whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def stores(self, run, more_than):
        """Wait until it has stored more rows than so many; return whether it has ended before."""
        while not self.ends(0.05):
            if len(begun(run)) > more_than:
                return False
        return True

    def signal(self, number):
        """Send it a signal, and nobody else."""
        os.kill(self.process.pid, number)

    def kill(self):
        """End it, and whatever it started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    @property
    def said(self):
        return " ".join(self._said.read_text().split())


def environment():
    """Return this process's environment without what Ray has written into it.

    `ray.init` asks for tokens in the environment, which a fork has read before.
    """
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}


def _drive(folder, arguments, environment, shared):
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, PYTHONPATH=str(ROOT))  # for the workers of Ray
    said = os.open("said", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    count, befalls, part = shared
    writer.FLUSH_ROWS = part or writer.FLUSH_ROWS
    sys.addaudithook(_befalling(folder, count, befalls))
    sys.argv = ["evometa", *arguments]
    from evometa.cli import main

    main()


CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.truncate"}


def _befalling(folder, count, befalls):
    what, when = befalls
    driver = os.getpid()  # those that it starts are forked with the hook

    def changes(event, arguments):
        if event == "open":
            return (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return event in CHANGES

    def hook(event, arguments):
        path = arguments[0] if arguments and isinstance(arguments[0], (str, Path)) else None
        if path is None or not changes(event, arguments) or os.getpid() != driver:
            return
        if folder not in Path(path).absolute().parents:
            return
        count.value += 1
        if what == "kill" and count.value == when:
            os.killpg(0, signal.SIGKILL)
        if what == "fill" and count.value == when:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, resource.RLIM_INFINITY))
        if what == "lock" and count.value >= when:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    return hook


def run(folder, *arguments):
    """Run a command to its end; return what it said."""
    driven = Driven(folder, *arguments)
    assert driven.ends(120), driven.said
    assert driven.process.exitcode == 0, driven.said
    return driven.said


def rows(run):
    """The table without the columns of time and place."""
    return read_table(run).drop_columns([*TIME_AND_PLACE]).to_pylist()


def begun(run):
    """When each stored evaluation began, by candidate, rung and repeat."""
    if not (run / "evaluations").is_dir():
        return {}
    table = read_table(run, ["number", "rung", "repeat", "started_at"]).to_pylist()
    found = {(row["number"], row["rung"], row["repeat"]): row["started_at"] for row in table}
    assert len(found) == len(table), "an evaluation is stored twice"
    return found
