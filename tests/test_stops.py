"""Ctrl-C and SIGTERM, at any moment, once or more: all is kept, and the way on is said."""

import os
import select
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests.driven import STUDY, Driven, begun, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERIAL = ("--executor", "serial", "--plan", "vmap")
RAY = ("--executor", "ray", "--workers", 2, "--plan", "vmap")
ENDLESS = ("-n", 1_000_000)  # no search ends before the signal
NOTING = """
from contextlib import contextmanager

@contextmanager
def noting(run):
    with open("finished", "w", buffering=1) as file:
        yield lambda evaluation: print(evaluation.candidate.number, file=file)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "notes.py").write_text(NOTING)
    return tmp_path


def stop(driven, signals, said):
    for number in signals:
        driven.signal(number)
    assert driven.ends(150), driven.said
    assert driven.process.exitcode == 130, driven.said
    assert said in driven.said
    assert "Traceback" not in driven.said and "Stack" not in driven.said


@pytest.mark.parametrize("where", [SERIAL, RAY], ids=["serial", "ray"])
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM] * 3],
    ids=["Ctrl-C", "SIGTERM", "thrice"],
)
def test_a_search_keeps_all_and_prints_the_resume_command(folder, where, signals):
    driven = Driven(
        *(folder, "search", "study.py", "--run", "r", "--observer", "notes.py:noting"),
        *(*ENDLESS, *where),
    )
    assert not driven.stores(folder / "r", 3), driven.said
    stop(driven, signals, "evometa resume r")
    finished = set(map(int, (folder / "finished").read_text().split()))
    assert {key[0] for key in begun(folder / "r")} == finished


def test_while_candidates_are_tried_at_first(folder):
    marked = STUDY.replace("time.sleep(0.03)", "(open('tried', 'w').close(), time.sleep(3600))")
    (folder / "study.py").write_text(marked)
    driven = Driven(folder, "search", "study.py", "--run", "r", *ENDLESS, *SERIAL)
    while not (folder / "tried").exists():
        assert not driven.ends(0.01), driven.said
    stop(driven, [signal.SIGTERM] * 2, "Stopped before the search began")
    assert not (folder / "r").exists()


def test_while_ray_starts(folder, monkeypatch):
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # paths of sockets must be short
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    try:
        driven = Driven(folder, "search", "study.py", "--run", "r", *ENDLESS, *RAY)
        while not list(place.glob("ray/session_*/sockets")):
            assert not driven.ends(0.01), driven.said
        stop(driven, [signal.SIGTERM], "Stopped before the search began")
        while left := _processes_that_name(place):
            for process in left:
                _ended(int(process.parent.name))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _processes_that_name(place):
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [process] if str(place).encode() in process.read_bytes() else []
        except OSError:
            continue
    return found


def _ended(process):
    """Wait until a process that is no child of ours has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    select.select([handle], [], [])
    os.close(handle)


@pytest.mark.parametrize("where", [SERIAL[:2], RAY[:4]], ids=["serial", "ray"])
def test_a_confirmation(folder, where):
    run(folder, "search", "study.py", "--run", "r", "-n", 3, *SERIAL)
    driven = Driven(folder, "confirm", "r", "--seeds", 900, "--top", 1, "--episodes", 4, *where)
    while not (folder / "r" / "confirmed" / ".lock").exists():  # it has begun
        assert not driven.ends(0.01), driven.said
    stop(driven, [signal.SIGTERM] * 2, "every finished training is kept")


@pytest.mark.parametrize("where", [SERIAL[:2], RAY[:4]], ids=["serial", "ray"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_comparison(folder, where, number):
    words = ("compare", "study.py", "--run", "r", "--seeds", 900, "--episodes", 4, *where)
    driven = Driven(folder, *words)
    while not (folder / "r" / "confirmed" / ".lock").exists():  # it has begun
        assert not driven.ends(0.01), driven.said
    stop(driven, [number] * 2, "The same command goes on with the others")


def test_threads_of_user_code_do_not_keep_a_command_from_ending(folder):
    thread = "(threading.Thread(target=time.sleep, args=(3600,)).start(), mlp"
    changed = STUDY.replace("(time.sleep(0.03), mlp", thread).replace(
        "import time", "import time, threading"
    )
    (folder / "study.py").write_text(changed)
    said = run(folder, "search", "study.py", "--run", "r", "-n", 3, *SERIAL)
    assert "threads that the study left behind are ended" in said


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_build_that_ends_itself_is_the_failure_of_its_candidate(folder, raised):
    ends = f"def build(genome):\n    if genome['width'] % 2:\n        raise {raised}\n"
    ends += "    return mlp(1, [genome['width']], 1)\n\nstudy ="
    changed = STUDY.replace("study =", ends).replace('{"width": 5', '{"width": 6')
    start, end = changed.index("build=lambda"), changed.index("\n", changed.index("build=lambda"))
    (folder / "study.py").write_text(changed[:start] + "build=build," + changed[end:])
    run(folder, "search", "study.py", "--run", "r", "-n", 12, *SERIAL)
    assert len(begun(folder / "r")) == 12
