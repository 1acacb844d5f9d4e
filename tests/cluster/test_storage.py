"""A search keeps its run on an object store, stops, goes on, and is looked at there."""

import random
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, place, read_table
from tests import driven
from tests.commands import evometa
from tests.store.test_remote import Proxy
from tests.test_cli import WAITING

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "search_spaces" / "sinusoid.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def store(monkeypatch):
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


def url_at(port, name):
    return (
        f"s3://bucket/runs/{name}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        "&allow_bucket_creation=true"
    )


def test_a_run_on_an_object_store_is_as_good_as_one_at_home(tmp_path, store):
    url = url_at(store, "calm")
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


@contextmanager
def cut_at_random(proxy, seed):
    """Break whatever is open every now and then, and refuse new connections for moments."""
    ended, chance = threading.Event(), random.Random(seed)

    def cut():
        while not ended.wait(chance.uniform(0.02, 0.4)):
            proxy.refusing = chance.random() < 0.15
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        yield
    finally:
        ended.set()
        cutter.join()
        proxy.refusing = False


def test_a_search_whose_store_is_cut_off_again_and_again(tmp_path, store):
    (tmp_path / "study.py").write_text(driven.STUDY)
    (tmp_path / "waits.py").write_text(WAITING.format(rows=20))
    options = ("-n", 60, "--rungs", 2, "--plan", "vmap", "--executor", "serial")
    driven.run(tmp_path, "search", "study.py", "--run", "home", *options)
    expected, proxy = driven.rows(tmp_path / "home"), Proxy(store)
    url, far = url_at(proxy.port, "cut"), place(url_at(store, "cut"))
    try:
        with cut_at_random(proxy, seed=0):
            observer = ("--observer", "waits.py:waiting")
            search = driven.Driven(
                tmp_path, "search", "study.py", "--run", url, *options, *observer
            )
            assert not search.stores(far, 19), search.said
            search.kill()
            before = driven.begun(far)
            search = driven.Driven(tmp_path, "resume", url, "--executor", "serial")
            assert search.ends(250) and search.process.exitcode == 0, search.said
        print(proxy.cuts, "connections were cut")
        assert proxy.cuts >= 3
        assert len(before) == 20 < len(expected)
        assert before.items() <= driven.begun(far).items()
        assert driven.rows(far) == expected
    finally:
        proxy.close()
