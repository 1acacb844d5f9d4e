"""What other tools read back."""

import csv
import json
import struct

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tensorboardX.proto.event_pb2 import Event

from evometa.errors import EvometaError
from evometa.report.convert import WRITERS, write
from tests.report.tables import HOSTILE, KINDS, hostile, ordinary, rungs


def converted(kind, run, folder):
    write(kind, folder / kind, "name", run.study, run.table)
    return folder / kind


def read_optuna(file):
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.load_study(study_name="name", storage=storage)


def scalars(folder):
    """Return tag to (step, value), of all event files of one folder."""
    found = {}
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("run", [*KINDS])
def test_every_run_is_written(kind, run, tmp_path):
    assert converted(kind, KINDS[run](), tmp_path).exists()


def test_optuna_has_values_parameters_attributes_and_curves(tmp_path):
    run = ordinary()
    study = read_optuna(converted("optuna", run, tmp_path))
    rows = run.table.to_pylist()
    assert len(study.trials) == len(rows)
    assert [d.name for d in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert study.metric_names == ["query_loss", "params"]
    for trial, row in zip(study.trials, rows, strict=True):
        assert trial.user_attrs["candidate"] == row["candidate_id"]
        assert trial.user_attrs["operator"] == row["operator"]
        assert trial.params["rule.rate"] == row["gene.rule.rate"]
        assert trial.params["hidden[0]"] == json.loads(row["genome"])["hidden"][0]
        curve = {point["iteration"]: point["loss"] for point in row["curve"]}
        assert trial.intermediate_values == curve
        if row["status"] == "OK":
            assert trial.values == [row["query_loss"], row["params"]]
        else:
            assert trial.state.name == "FAIL" and trial.values is None


def test_optuna_goes_on_with_the_study(tmp_path):
    study = read_optuna(converted("optuna", ordinary(objectives=1), tmp_path))
    assert study.best_value == min(t.values[0] for t in study.trials if t.values)
    assert optuna.importance.get_param_importances(study)


def test_a_candidate_is_one_trial_with_its_highest_rung(tmp_path):
    run = rungs()
    study = read_optuna(converted("optuna", run, tmp_path))
    assert len(study.trials) == 60
    assert {trial.user_attrs["rung"] for trial in study.trials} == {0, 1}


def test_tensorboard_has_objectives_the_best_so_far_and_curves(tmp_path):
    run = ordinary()
    folder = converted("tensorboard", run, tmp_path)
    rows = [row for row in run.table.to_pylist() if row["status"] == "OK"]
    found = scalars(folder)
    assert found["objective/query_loss"] == [
        (row["number"], pytest.approx(row["query_loss"], rel=1e-6)) for row in rows
    ]
    best = [value for _, value in found["best/query_loss"]]
    assert best == sorted(best, reverse=True)
    assert best[-1] == pytest.approx(min(row["query_loss"] for row in rows))
    curves = [scalars(path)["meta_train_loss"] for path in folder.iterdir() if path.is_dir()]
    assert len(curves) >= 10 and curves[0] == [(100, 2.0), (300, 1.0)]


@pytest.mark.parametrize("make", [ordinary, hostile, rungs])
def test_csv_and_json_hold_every_row(make, tmp_path):
    run = make()
    rows = run.table.to_pylist()
    with converted("csv", run, tmp_path).open(newline="") as file:
        lines = list(csv.DictReader(file))
    document = json.loads(converted("json", run, tmp_path).read_text())
    assert document["study"]["objectives"] == run.study["objectives"]
    assert len(lines) == len(document["evaluations"]) == len(rows)
    for row, line, record in zip(rows, lines, document["evaluations"], strict=True):
        assert list(line) == list(record) == list(row)
        assert line["operator"] == record["operator"] == row["operator"]
        assert json.loads(line["scores"]) == record["scores"] == row["scores"]
        assert json.loads(line["genome"]) == record["genome"] == json.loads(row["genome"])
        assert record["query_loss"] == row["query_loss"]
        assert line["error"] == row["error"]


def test_what_json_cannot_hold_is_null(tmp_path):
    run = ordinary(2)
    place = run.table.schema.get_field_index("scores")
    run.table = run.table.set_column(place, "scores", [[[float("nan"), 1.0], [float("inf")]]])
    record, other = json.loads(converted("json", run, tmp_path).read_text())["evaluations"]
    assert record["scores"] == [None, 1.0] and other["scores"] == [None]


def test_unknown_kinds_and_files_that_exist_are_refused(tmp_path):
    run = ordinary(1)
    with pytest.raises(EvometaError, match="must be one of optuna, tensorboard, csv, json, got"):
        write("xls", tmp_path / "x", "name", run.study, run.table)
    (tmp_path / "csv").write_text("mine")
    with pytest.raises(EvometaError, match="must not exist"):
        converted("csv", run, tmp_path)
    assert (tmp_path / "csv").read_text() == "mine"


def test_hostile_texts_are_values(tmp_path):
    converted("tensorboard", hostile(), tmp_path)
    assert {path.name[0] for path in (tmp_path / "tensorboard").iterdir()} == {"c", "e"}
    study = read_optuna(converted("optuna", hostile(), tmp_path))
    assert study.trials[3].params[HOSTILE].startswith(HOSTILE)
