"""What is printed can be read, on whatever it is printed, and steers nothing."""

import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.text import Text
from rich.tree import Tree

from evometa.cli.console import SafeConsole
from evometa.metrics import scored_metric
from evometa.report.confirmed import compare, print_confirmed
from evometa.report.ranking import rank
from evometa.report.show import print_candidate, print_operators, print_top
from tests.report.tables import changed, confirmed, ordinary, write

STEERING = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]52;c;Y2xpcA==\x07",
    "\x9b2J",
    "a\rb",
    "a\x08b",
    "\x00",
    "\x7f",
    "\u202eabc",
    "\u2066abc\u2069",
    "a\u200fb",
    "\u2028",
    "\ufeff",
    "[link=file:///etc/passwd]x[/link]",
    "[/] and [/bold]",
    "[bold",
    "\udc9b2J",
]
SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
OURS = re.compile(r"\x1b\[[0-9;]*m")  # colours


def console(encoding="utf-8", terminal=True, width=80):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    options = {"width": width, "height": 25} if terminal else {}
    return SafeConsole(file=file, force_terminal=terminal, **options)


def printed(console):
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding)


@pytest.mark.parametrize("text", STEERING)
@pytest.mark.parametrize(
    "show", [str, Text, Tree, Text.from_ansi, lambda text: f"[bold]{text}"], ids=repr
)
def test_nothing_that_comes_steers_the_terminal(text, show):
    made = console()
    try:
        made.print(show(text))
    except UnicodeEncodeError:
        pytest.fail("it could not be printed")
    except Exception as error:
        if type(error).__name__ != "MarkupError" or show is str:
            raise
    said = OURS.sub("", printed(made))
    assert not SHOWN.search(said) and "\x1b" not in said


def hostile(text):
    run = ordinary(30)
    names = [f"{text}{n}" for n in range(30)]
    run.table = changed(
        run.table,
        candidate_id=names,
        parents=[[names[0]] if n > 20 else [] for n in range(30)],
        genome=[json.dumps({"hidden": [1], text: text}) for _ in range(30)],
        operator=["baseline", *[text] * 29],
        name=[text] * 30,
        error=[text] * 30,
        note=[text] * 30,
    )
    return run, names


@pytest.mark.parametrize("text", [text for text in STEERING if text.isascii()])
def test_no_table_carries_what_steers(text):
    run, names = hostile(text)
    made = console()
    found = rank(run.table, run.study["objectives"], scored=scored_metric(run.study))
    print_top(made, found, run.study["objectives"], scored="query_loss")
    print_operators(made, run.table, run.study["objectives"])
    for name in names[:2]:
        print_candidate(made, run.table, name, run.study["objectives"])
    table = confirmed("", text)
    print_confirmed(made, compare(table, run.study), run.study, table)
    said = OURS.sub("", printed(made))
    assert not SHOWN.search(said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "koi8-r"])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_sign_that_is_lacking_becomes_another(encoding, terminal):
    made = console(encoding, terminal)
    run = ordinary(20)
    found = rank(run.table, run.study["objectives"], scored=scored_metric(run.study))
    print_top(made, found, run.study["objectives"], scored="query_loss")
    made.print("★ ▲ … ← ‖ ü 漢 🎉", Text("★"), Tree("▲ x"))
    said = printed(made)
    assert ("±" in said) or ("+-" in said)
    assert "c000000" in said


NAMES = ["MAML conv4-32", "a design of a very long name indeed, longer than any terminal is wide"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_a_table_keeps_its_first_column_whole(width, name):
    made = console(width=width)
    table = confirmed("", name, "MAML")
    run = ordinary(20)
    names = [name, *run.table["name"].to_pylist()[1:]]
    run.table = changed(run.table, name=names)
    print_confirmed(made, compare(table, run.study), run.study, table)
    found = rank(run.table, run.study["objectives"], scored=scored_metric(run.study))
    print_top(made, found, run.study["objectives"], scored="query_loss")
    said = " ".join(OURS.sub("", printed(made)).split())
    assert said.count(f"{name} c00000") >= 2 and "…" not in said
    for row in found:
        assert row.id in said and f"{row.values['query_loss']:.4g}" in said


def test_nothing_is_cut_without_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    made = console(terminal=False)
    table = confirmed("", *NAMES)
    run = ordinary(20)
    print_confirmed(made, compare(table, run.study), run.study, table)
    lines = printed(made).splitlines()
    assert lines[0].split()[0] == "candidate"
    for name in NAMES:
        (line,) = [line for line in lines if line.startswith(name)]
        assert line.count("±") == 3
    assert not re.search("…|\x1b", printed(made))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = ordinary(60)
    return write(tmp_path_factory.mktemp("console") / "run", made)


def command(*words, **environment):
    return [sys.executable, "-m", "evometa.cli", *map(str, words)], {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **environment,
    }


@pytest.mark.slow
@pytest.mark.parametrize("words", [("top", "-n", 60), ("show", "c000001"), ("top", "--json")])
def test_who_reads_may_go_away(run, words):
    line, environment = command(words[0], run, *words[1:])
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(line, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_full_disk_is_said(run):
    line, environment = command("top", run)
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(line, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("terminal", [True, False])
def test_commands_live_on_any_terminal(run, environment, terminal):
    line, environment = command("top", run, **environment)
    if not terminal:
        done = subprocess.run(line, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"c000000" in done.stdout and b"\x1b" not in done.stdout
        return
    ours, theirs = pty.openpty()
    process = subprocess.Popen(line, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # it has ended
            break
    os.close(ours)
    assert process.wait(30) == 0, said
    assert b"c000000" in said and b"Traceback" not in said


@pytest.mark.slow
def test_errors_and_warnings_steer_nothing(tmp_path):
    run = write(tmp_path / "run\x1b]0;x\x07", ordinary(4))
    (run / "evaluations" / "part-000009.parquet").write_bytes(b"torn")
    for words in (("top", run), ("show", run, "c9\x1b[31m"), ("top", tmp_path / "\x9b2J")):
        line, environment = command(*words)
        done = subprocess.run(line, env=environment, capture_output=True)
        for text in (done.stdout, done.stderr):
            assert not SHOWN.search(text.decode()), text
