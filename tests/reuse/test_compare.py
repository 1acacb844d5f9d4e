"""Given designs are trained by themselves, without a search, and told apart."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from evometa.cli import app
from evometa.errors import EvometaError, StoreError, StudyError
from evometa.launch import Settings, Workers, refuse_existing, resume
from evometa.report.confirmed import Confirmed, Estimate, compare, told_apart
from evometa.report.page import render
from evometa.reuse import compare as comparing
from evometa.reuse.compare import open_comparison
from evometa.reuse.trainings import Trainings
from evometa.store import read_confirmed
from evometa.study_file import load_study
from tests.reuse.conftest import WAVES, Nobody, make_run
from tests.reuse.test_confirm import Watching, plain_losses

SERIAL = Workers("serial")
DESIGNS = """{
    "narrow": {"width": 4},
    "broad": {"width": 16},
    "middle": {"width": 8},
}"""
THREE = WAVES.replace('{"narrow": {"width": 4}}', DESIGNS)
FEW = Trainings(seeds=2, episodes=6)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "three.py").write_text(THREE)
    return load_study(tmp_path / "three.py")


def begin(file, seed=0, **options):
    place = file.path.parent / "run"
    return open_comparison(file, place, Settings(1, seed), SERIAL, **options)


def train(run, *only, wanted=FEW, watching=None):
    return comparing.compare(run, only, wanted, SERIAL, lambda total, by: watching or Nobody())


def in_order(table):
    order = [("candidate_id", "ascending"), ("repeat", "ascending")]
    columns = ["name", "repeat", "seed", "iterations", "scores", "validation_scores", "pack"]
    return table.sort_by(order).select(columns)


def test_each_is_a_plain_training_tested_on_meta_test(file):
    run = begin(file)
    rows = train(run).to_pylist()
    assert sorted((row["name"], row["repeat"]) for row in rows) == [
        (name, repeat) for name in sorted(file.study.baselines) for repeat in (0, 1)
    ]
    assert len({row["seed"] for row in rows}) == 6
    for row in rows[1::3]:
        expected = plain_losses(run, json.loads(row["genome"]), row["seed"], 6)
        np.testing.assert_allclose(row["scores"], expected, rtol=1e-4)
        assert file.study.baselines[row["name"]] == json.loads(row["genome"])


@pytest.mark.parametrize("after", [1, 3, 4])
def test_stopped_anywhere_it_goes_on_to_the_same_table(file, after):
    whole = in_order(train(begin(file)))
    (file.path.parent / "run" / "confirm.parquet").unlink()
    first, second = Watching(stop_after=after), Watching()
    with pytest.raises(KeyboardInterrupt):
        train(begin(file), watching=first)
    assert in_order(train(begin(file), watching=second)).equals(whole)
    assert len(first.seen) + len(second.seen) == 6


def test_named_designs_come_alone_and_the_others_are_added(file):
    assert set(train(begin(file), "broad")["name"].to_pylist()) == {"broad"}
    second = Watching()
    assert len(train(begin(file), watching=second)) == 6 and len(second.seen) == 4
    third = Watching()
    assert len(train(begin(file), "broad", "narrow", watching=third)) == 4 and not third.seen
    assert len(read_confirmed(file.path.parent / "run")) == 6


def test_what_cannot_be_compared_is_named_before_anything_is_made(file, tmp_path):
    with pytest.raises(StudyError, match="no design 'MAML' among its baselines: 'narrow', 'bro"):
        begin(file, only=["MAML"])
    bare = replace(file, study=replace(file.study, baselines={}))
    with pytest.raises(StudyError, match=r"names no designs to compare; .*baselines=\{"):
        begin(bare)
    (tmp_path / "broken.py").write_text(THREE.replace('1, [genome["width"]], 1', "1, [], 2"))
    with pytest.raises(StudyError, match="baseline 'narrow' cannot work"):
        begin(load_study(tmp_path / "broken.py"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "of mine").touch()
    for make in (begin, lambda broken: refuse_existing(tmp_path / "run", broken)):
        with pytest.raises(StoreError, match="run exists"):
            make(load_study(tmp_path / "broken.py"))


def test_a_design_that_cannot_work_is_no_matter_where_others_are_asked_for(tmp_path):
    broken = '1 + (genome["width"] == 8)'
    (tmp_path / "three.py").write_text(THREE.replace('[genome["width"]], 1', f"[4], {broken}"))
    file = load_study(tmp_path / "three.py")
    run = begin(file, only=["narrow", "broad"])
    assert set(train(run, "narrow", "broad")["status"].to_pylist()) == {"OK"}


def test_a_folder_of_something_else_is_left_alone(file, tmp_path):
    run = begin(file)
    with pytest.raises(StoreError, match="--seed 0, not 1"):
        begin(file, seed=1)
    with pytest.raises(StoreError, match="--plan .*, not loop"):
        begin(file, plan="loop")
    with pytest.raises(StoreError, match=f"evometa compare {file.path} --run"):
        resume(run.place, SERIAL, lambda total, by: Nobody())
    with pytest.raises(StoreError, match="a comparison of this study; go on with it: evometa comp"):
        refuse_existing(run.place, file)
    file.path.write_text(THREE.replace('"width": 8', '"width": 9'))
    with pytest.raises(StoreError, match="holds a comparison of another study"):
        begin(load_study(file.path))
    searched = make_run(tmp_path / "search", THREE, 3)
    other = load_study(tmp_path / "search" / "study_file.py")
    with pytest.raises(StoreError, match="holds a search of this study.*evometa confirm"):
        open_comparison(other, searched, Settings(1), SERIAL)


def test_a_changed_number_of_iterations_is_not_mixed(file):
    train(begin(file))
    with pytest.raises(StoreError, match="6 meta-iterations and 6 episodes, not of 9 and 6"):
        train(begin(file), wanted=replace(FEW, iterations=9))
    again = replace(FEW, iterations=9, again=True)
    assert set(train(begin(file), wanted=again)["iterations"].to_pylist()) == {9}


def evometa(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, EvometaError):
        assert code == 2, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.stdout


def test_the_command_prints_the_table_says_what_differs_and_writes_the_report(file, tmp_path):
    options = ("--run", tmp_path / "r", "--seeds", 2, "--episodes", 5, "--executor", "serial")
    said = evometa("compare", file.path, *options, "--only", "narrow", "--only", "broad")
    assert "narrow c000000" in said and "middle" not in said and "Pair by pair, at 95 %" in said
    page = (tmp_path / "r" / "report.html").read_text()
    assert "nothing was searched" in page and "Pair by pair, at 95 %" in page
    assert "What won" not in page
    found = json.loads(evometa("compare", file.path, *options, "--json"))
    assert [each["name"] for each in found["found"]] != [] and found["failed"] == []
    assert {each["name"] for each in found["found"]} == {"narrow", "broad", "middle"}
    assert found["metric"] == "query_loss" and found["direction"] == "min"
    assert "compares given designs" in evometa("top", tmp_path / "r")
    assert "no design 'x'" in evometa("compare", file.path, *options, "--only", "x", code=2)


def test_a_run_in_which_baselines_alone_have_succeeded_is_confirmed(tmp_path):
    broken = 'mlp(1, [genome["width"]], 1 + (genome["width"] not in (4, 8, 16)))'
    run = make_run(tmp_path, THREE.replace('mlp(1, [genome["width"]], 1)', broken), 4)
    options = ("--seeds", 2, "--episodes", 4, "--executor", "serial")
    said = evometa("confirm", run, *options)
    assert "narrow c000000" in said and "Pair by pair, at 95 %" in said
    found = json.loads(evometa("confirm", run, *options, "--json"))
    assert {each["name"] for each in found["found"]} == {"narrow", "broad", "middle"}


def made(name, seeds=2, **gains):
    value = Estimate(0.0, 1.0)
    named = {other: Estimate(mean, 1.0, seeds > 1) for other, mean in gains.items()}
    return Confirmed(name, name, {}, seeds, 0, value, value, None, named, {}, ())


def test_the_sentence_says_who_can_be_told_from_whom(file):
    table = read_confirmed(begin(file).place) or train(begin(file)).slice(0, 0)
    one = made("a", b=2.0, c=0.5, d=-1.5)
    two, three, four = made("b", c=1.01, d=1.0), made("c", d=9.0), made("d")
    said = told_apart([one, two, three, four], table)
    assert "a is better than b and cannot be told from c and is worse than d; " in said
    assert "b is better than c and cannot be told from d; c is better than d; of 6 pairs" in said
    single = told_apart([made("a", 1, b=5.0), made("b", 1)], table)
    assert "a cannot be told from b; a single seed says nothing" in single
    assert told_apart([made("a")], table) == "Pair by pair, at 95 %: a stands alone."


def test_a_design_whose_trainings_failed_is_in_the_sentence(file):
    run = begin(file)
    study = run.file.study

    def build(genome):
        module = study.build(genome)
        if genome["width"] == 8:
            next(module.parameters()).data.fill_(float("1e30"))
        return module

    broken = replace(run, file=replace(run.file, study=replace(study, build=build)))
    table = train(broken)
    found = compare(table, run.kept)
    assert {each.name for each in found} == {"narrow", "broad"}
    assert "no training of middle has succeeded" in told_apart(found, table)
    assert "no training of middle has succeeded" in render(
        "r", run.kept, run.table, confirmed=table
    )


def test_differences_are_those_of_the_scores(file):
    found = compare(train(begin(file)), begin(file).kept)
    tests = {each.name: each.test.mean for each in found}
    for each in found:
        for name, gain in each.gains.items():  # the loss is minimised
            np.testing.assert_allclose(gain.mean, tests[name] - tests[each.name], rtol=1e-6)
