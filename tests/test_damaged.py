"""Runs that are damaged, or made to do harm: every reading command ends well or in one sentence."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import evometa
from evometa.cli import app
from evometa.errors import EvometaError
from tests.reuse.conftest import make_run

STUDY = """
from evometa import Study, Training
from evometa import space as s
from evometa.network import mlp
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(4, 16), act=s.Choice("relu", "tanh")),
    build=lambda genome: mlp(1, [genome["width"]], 1),
    task=Sinusoid(shots=5),
    objectives={"query_loss": "min", "params": "min"},
    baselines={"narrow": {"width": 4, "act": "relu"}},
    training=Training(iterations=1, tasks=2, validation=3),
)
"""
CONFIRM = ("--top", 1, "--seeds", 2, "--episodes", 3, "--iterations", 1, "--executor", "serial")
SERIAL = ("--executor", "serial", "--plan", "loop", "-n", 2)
COMMANDS = {
    "top": lambda run, beside: ["top", run],
    "top of two": lambda run, beside: ["top", beside / "sound", run],
    "top as JSON": lambda run, beside: ["top", run, "--json"],
    "top operators": lambda run, beside: ["top", run, "--operators"],
    "show": lambda run, beside: ["show", run, "c000001"],
    "show as JSON": lambda run, beside: ["show", run, "c000001", "--json"],
    "show as Python": lambda run, beside: ["show", run, "c000001", "--python"],
    "report": lambda run, beside: ["report", run],
    "confirm": lambda run, beside: ["confirm", run, *CONFIRM],
    "rerun": lambda run, beside: ["rerun", run, "c000001"],
    "export": lambda run, beside: ["export", run, "c000001", beside / "export"],
    "resume": lambda run, beside: ["resume", run, "--executor", "serial"],
    "to optuna": lambda run, beside: ["convert", run, beside / "x.log", "--to", "optuna"],
    "to tensorboard": lambda run, beside: ["convert", run, beside / "x.tb", "--to", "tensorboard"],
    "to csv": lambda run, beside: ["convert", run, beside / "x.csv", "--to", "csv"],
    "to json": lambda run, beside: ["convert", run, beside / "x.json", "--to", "json"],
    "warm start": lambda run, beside: [
        "search", beside / "study.py", "--run", beside / "new", "--warm-start", run, *SERIAL
    ],
}  # fmt: skip
TURNS = (
    ("confirm", "rerun", "export", "resume", "warm start"),
    ("top", "top as JSON", "top operators", "top of two"),
    ("show", "show as JSON", "show as Python"),
    ("to optuna", "to tensorboard", "to csv", "to json"),
)
"""Commands that read alike, and take turns where not all are wanted."""


def part_of(run):
    (path,) = (run / "evaluations").glob("part-*")
    return path


def column(name, make):
    """Change a column: `make` returns it anew from a list; None leaves it out."""

    def damage(run):
        path = part_of(run)
        table = pq.read_table(path)
        place = table.schema.get_field_index(name)
        if make is None:
            table = table.remove_column(place)
        else:
            values = make(table[name].to_pylist())
            kind = None if isinstance(values, pa.Array) else table.schema.field(name).type
            values = values if kind is None else pa.array(values, kind)
            table = table.set_column(place, name, values)
        pq.write_table(table, path)

    return damage


def filled(name, value):
    return column(name, lambda old: [value] * len(old))


def instead(name, make):
    """Put something else where a file of the run is."""

    def damage(run):
        path = part_of(run) if name == "part" else run / name
        if path.exists():
            path.unlink()
        make(path)

    return damage


def beside(name, make):
    return lambda run: make(run / "evaluations" / name)


def listen(path):
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path must be short
        opened.bind(path.name)
        os.chdir(here)


ODD = {
    "a pipe": os.mkfifo,
    "a socket": listen,
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}


def study_json(change):
    def damage(run):
        study = json.loads((run / "study.json").read_text())
        found = change(study)
        (run / "study.json").write_text(json.dumps(study if found is None else found))

    return damage


def with_(**parts):
    return study_json(lambda study: study.update(parts))


def without(name):
    return study_json(lambda study: study.pop(name) and None)


def deep(levels, inner="1"):
    return "[" * levels + inner + "]" * levels


REFUSED = {
    **{f"a part is {kind}": instead("part", make) for kind, make in ODD.items()},
    **{f"study.json is {kind}": instead("study.json", make) for kind, make in ODD.items()},
    **{f"one part is {kind}": beside("part-000009.parquet", make) for kind, make in ODD.items()},
    "a genome is no JSON": filled("genome", "{"),
    "a genome is empty": filled("genome", ""),
    "a genome is nested too deep": filled("genome", deep(10_000)),
    "a genome is nested deep": filled("genome", deep(600)),
    "a genome holds NaN": filled("genome", '{"width": NaN}'),
    "a genome holds an infinity": filled("genome", '{"width": 1e999}'),
    "a genome of 10 MB": filled("genome", json.dumps({"width": "x" * 10_000_000})),
    "no genomes": column("genome", None),
    "no status": column("status", None),
    "no numbers": column("number", None),
    "no scores": column("scores", None),
    "no metric": column("query_loss", None),
    "numbers are texts": column("number", lambda old: pa.array(["x"] * len(old))),
    "scores are numbers": column("scores", lambda old: pa.array([1.0] * len(old))),
    "a metric is text": column("query_loss", lambda old: pa.array(["x"] * len(old))),
    "genes are lists": column("gene.width", lambda old: pa.array([[1]] * len(old))),
    "a metric is infinite": filled("query_loss", np.inf),
    "a metric is NaN": filled("query_loss", np.nan),
    "a metric is missing": filled("query_loss", None),
    "seconds are infinite": filled("seconds", np.inf),
    "scores are infinite": filled("scores", [np.inf, 1.0, 1.0]),
    "scores are missing": filled("scores", [None, 1.0, 1.0]),
    "the status is missing": filled("status", None),
    "the parents are missing": filled("parents", None),
    "numbers are negative": filled("number", -5),
    "numbers are huge": filled("number", 2**62),
    "a rung that is not": filled("rung", 7),
    "a seed is negative": filled("seed", -1),
    "a time of no calendar": column(
        "started_at", lambda old: pa.array([2**62] * len(old), pa.timestamp("us", "UTC"))
    ),
    "texts are no UTF-8": column(
        "genome",
        lambda old: pa.array([b"\xff\xfe"] * len(old), pa.binary()).view(pa.string()),
    ),
    "study.json is empty": instead("study.json", lambda path: path.write_text("")),
    "study.json is a list": instead("study.json", lambda path: path.write_text("[]")),
    "study.json is no UTF-8": instead("study.json", lambda path: path.write_bytes(b'{"a":"\xff"}')),
    "study.json is deep": instead("study.json", lambda path: path.write_text(deep(10_000))),
    "study.json is huge": instead("study.json", lambda path: os.truncate(_made(path), 1 << 40)),
    "a newer study.json": with_(schema=999),
    "no objectives": without("objectives"),
    "no metrics": without("metrics"),
    "objectives are a list": with_(objectives=["query_loss"]),
    "objectives are numbers": with_(objectives={"query_loss": 1}),
    "an objective is no metric": with_(objectives={"speed": "min"}),
    "a metric is a column": with_(metrics=["genome"], objectives={"genome": "min"}),
    "metrics are numbers": with_(metrics=[1, 2]),
    "levels are texts": with_(levels=["x"]),
    "levels are empty objects": with_(levels=[{}]),
    "settings are a list": with_(settings=[]),
    "constraints are numbers": with_(constraints=[3]),
    "training is a text": with_(training="x"),
    "files are texts": with_(files={"kept": "x"}),
    "files are numbers": with_(files={"study": "s", "module": "s", "roots": [1]}),
}  # fmt: skip
"""What every command refuses."""

SURVIVED = {
    "nothing": lambda run: None,
    "no parts": lambda run: part_of(run).unlink(),
    "an empty part": lambda run: _emptied(part_of(run)),
    "a torn part": lambda run: os.truncate(part_of(run), 100),
    "an empty file": lambda run: os.truncate(part_of(run), 0),
    "a status that is none": filled("status", "SPLENDID"),
    "genomes are numbers": filled("genome", "1"),
    "genomes are lists": filled("genome", '["a", [1, "b"]]'),
    "a genome of a long word": filled("genome", json.dumps({"width": "x" * 900_000})),
    "a genome of many words": filled("genome", json.dumps({"width": ["x y"] * 100_000})),
    "a genome of many genes": filled("genome", json.dumps({f"g{n}": n for n in range(50_000)})),
    "numbers as long as lines": filled("genome", '{"width": %s}' % ("9" * 1000)),
    "metrics are huge": filled("query_loss", 1e308),
    "scores are huge": filled("scores", [1e308, -1e308, 1e200]),
    "no score": filled("scores", []),
    "no parents known": filled("parents", ["c999999"]),
    "its own parent": filled("parents", ["c000001"]),
    "names that steer": filled("candidate_id", "\x1b]0;title\x07[/bold][link=file:///x]"),
    "part of another study": lambda run: shutil.copy(
        run.parent / "other" / "evaluations" / "part-000000.parquet",
        run / "evaluations" / "part-000077.parquet",
    ),
    "a space of another kind": with_(space={"choice": ["a"], "branches": [1]}),
    "no settings": without("settings"),
    "no file": without("file"),
    "no hash": without("file_sha256"),
    "settings of another kind": with_(settings={"candidates": "many"}),
    "training of another kind": with_(training={"iterations": "long", "colour": 1}),
    "earlier of another kind": with_(earlier={"seeds": [1]}),
    "earlier results of another kind": with_(earlier={"results": [1]}),
    "unknown parts": with_(later={"x": 1}),
    "no study.py": lambda run: (run / "study.py").unlink(),
    **{f"study.py is {kind}": instead("study.py", make) for kind, make in ODD.items()},
    **{f"summary.json is {kind}": instead("summary.json", make) for kind, make in ODD.items()},
    "summary.json is a list": instead("summary.json", lambda path: path.write_text("[]")),
    **{f"its test is {kind}": instead("confirm.parquet", make) for kind, make in ODD.items()},
    "confirm.parquet is torn": lambda run: os.truncate(run / "confirm.parquet", 100),
    "confirm.parquet is a part": lambda run: shutil.copy(part_of(run), run / "confirm.parquet"),
    **{f"the lock is {kind}": instead(".lock", make) for kind, make in ODD.items()},
    **{f"the weights are {kind}": lambda run, make=make: _weights(run, make)
       for kind, make in ODD.items()},
}  # fmt: skip
"""What some commands can do without; those that cannot say so."""


def _emptied(path):
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _made(path):
    path.touch()
    return path


def _weights(run, make):
    for path in (run / "confirmed").glob("*.safetensors"):
        path.unlink()
        make(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a run that has been confirmed, and one of another study."""
    folder = tmp_path_factory.mktemp("sound")
    other = STUDY.replace('"relu", "tanh"', "1, 2").replace('"relu"', "1")
    for name, study in (("sound", STUDY), ("other", other)):
        made = make_run(folder / f"making {name}", study, 4, plans={"dense": "loop"})
        table = evometa.load(made)
        for part in (made / "evaluations").iterdir():
            part.unlink()
        pq.write_table(table, made / "evaluations" / "part-000000.parquet")
        shutil.copytree(made, folder / name)
    (folder / "study.py").write_text(STUDY)
    assert run_command("confirm", folder / "sound", folder) is None
    return folder


@pytest.fixture
def damaged(sound, tmp_path):
    """A copy of all."""
    for name in ("sound", "other"):
        shutil.copytree(sound / name, tmp_path / name)
    shutil.copytree(sound / "sound", tmp_path / "run")
    shutil.copy(sound / "study.py", tmp_path / "study.py")
    return tmp_path / "run"


def run_command(name, run, beside):
    """Run a command, which must end well, or in one error of evometa, which is returned."""
    words = [str(word) for word in COMMANDS[name](run, beside)]
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, EvometaError):
        text = str(result.exception)
        assert 0 < len(text) < 2000 and "Traceback" not in text, text
        return text
    assert result.exit_code == 0 or (name == "rerun" and result.exit_code == 1), (
        f"{name}: {result.output[-3000:]} {result.exception!r}"
    )
    assert "\x1b]" not in result.output
    return None


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("damage", REFUSED)
def test_what_cannot_be_believed_is_refused_with_the_file(damage, damaged):
    REFUSED[damage](damaged)
    for name in COMMANDS:
        said = run_command(name, damaged, damaged.parent)
        assert said and str(damaged) in said, f"{name}: {said}"
    if "study.json" in damage or damage.startswith(("no objectives", "no metrics")):
        return
    part = damage.startswith(("a part", "one part"))
    if part:
        with pytest.raises(EvometaError, match="must be a file, but it is"):
            evometa.load(damaged)


def test_commands_that_take_turns_are_commands():
    words = [name for turn in TURNS for name in turn]
    assert len(words) == len(set(words)) and set(COMMANDS) - set(words) == {"report"}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", SURVIVED)
def test_what_can_be_done_without_harms_no_other_command(damage, damaged):
    """The report, and one command of each kind."""
    SURVIVED[damage](damaged)
    place = [*SURVIVED].index(damage)
    for name in ("report", *(turn[place % len(turn)] for turn in TURNS)):
        run_command(name, damaged, damaged.parent)
    evometa.load(damaged)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", SURVIVED)
def test_what_can_be_done_without_harms_no_command(damage, damaged):
    SURVIVED[damage](damaged)
    for name in COMMANDS:
        run_command(name, damaged, damaged.parent)
    evometa.load(damaged)
