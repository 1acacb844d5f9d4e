"""A search keeps its run on an object store, stops, goes on, and is looked at there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, place, read_table

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "search_spaces" / "sinusoid.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def url(monkeypatch):
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    yield (
        f"s3://bucket/runs/a?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        "&allow_bucket_creation=true"
    )
    server.stop()


def evometa(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "evometa.cli", *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_run_on_an_object_store_is_as_good_as_one_at_home(tmp_path, url):
    short = ("--iterations", 3, "--plan", "vmap", "--executor", "serial")
    evometa(tmp_path, "search", STUDY, "--run", "home", "-n", 8, "--seeds", 1, *short)
    evometa(tmp_path, "search", STUDY, "--run", url, "-n", 5, "--seeds", 1, *short)
    evometa(tmp_path, "resume", url, "-n", 8, "--executor", "serial")
    home, far = (
        read_table(run).drop_columns([*TIME_AND_PLACE]) for run in (tmp_path / "home", place(url))
    )
    assert home.to_pylist() == far.to_pylist()
    assert "c00000" in evometa(tmp_path, "top", url)
    assert "genome" in evometa(tmp_path, "show", url, "c000003")
    assert "report.html" in evometa(tmp_path, "report", url)
    evometa(tmp_path, "convert", url, "a.csv", "--to", "csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "home"]
