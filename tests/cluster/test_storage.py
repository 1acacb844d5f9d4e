"""A search keeps its run on an object store, stops, goes on, and is looked at there."""

from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, place, read_table
from tests.commands import evometa

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


def test_a_run_on_an_object_store_is_as_good_as_one_at_home(tmp_path, url):
    short = ("--iterations", 3, "--plan", "vmap", "--executor", "serial")
    evometa("search", STUDY, "--run", "home", "-n", 8, "--seeds", 1, *short, folder=tmp_path)
    evometa("search", STUDY, "--run", url, "-n", 5, "--seeds", 1, *short, folder=tmp_path)
    evometa("resume", url, "-n", 8, "--executor", "serial", folder=tmp_path)
    home, far = (
        read_table(run).drop_columns([*TIME_AND_PLACE]) for run in (tmp_path / "home", place(url))
    )
    assert home.to_pylist() == far.to_pylist()
    assert "c00000" in evometa("top", url, folder=tmp_path)
    assert "genome" in evometa("show", url, "c000003", folder=tmp_path)
    assert "report.html" in evometa("report", url, folder=tmp_path)
    evometa("convert", url, "a.csv", "--to", "csv", folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "home"]
