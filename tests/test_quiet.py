"""What candidates print is kept only where asked, and nothing is sent to anyone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evometa
from tests.driven import STUDY, run

ROOT = Path(evometa.__file__).parent

LOUD = """
import logging, os, sys

def build(genome):
    print("printed in", os.getpid())
    print("complained in", os.getpid(), file=sys.stderr)
    logging.getLogger("mine").info("logged in %d", os.getpid())
    print("statistics", os.environ.get("RAY_USAGE_STATS_ENABLED"))
    return mlp(1, [genome["width"]], 1)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_has_one_log_where_asked_and_sends_no_statistics(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    study = STUDY.replace("study = ", LOUD + "\nstudy = ")
    study = re.sub("build=lambda.*", "build=build,", study)
    (tmp_path / "study.py").write_text(study)
    logged = ("--plan", "vmap", "--workers", 2, "--worker-logs")
    said = run(tmp_path, "search", "study.py", "-n", 8, "--run", "run", *logged)
    logs = {path.stem.rpartition("-")[2]: path for path in (tmp_path / "run/logs").iterdir()}
    assert 1 <= len(logs) <= 2
    for process, path in logs.items():
        text = path.read_text()
        for word in ("printed", "complained", "INFO mine: logged"):
            assert f"{word} in {process}" in text
        assert "statistics 0" in text and not re.search("statistics [^0]", text)
        assert f"in {process}" not in said


def test_ray_is_started_in_one_place():
    starts = [path for path in ROOT.rglob("*.py") if re.search(r"ray\.init\(", path.read_text())]
    assert [path.name for path in starts] == ["ray_pool.py"]


@pytest.mark.parametrize("asked", ["", "1"])
def test_a_tuner_sends_no_statistics_unless_asked(asked):
    code = (
        "import evometa.tune\n"
        "from ray._common.usage.usage_lib import usage_stats_enabled\n"
        "print(usage_stats_enabled())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_USAGE_STATS_ENABLED"}
    environment |= {"RAY_USAGE_STATS_ENABLED": asked} if asked else {}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout.split()[-1] == str(bool(asked)), result.stderr


def test_worker_logs_are_files(tmp_path):
    from typer.testing import CliRunner

    from evometa.cli import app

    (tmp_path / "study.py").write_text(STUDY)
    url = "s3://bucket/run?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    options = ["--run", url, "--worker-logs"]
    result = CliRunner().invoke(app, ["search", str(tmp_path / "study.py"), *options])
    assert result.exit_code == 2 and "must be a folder" in result.output
