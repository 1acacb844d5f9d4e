"""The command line, as a person meets it."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, read_table
from tests import commands
from tests.commands import Command

ROOT = Path(__file__).resolve().parents[1]

SMALL = """
from evometa import Study, Training, space as s
from evometa.network import mlp
from evometa.learner import preset
from evometa.rule import rule_space
from evometa.task import Sinusoid
import helper_beside_the_study

space = s.Struct(width=s.Int(2, 9), rule=rule_space(steps=s.Int(1, 2)))

def build(genome):
    return helper_beside_the_study.make(genome["width"])

study = Study(
    space=space, build=build, task=Sinusoid(shots=4, queries=4, eval_queries=8),
    objectives={"query_loss": "min", "params": "min"},
    baselines={"MAML": {"width": 5, "rule": preset("maml")}},
    training=Training(iterations=8, tasks=3, validation=6), candidates=12,
)
"""
HELPER = "from evometa.network import mlp\ndef make(width):\n    return mlp(1, [width], 1)\n"


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "studies" / "small.py"
    path.parent.mkdir()
    path.write_text(SMALL)
    (path.parent / "helper_beside_the_study.py").write_text(HELPER)
    return path


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def evometa(*arguments, folder, code=0):
    return " ".join(commands.evometa(*arguments, folder=folder, code=code).split())


def rows(run):
    """The table without the columns of time and place."""
    table = read_table(run)
    kept = [name for name in table.column_names if name not in TIME_AND_PLACE]
    return table.select(kept).to_pylist()


# a plan that the clock cannot change: two plans differ in rounding
VMAP = ("--executor", "serial", "--plan", "vmap")


def test_search_top_show_resume(study, tmp_path):
    said = evometa("search", study, *VMAP, folder=tmp_path)
    assert "MAML c000000" in said and "±" in said
    run = tmp_path / "runs" / "small"
    assert [row["number"] for row in rows(run)] == list(range(12))
    assert rows(run)[0]["gene.width"] == 5

    best = json.loads(evometa("top", run, "-n", 3, "--json", folder=tmp_path))
    assert [row["rank"] for row in best][:3] == [1, 2, 3]
    assert "MAML" in [row["name"] for row in best]
    losses = [row["values"]["query_loss"] for row in best[:3]]
    assert losses == sorted(losses)
    by_params = json.loads(evometa("top", run, "--by", "params", "--json", folder=tmp_path))
    sizes = [row["params"] for row in by_params if not row["name"]]
    assert sizes == sorted(sizes)

    shown = evometa("show", run, "c000003", folder=tmp_path)
    assert all(word in shown for word in ("genome", "Linear", "query_loss", "lineage"))
    assert "w ← w - rate·g" in shown
    source = evometa("show", run, "c000003", "--python", folder=tmp_path)
    assert "import torch" in source and "return parameter - move" in source
    genome = json.loads(evometa("show", run, "c000003", "--json", folder=tmp_path))
    assert set(genome) == {"width", "rule"}
    assert "made from another" in evometa("top", run, "--operators", folder=tmp_path)

    said = evometa("search", study, folder=tmp_path, code=2)
    assert f"evometa resume {Path('runs/small')}" in said
    evometa("resume", run, "-n", 15, "--executor", "serial", folder=tmp_path)
    assert [row["number"] for row in rows(run)] == list(range(15))
    whole = tmp_path / "whole"
    evometa("search", study, "-n", 15, *VMAP, "--run", whole, folder=tmp_path)
    assert rows(whole) == rows(run)


def test_operators_are_counted(study, tmp_path):
    options = ("-n", 30, "--window", 2, "--iterations", 1, "--executor", "serial")
    evometa("search", study, *options, "--run", "r", folder=tmp_path)
    said = evometa("top", "r", "--operators", folder=tmp_path)
    assert "mutate rule.rate" in said and "%" in said


def test_check_trains_nothing_and_says_what_it_would_cost(study, tmp_path):
    said = evometa("check", study, "--samples", 6, folder=tmp_path)
    assert all(word in said for word in ("6 of 6 samples pass", "params", "s a candidate", "MAML"))
    assert not (tmp_path / "runs").exists()


BROKEN = {
    "no such file": (None, "there is none at"),
    "does not parse": ("study = (", "does not parse: line 1"),
    "raises": ("x = 1\ny = x / 0\n", r"raised at line 2: y = x / 0: ZeroDivisionError"),
    "no study": ("x = 1\n", "must assign an evometa.Study to the name `study`"),
    "another study": ("study = 3\n", "has a int"),
    "no module": (SMALL.replace("return helper", "helper"), "build must return a torch.nn.Module"),
    "a baseline outside": (
        SMALL.replace('"width": 5', '"width": 50'), "width: must be an int from 2 to 9, got 50"
    ),
    "an unknown objective": (
        SMALL.replace('"params": "min"', '"speed": "min"'), "must be one of query_loss, params"
    ),
    "a wrong direction": (
        SMALL.replace('"params": "min"', '"params": "less"'), "must be 'min' or 'max', got 'less'"
    ),
    "wrong shapes": (
        SMALL.replace("helper_beside_the_study.make(genome[\"width\"])", "mlp(3, [4], 1)"),
        "does not run on inputs of shape (4, 1)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_study_file_is_named(study, tmp_path, name):
    text, message = BROKEN[name]
    study.unlink() if text is None else study.write_text(text)
    said = evometa("search", study, "--executor", "serial", folder=tmp_path, code=2)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--searcher", "evolutoin"], "did you mean 'evolution'"),
        (["--order", "sideways"], "must be 'logical' or 'arrival'"),
        (["--candidates", "0"], "equal to 1"),
        (["--data", "/nowhere"], "sine waves need no data"),
        (["--device", "gpu9"], "`device` must be 'auto', 'cpu', 'cuda', ..., got 'gpu9'"),
        (["--pack", "17"], "pack <= window"),
        (["--constraint", "size <= 3"], "the metric of a constraint must be one of query_loss"),
        (["--constraint", "params < 3"], "must read like 'params <= 50_000'"),
        (["--searcher", "cma-es"], "'cma-es' cannot handle this space: rule.order is a choice"),
        (["--hours", "0"], "`hours > 0` must hold"),
        (["--warm-start", "nowhere"], "there is none in nowhere"),
        (["--plan", "vmpa"], "plan"),
        (["--executor", "serail"], "must be 'ray' or 'serial'"),
        (["--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'"),
    ],
)
def test_an_option_that_cannot_work_is_named(study, tmp_path, options, message):
    said = evometa("search", study, *options, folder=tmp_path, code=2)
    assert message in said.replace(" │ ", " ")
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_another_study_in_the_folder_is_named(study, tmp_path):
    evometa("search", study, "-n", 2, "--executor", "serial", "--run", "r", folder=tmp_path)
    study.write_text(SMALL + "\n# changed\n")
    said = evometa("search", study, "--run", "r", folder=tmp_path, code=2)
    assert "holds a search of another study" in said
    kept = tmp_path / "r" / "study.py"
    kept.write_text(SMALL.replace("Int(2, 9)", "Int(2, 8)"))
    said = evometa("resume", "r", "--executor", "serial", folder=tmp_path, code=2)
    assert "these differ" in said and "space" in said


@pytest.mark.slow
def test_packs_are_resumed_and_extended(study, tmp_path):
    options = ("--executor", "serial", "--pack", 4, "--plan", "vmap")
    evometa("search", study, "-n", 15, *options, "--run", "whole", folder=tmp_path)
    evometa("search", study, "-n", 10, *options, "--run", "part", folder=tmp_path)
    kept = json.loads((tmp_path / "part" / "study.json").read_text())["settings"]
    assert kept["pack"] == 4 and set(kept["plans"].values()) == {"vmap"}
    evometa("resume", "part", "-n", 15, "--executor", "serial", folder=tmp_path)
    ours, theirs = rows(tmp_path / "part"), rows(tmp_path / "whole")
    assert [row["genome"] for row in ours] == [row["genome"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):  # the tenth was in a pack of two, or of four
        assert mine["status"] == other["status"]
        if mine["status"] == "OK":
            assert mine["query_loss"] == pytest.approx(other["query_loss"], rel=1e-4)


RUNGS = ("--rungs", 2, "--seeds", 2, "--constraint", "params <= 25")


def test_rungs_seeds_and_constraints(study, tmp_path):
    said = evometa("search", study, *VMAP, *RUNGS, "-n", 24, folder=tmp_path)
    run = tmp_path / "runs" / "small"
    table = read_table(run).to_pylist()
    assert {(row["rung"], row["repeat"]) for row in table} == {(0, 0), (1, 0), (1, 1)}
    assert len({row["number"] for row in table}) == 24
    assert all(row["params"] is None or row["params"] <= 25 for row in table)
    assert "the study asks for params <= 25" in said
    assert "seeds" in said and "predicts the next" in said
    best = json.loads(evometa("top", run, "--json", folder=tmp_path))
    assert {row["id"] for row in best} <= {row["candidate_id"] for row in table if row["rung"]}
    assert best[0]["seeds"] == 2
    summary = json.loads((run / "summary.json").read_text())
    assert [rung["rung"] for rung in summary["rungs"]] == [0]
    again = evometa("search", study, *VMAP, "--warm-start", run, "--run", "again", folder=tmp_path)
    assert "Earlier runs: the best 5 genomes come first" in again


def test_a_searcher_of_ones_own(study, tmp_path):
    own = """
from evometa.search import Proposal

class Widest:
    name = "widest"

    def __init__(self, space, objectives, seed):
        self.width = 9

    def propose(self, rng, asked):
        self.width -= 1
        return Proposal({"width": self.width + 1, "rule": preset("maml")}, operator="down")

    def observe(self, evaluation):
        pass

study = Study(
    space=space, build=build, task=study.task, training=study.training, searcher=Widest,
    candidates=12,
)
"""
    study.write_text(study.read_text() + own)
    said = evometa("search", study, *VMAP, folder=tmp_path)
    table = read_table(tmp_path / "runs" / "small").to_pylist()
    assert [row["gene.width"] for row in table[:8]] == [9, 8, 7, 6, 5, 4, 3, 2]
    assert {row["searcher"] for row in table} == {"widest"}
    assert [row["operator"] for row in table[8:]] == ["random"] * 4  # its later ones lie outside
    assert "'widest' proposes genomes outside the space" in said


def test_no_run_is_named(tmp_path):
    for command in (["top", "nowhere"], ["show", "nowhere", "c0"], ["resume", "nowhere"]):
        assert "there is none in nowhere" in evometa(*command, folder=tmp_path, code=2)


# The search waits when it has recorded so many rows; the writer writes them all the same.
WAITING = """
import time
from contextlib import contextmanager

@contextmanager
def waiting(run):
    left = {rows}

    def observe(evaluation):
        nonlocal left
        left -= 1
        while left <= 0:
            time.sleep(0.01)

    yield observe
"""


def kill_at(rows, *arguments, run, folder):
    """Start a command, and kill it as soon as it has recorded so many rows in this session."""
    (folder / "waits.py").write_text(WAITING.format(rows=rows))
    before = len(read_table(run)) if (run / "evaluations").is_dir() else 0
    command = Command(*arguments, "--observer", "waits.py:waiting", folder=folder)
    while not (run / "evaluations").is_dir() or len(read_table(run)) < before + rows:
        assert command.is_alive(), command.wait()
        time.sleep(0.05)
    command.signal(signal.SIGKILL)
    command.wait()


LONG = ("--iterations", 10, "-n", 60, "--executor", "serial", "--plan", "vmap")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.nightly)])
def test_killed_at_any_moment_then_resumed_equals_uninterrupted(study, tmp_path, kills):
    evometa("search", study, *LONG, "--run", "whole", folder=tmp_path)
    expected = rows(tmp_path / "whole")
    chance = random.Random(3)
    for attempt in range(kills):
        name = f"killed{attempt}"
        stop = chance.randint(1, 58)
        search = ("search", study, *LONG, "--run", name)
        kill_at(stop, *search, run=tmp_path / name, folder=tmp_path)
        before = read_table(tmp_path / name)
        assert stop <= len(before) < 60
        torn = tmp_path / name / "evaluations" / "part-000999.parquet"
        torn.write_bytes(b"")
        evometa("resume", name, "--executor", "serial", folder=tmp_path)
        assert rows(tmp_path / name) == expected
        assert (tmp_path / name / "set-aside" / torn.name).exists()
        kept = before["started_at"].to_pylist()
        assert read_table(tmp_path / name)["started_at"].to_pylist()[: len(kept)] == kept


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_with_rungs_then_resumed_equals_uninterrupted(study, tmp_path):
    options = (*LONG, *RUNGS, "--pack", 3)
    evometa("search", study, *options, "--run", "whole", folder=tmp_path)
    search = ("search", study, *options, "--run", "killed")
    kill_at(30, *search, run=tmp_path / "killed", folder=tmp_path)
    assert 30 <= len(read_table(tmp_path / "killed")) < len(rows(tmp_path / "whole"))
    evometa("resume", "killed", "--executor", "serial", folder=tmp_path)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_gives_the_same_table_killed_or_not(study, tmp_path):
    """Killed with two workers, it goes on with one, to the table of no Ray at all."""
    search = ("search", study, "-n", 24, *VMAP[2:])
    evometa(*search, *VMAP[:2], "--run", "whole", folder=tmp_path)
    kill_at(9, *search, "--workers", 2, "--run", "killed", run=tmp_path / "killed", folder=tmp_path)
    assert 0 < len(read_table(tmp_path / "killed")) < 24
    evometa("resume", "killed", "--workers", 1, folder=tmp_path)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_omniglot_is_searched(tmp_path, omniglot_folder):
    study = ROOT / "search_spaces" / "omniglot.py"
    options = ("-n", 3, "--iterations", 2, "--executor", "serial", "--run", "omniglot")
    said = evometa("search", study, *options, "--data", omniglot_folder, folder=tmp_path)
    assert "MAML conv4-32 c000000" in said and "accuracy" in said
    said = evometa("search", study, folder=tmp_path, code=2)
    assert "--download" in said and "--data DIR" in said
