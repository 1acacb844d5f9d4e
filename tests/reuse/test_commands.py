"""confirm, rerun and export on the command line, on every kind of run."""

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from evometa.cli import app
from evometa.errors import EvometaError
from evometa.store import RunDirectory
from tests.reuse.conftest import WAVES, make_run


def evometa(*arguments, code=0):
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    if isinstance(result.exception, EvometaError):
        assert code == 2, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


CONFIRM = ("--top", 1, "--seeds", 2, "--episodes", 4, "--executor", "serial")


def test_a_result_is_confirmed_repeated_and_taken_away(waves, tmp_path):
    run = waves.place
    said = evometa("confirm", run, *CONFIRM)
    assert f"This runs the study file that {run} keeps" in said
    assert "narrow c000000" in said and " over narrow" in said
    evometa("report", run)
    assert "on meta-test" in (run / "report.html").read_text()
    assert "c000002: equal" in evometa("rerun", run, "c000002")
    said = evometa("export", run, "c000001", tmp_path / "out")
    assert said.startswith("This runs the study file") and "example.py" in said
    facts = json.loads((tmp_path / "out" / "learner.json").read_text())
    assert facts["outputs"] == 1 and facts["classes"] is None


def test_they_may_look_while_the_search_runs(waves, tmp_path):
    with RunDirectory.open(waves.place):
        evometa("confirm", waves.place, *CONFIRM)
        evometa("rerun", waves.place, "c000001")
        evometa("export", waves.place, "c000001", tmp_path / "out")


def test_a_torn_part_is_left_out(waves, tmp_path):
    (waves.place / "evaluations" / "part-999999.parquet").write_bytes(b"PAR1 torn")
    evometa("confirm", waves.place, *CONFIRM)
    evometa("rerun", waves.place, "c000001")


def test_an_empty_run_says_so(tmp_path):
    run = make_run(tmp_path, WAVES, 3)
    for part in (run / "evaluations").iterdir():
        part.unlink()
    assert "nothing to confirm" in evometa("confirm", run, *CONFIRM, code=2)
    for command in (["rerun", run, "c000000"], ["export", run, "c000000", tmp_path / "x"]):
        assert "no candidate 'c000000'" in evometa(*command, code=2)


def test_a_run_of_failures_says_so(tmp_path):
    broken = WAVES.replace(
        'mlp(1, [genome["width"]], 1)', 'mlp(1, [genome["width"]], 1 + (genome["width"] > 4))'
    )
    run = make_run(tmp_path, broken, 4)
    assert "narrow c000000" in evometa("confirm", run, *CONFIRM)  # the baseline alone
    assert "c000001: equal" in evometa("rerun", run, "c000001")
    assert "cannot" in evometa("export", run, "c000001", tmp_path / "x", code=2)


@pytest.mark.parametrize("command", ["confirm", "rerun", "export"])
def test_what_is_no_run_is_named(command, tmp_path):
    arguments = {"confirm": [], "rerun": ["c000000"], "export": ["c000000", tmp_path / "x"]}
    assert "study.json" in evometa(command, tmp_path, *arguments[command], code=2)


def test_a_study_whose_folder_is_gone_goes_on(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "beside_it.py").write_text("WIDTH = 16\n")
    source = WAVES.replace("study = Study(", "from beside_it import WIDTH\n\nstudy = Study(")
    run = make_run(tmp_path / "old", source, 3).rename(tmp_path / "run")
    shutil.rmtree(tmp_path / "old")
    assert "beside_it" not in sys.modules
    assert "equal" in evometa("rerun", run, "c000001")


def test_a_torn_confirmation_does_not_keep_the_report_away(waves, tmp_path):
    (waves.place / "confirm.parquet").write_bytes(b"PAR1 torn")
    assert "cannot be read" in evometa("report", waves.place)
    assert (waves.place / "report.html").exists()
    said = evometa("export", waves.place, "c000001", tmp_path / "out", code=2)
    assert "confirm again" in said and not (tmp_path / "out").exists()


def test_a_changed_study_file_is_refused(waves):
    file = waves.place / "study.py"
    file.write_text(file.read_text().replace("s.Int(4, 16)", "s.Int(4, 17)"))
    assert "only with the study it was started with" in evometa(
        "rerun", waves.place, "c000001", code=2
    )
