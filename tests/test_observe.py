"""People's own observers are told, and never in the way."""

import logging
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from evometa.errors import StudyError
from evometa.observe import Observers, find_observer
from evometa.records import Candidate, Evaluation, Status
from tests.driven import STUDY, Driven, begun, rows, run

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
(EXAMPLES,) = re.findall(r"```python\n([^`]*?def tensorboard.*?)```", README, re.DOTALL)


class Shown:
    def __init__(self):
        self.recorded_, self.found_, self.ticks = [], [], 0

    def recorded(self, evaluation):
        self.recorded_.append(evaluation)

    def found(self, evaluation):
        self.found_.append(evaluation)

    def tick(self):
        self.ticks += 1


RESULTS = [Evaluation(Candidate(number, {"x": number}, 0), Status.OK) for number in range(4)]


class Own:
    """An observer that raises when it is told of some evaluation, or at one of its ends."""

    def __init__(self, raises=()):
        self.raises, self.seen, self.ends = raises, [], []

    def __call__(self, run):
        self.run = run
        return self.context()

    @contextmanager
    def context(self):
        if "begin" in self.raises:
            raise OSError("no connection")
        try:
            yield self.observe
        except BaseException as error:
            self.ends.append(type(error))
            raise
        else:
            self.ends.append(None)
        if "end" in self.raises:
            raise OSError("no connection")

    def observe(self, evaluation):
        self.seen.append(evaluation)
        if evaluation.candidate.number in self.raises:
            raise ValueError("a bug")


def watch(*makers, until=None):
    shown = Shown()
    with Observers(shown, makers, "runs/a") as observers:
        observers.found(RESULTS[0])
        for result in RESULTS[1:]:
            observers.recorded(result)
            observers.tick()
        if until:
            raise until
    assert shown.found_ == RESULTS[:1] and shown.recorded_ == RESULTS[1:] and shown.ticks == 3


def test_each_new_evaluation_is_told_once():
    one, other = Own(), Own()
    watch(one, other)
    assert one.seen == other.seen == RESULTS[1:]
    assert one.run == "runs/a" and one.ends == [None]


@pytest.mark.parametrize(
    ("raises", "seen"), [(("begin",), 0), ((1,), 1), ((2,), 2), ((1, 2, 3), 1), (("end",), 3)]
)
def test_one_that_raises_is_reported_once_and_dropped(raises, seen, caplog):
    bad, good = Own(raises), Own()
    with caplog.at_level(logging.WARNING):
        watch(bad, good)
    assert len(bad.seen) == seen and good.seen == RESULTS[1:]
    assert len(bad.ends) == ("begin" not in raises), "it is left once, if it was entered"
    (record,) = caplog.records
    assert "is told no more" in record.message and record.exc_info


def test_what_ends_the_search_is_told_and_goes_on(caplog):
    for error in (KeyboardInterrupt(), StudyError("the search is over")):
        own = Own()
        with pytest.raises(type(error)):
            watch(own, until=error)
        assert own.ends == [type(error)]
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorboard", "must read like FILE.py:NAME"),
        ("nowhere.py:f", "cannot be loaded.*nowhere.py"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("math:pi", "has no 'pi'|made by a function"),
        ("math:tensorboard", "math has no 'tensorboard'"),
    ],
)
def test_a_name_that_cannot_work_is_said(name, said):
    with pytest.raises(StudyError, match=said):
        find_observer(name)


MLFLOW = """
from contextlib import contextmanager

CALLS = open("calls", "a", buffering=1)

@contextmanager
def start_run(run_id=None, experiment_id=None, run_name=None, nested=False):
    print("begin", run_name, nested, file=CALLS)
    yield
    print("end", run_name, file=CALLS)

def set_tag(key, value, synchronous=None):
    print("tag", key, value, file=CALLS)

def log_params(params, synchronous=None, run_id=None):
    print("params", *sorted(params), file=CALLS)

def log_metrics(metrics, step=None, synchronous=None, run_id=None):
    print("metrics", *sorted(metrics), file=CALLS)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_examples_of_the_readme_in_a_real_search(tmp_path):
    """MLflow is not there: a module with the calls that the example makes stands in for it."""
    stand_in = (
        "import sys, types\nmlflow = types.ModuleType('mlflow')\nexec(MLFLOW, vars(mlflow))\n"
    )
    stand_in = stand_in.replace("MLFLOW", repr(MLFLOW)) + "sys.modules['mlflow'] = mlflow\n"
    (tmp_path / "mine.py").write_text(stand_in + EXAMPLES)
    (tmp_path / "bad.py").write_text("def raising(run):\n    return 1 / 0\n")
    (tmp_path / "study.py").write_text(STUDY)
    common = ("--executor", "serial", "--observer")
    short = ("-n", 6, "--plan", "vmap", *common, "mine.py:tensorboard")
    search = ("search", "study.py", *short, "--run")
    said = run(
        tmp_path, *search, "a", "--observer", "mine.py:to_mlflow", "--observer", "bad.py:raising"
    )
    assert said.count("The observer raising raised, and is told no more") == 1
    assert "ZeroDivisionError" in said
    (events,) = (tmp_path / "a/tensorboard").iterdir()
    assert b"query_loss" in events.read_bytes() and b"params" in events.read_bytes()
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "begin a False" and calls[-1] == "end a"
    assert [line for line in calls if line.startswith("end c")] == [
        f"end c00000{n}" for n in range(6)
    ]
    assert calls.count("params rule width") == 6 and "tag status OK" in calls
    assert any(line.startswith("metrics") and "query_loss" in line for line in calls)

    driven = Driven(tmp_path, "resume", "a", "-n", 8, *common, "mine.py:to_mlflow")
    assert driven.ends(60) and driven.process.exitcode == 0, driven.said
    added = (tmp_path / "calls").read_text().splitlines()[len(calls) :]
    assert [line for line in added if line.startswith("end c")] == ["end c000006", "end c000007"]
    run(tmp_path, "search", "study.py", "-n", 8, "--plan", "vmap", *common[:2], "--run", "b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b") and len(begun(tmp_path / "b")) == 8
