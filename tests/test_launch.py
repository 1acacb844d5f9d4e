"""What is tried before a search begins."""

import json
from dataclasses import replace

import pytest

from evometa.budget import Budget
from evometa.errors import StudyError
from evometa.launch import Settings, Workers, adjusted, preflight, resume, start
from evometa.store import TIME_AND_PLACE, read_table
from evometa.study import load_study
from evometa.warm import Earlier
from tests.test_warm import Nobody

FILE = """
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.network import mlp
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(1, 8)),
    build=lambda genome: mlp({inputs}, [genome["width"]], 1),
    task=Sinusoid(shots=5, queries=5, eval_queries=10),
    objectives={{"query_loss": "min"}},
    constraints=["params <= 16"],
    baselines={{"large": {{"width": 8}}, "small": {{"width": 2}}}},
    training=Training(iterations=2, tasks=2, validation=5),
)
"""


def load(folder, inputs=1):
    (folder / "study.py").write_text(FILE.format(inputs=inputs))
    return load_study(folder / "study.py")


def test_a_baseline_beyond_the_constraints_is_recorded_and_stops_nothing(tmp_path):
    file = load(tmp_path)
    assert preflight(file, 0)[0].cost.params == 3 * 2 + 1  # the small one, width 2
    settings = Settings(candidates=3)
    start(file, tmp_path / "run", settings, Workers("serial"), lambda total, workers: Nobody())
    first, second, _ = read_table(tmp_path / "run").sort_by("number").to_pylist()
    assert (json.loads(first["genome"]), first["status"]) == ({"width": 8}, "INVALID")
    assert "params is 25, but the study asks for params <= 16" in first["error"]
    assert (second["operator"], second["status"]) == ("baseline", "OK")


def test_a_baseline_that_cannot_work_stops_the_search(tmp_path):
    with pytest.raises(StudyError, match="baseline 'large' cannot work"):
        preflight(load(tmp_path, inputs=3), 0)


def test_who_breaks_a_constraint_does_not_renew_the_patience(tmp_path):
    file = load(tmp_path)
    file = replace(file, study=replace(file.study, constraints=["query_loss <= 0"], baselines={}))
    settings = Settings(candidates=50, budget=Budget(patience=3), window=1)
    table = start(
        file, tmp_path / "run", settings, Workers("serial"), lambda total, workers: Nobody()
    )
    assert len(table) == 3


def test_a_searcher_hears_what_the_scores_are_and_at_which_rung_others_were(tmp_path, monkeypatch):
    heard = []

    def hear(*made):
        heard.append(made[-1])
        raise StudyError("that is enough")

    monkeypatch.setattr("evometa.launch.driver.make_searcher", hear)
    study = replace(load(tmp_path).study, objectives={"params": "min", "query_loss": "min"})
    file = adjusted(replace(load(tmp_path), study=study), Settings(1, rungs=3), {})
    earlier = Earlier(results=[{"genome": {"width": 2}, "metrics": {}}])
    with pytest.raises(StudyError, match="enough"):
        start(file, tmp_path / "run", Settings(1), Workers("serial"), lambda *_: Nobody(), earlier)
    (wishes,) = heard
    assert not wishes.scored
    assert [each.candidate.rung for each in wishes.earlier] == [2]


def test_settings_add_to_the_study(tmp_path):
    settings = Settings(1, rungs=3, seeds=2, look_ahead=True, constraints=["macs <= 99"])
    study = adjusted(load(tmp_path), settings, {"iterations": 90}).study
    assert [level.iterations for level in study.levels] == [0, 10, 30, 90]
    assert [str(limit) for limit in study.limits] == ["params <= 16", "macs <= 99"]


def test_a_search_that_ended_by_its_budget_goes_on_with_another(tmp_path):
    """Its table is then that of a search which had the larger budget from the beginning."""
    text = FILE.format(inputs=1).replace('    constraints=["params <= 16"],\n', "")
    (tmp_path / "study.py").write_text(text)
    file, quiet = load_study(tmp_path / "study.py"), lambda *_: Nobody()
    for name, patience in (("short", 1), ("long", 4)):
        settings = Settings(candidates=6, budget=Budget(patience=patience), window=1)
        start(file, tmp_path / name, settings, Workers("serial"), quiet)
    before = read_table(tmp_path / "short")
    resume(tmp_path / "short", Workers("serial"), quiet, budget=Budget(patience=4))
    short, long = (
        read_table(tmp_path / name).drop_columns([*TIME_AND_PLACE]) for name in ("short", "long")
    )
    assert len(before) < len(long)
    assert short.to_pylist() == long.to_pylist()
