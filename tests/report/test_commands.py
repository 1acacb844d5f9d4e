"""`report` and `convert` on the command line, and a report that follows a search."""

import json
import threading
import time

import pytest
from typer.testing import CliRunner

from evometa.cli import app, runs
from evometa.store import RunDirectory, load
from tests import commands
from tests.report.tables import KINDS, changed, hostile, ordinary, write


def evometa(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize("kind", [*KINDS])
def test_every_run_is_reported(kind, tmp_path):
    run = write(tmp_path / "run", KINDS[kind]())
    assert "report.html" in evometa("report", run)
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    evometa("report", run, "--out", tmp_path / "other.html")
    assert (tmp_path / "other.html").exists()


@pytest.mark.parametrize("kind", ["optuna", "tensorboard", "csv", "json"])
def test_a_run_with_torn_parts_is_converted(kind, tmp_path):
    run = write(tmp_path / "run", ordinary())
    (run / "evaluations" / "part-000001.parquet").write_bytes(b"PAR1 torn")
    evometa("convert", run, tmp_path / "out", "--to", kind)
    assert (tmp_path / "out").exists()


def test_torn_parts_do_not_keep_a_report_from_being_written(tmp_path):
    run = write(tmp_path / "run", ordinary())
    (run / "evaluations" / "part-000001.parquet").write_bytes(b"PAR1 torn")
    evometa("report", run)
    assert "60 candidates" in (run / "report.html").read_text()


def test_a_ranking_of_equal_scores_is_said(tmp_path):
    run = ordinary()
    said = "candidates have the same query_loss, so their order says nothing"
    assert said not in " ".join(evometa("top", write(tmp_path / "one", run)).split())
    run.table = changed(run.table, query_loss=[1.5] * len(run.table))
    assert said in " ".join(evometa("top", write(tmp_path / "two", run)).split())
    json.loads(evometa("top", tmp_path / "two", "--json"))


def test_what_is_no_run_is_named(tmp_path):
    for arguments in (["report", tmp_path], ["convert", tmp_path, tmp_path / "x", "--to", "csv"]):
        said = commands.evometa(*arguments, folder=tmp_path, code=2)
        assert "study.json" in said and "Traceback" not in said


def test_nothing_of_the_run_is_executed(tmp_path):
    run = write(tmp_path / "run", hostile())  # its study.py would end the process
    evometa("report", run)
    evometa("convert", run, tmp_path / "out.json", "--to", "json")
    evometa("top", run)
    evometa("top", run, "--operators")
    for id_ in load(run)["candidate_id"].to_pylist()[:3]:
        evometa("show", run, id_)


def test_a_live_report_follows_the_search_and_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LIVE_SECONDS", 0.05)
    run = write(tmp_path / "run", ordinary(4))
    file = run / "report.html"
    with RunDirectory.open(run):
        watcher = threading.Thread(target=runs.report, args=(run, None, True))
        watcher.start()
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 'http-equiv="refresh"' in file.read_text()
    watcher.join(20)
    assert not watcher.is_alive()
    assert 'http-equiv="refresh"' not in file.read_text()


def test_a_live_report_of_a_finished_run_is_written_once(tmp_path):
    run = write(tmp_path / "run", ordinary(4))
    evometa("report", run, "--live")
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return write(tmp_path_factory.mktemp("large") / "run", ordinary(100_000))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["report", "optuna", "tensorboard", "csv", "json"])
def test_a_hundred_thousand_rows_are_no_trouble(kind, large, tmp_path):
    if kind == "report":
        evometa("report", large, "--out", tmp_path / "out")
        assert (tmp_path / "out").stat().st_size < 2e7
    else:
        evometa("convert", large, tmp_path / "out", "--to", kind)
        assert (tmp_path / "out").exists()
