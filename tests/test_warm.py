"""Beginning with what earlier runs have found."""

import json
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from evometa import Study, Training, launch
from evometa import space as s
from evometa.errors import StoreError
from evometa.network import mlp
from evometa.store import evaluations, read_table
from evometa.study import load_study
from evometa.task import Sinusoid
from evometa.warm import SEEDS, read_earlier

FILE = """
from evometa import Study, Training
from evometa import space as s
from evometa.network import mlp
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int({low}, {high})),
    build=lambda genome: mlp(1, [genome["width"]], 1),
    task=Sinusoid(shots=5, queries=5, eval_queries=10),
    objectives={objectives},
    training=Training(iterations={iterations}, tasks=2, validation=5),
)
"""


def write(path, low=1, high=40, iterations=2, objectives='{"query_loss": "min"}'):
    path.write_text(FILE.format(low=low, high=high, iterations=iterations, objectives=objectives))
    return load_study(path)


class Nobody:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def recorded(self, evaluation):
        pass

    found = recorded

    def tick(self):
        pass


def run_of(tmp_path, file, name, earlier=None, n=12):
    settings = launch.Settings(candidates=n)
    workers = launch.Workers("serial")
    run = tmp_path / name
    launch.start(file, run, settings, workers, lambda total, w: Nobody(), earlier)
    return run


def described(file):
    return launch.describe(file, launch.Settings(candidates=1))


def test_the_best_come_first_and_the_others_are_learned_from(tmp_path):
    file = write(tmp_path / "a.py")
    first = run_of(tmp_path, file, "first")
    earlier = read_earlier([first], file.study, described(file))
    assert (len(earlier.seeds), len(earlier.results), earlier.skipped) == (SEEDS, 12, 0)
    second = run_of(tmp_path, file, "second", earlier)
    old = sorted(evaluations(read_table(first)), key=lambda e: e.metrics["query_loss"])
    new = list(evaluations(read_table(second)))
    assert [e.candidate.genome for e in new[:SEEDS]] == [e.candidate.genome for e in old[:SEEDS]]
    assert new[0].candidate.operator == "earlier"
    assert new[0].candidate.name == f"{first}/{old[0].candidate.id}"
    assert all(e.candidate.operator != "random" for e in new[SEEDS : SEEDS + 2])


def test_a_resumed_search_still_knows_what_it_began_with(tmp_path):
    file = write(tmp_path / "a.py")
    first = run_of(tmp_path, file, "first")
    earlier = read_earlier([first], file.study, described(file))
    whole = run_of(tmp_path, file, "whole", earlier, n=14)
    part = run_of(tmp_path, file, "part", earlier, n=8)
    workers = launch.Workers("serial")
    launch.resume(part, workers, lambda total, w: Nobody(), candidates=14)
    genomes = [read_table(run)["genome"].to_pylist() for run in (whole, part)]
    assert genomes[0] == genomes[1]
    kept = json.loads((part / "study.json").read_text())["earlier"]
    assert len(kept["seeds"]) == SEEDS


def test_genomes_that_no_longer_fit_are_skipped_and_counted(tmp_path):
    first = run_of(tmp_path, write(tmp_path / "a.py"), "first")
    file = write(tmp_path / "b.py", low=20, high=60)
    earlier = read_earlier([first], file.study, described(file))
    widths = [e.candidate.genome["width"] for e in evaluations(read_table(first))]
    assert earlier.skipped == sum(width < 20 for width in widths)
    assert all(genome["width"] >= 20 for genome in earlier.seeds.values())


def test_results_of_other_trainings_are_not_compared(tmp_path):
    first = run_of(tmp_path, write(tmp_path / "a.py"), "first")
    file = write(tmp_path / "b.py", iterations=3)
    earlier = read_earlier([first], file.study, described(file))
    assert earlier.seeds
    assert earlier.results == []


def test_what_is_no_run_is_refused(tmp_path):
    study = Study(
        s.Struct(width=s.Int(1, 4)),
        lambda g: mlp(1, [4], 1),
        Sinusoid(),
        training=Training(iterations=1),
    )
    with pytest.raises(StoreError, match=r"holds a study\.json"):
        read_earlier([tmp_path], study, dict.fromkeys(("task", "training", "objectives")))


def test_equal_names_of_runs_hide_nothing(tmp_path):
    runs = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        file = write(tmp_path / place / "a.py", low=1 if place == "here" else 30)
        runs.append(run_of(tmp_path / place, file, "run", n=4))
    file = write(tmp_path / "a.py")
    assert len(read_earlier(runs, file.study, described(file)).seeds) == 8


def test_what_breaks_the_new_constraints_is_not_begun_with(tmp_path):
    file = write(tmp_path / "a.py")
    first = run_of(tmp_path, file, "first")
    strict = replace(file.study, constraints=["params <= 61"])  # widths up to 20
    earlier = read_earlier([first], strict, described(file))
    assert earlier.seeds
    genomes = [*earlier.seeds.values(), *(kept["genome"] for kept in earlier.results)]
    assert all(genome["width"] <= 20 for genome in genomes)


def test_only_results_of_the_full_rung_are_learned_from_and_as_such(tmp_path):
    file = write(tmp_path / "a.py", iterations=9)
    settings = launch.Settings(candidates=9, rungs=2)
    rungs = launch.adjusted(file, settings, {})
    workers, run = launch.Workers("serial"), tmp_path / "rungs"
    launch.start(rungs, run, settings, workers, lambda total, w: Nobody())
    earlier = read_earlier([run], file.study, described(rungs))
    full = [row for row in evaluations(read_table(run)) if row.candidate.rung == 1]
    assert 0 < len(earlier.results) == len(full) < 9
    assert {each.candidate.rung for each in earlier.evaluations(1)} == {1}
    assert {each.candidate.number < 0 for each in earlier.evaluations(1)} == {True}

    kept = read_table(run)
    short = kept.filter(pc.equal(kept["rung"], 0))  # nobody got there
    for part in (run / "evaluations").iterdir():
        part.unlink()
    pq.write_table(short, run / "evaluations" / "part-000000.parquet")
    earlier = read_earlier([run], file.study, described(rungs))
    assert earlier.seeds
    assert earlier.results == []
