"""Runs on an object store, with its connection cut at random."""

import os
import random
import socket
import threading
import time

import pytest

from evometa.errors import StoreError
from evometa.space import gene_value
from evometa.store import (
    RunDirectory,
    Writer,
    evaluations,
    lock,
    place,
    read_table,
    remote,
    repair,
)
from evometa.store import writer as writer_module
from tests.store.test_store import SCHEMA, SOURCE, STUDY, evaluation, numbers_in, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Proxy:
    """Passes on to a server, and cuts connections when told."""

    def __init__(self, port):
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open, self._lock = set(), threading.Lock()
        self.refusing, self.cuts, self.served = False, 0, 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Break what is open, in the middle of whatever it is."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                    self.cuts += 1
                except OSError:
                    pass

    def close(self):
        self.refusing = True
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self.served += 1
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, target):
        try:
            while data := source.recv(4096):
                target.sendall(data)
        except OSError:
            pass
        with self._lock:
            self._open -= {source, target}
        source.close()
        target.close()


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def proxy(server):
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def run(proxy, request):
    name = request.node.name.replace("[", "-").replace("]", "")
    return place(
        f"s3://bucket/{name}?endpoint_override=127.0.0.1:{proxy.port}"
        "&scheme=http&region=us-east-1&allow_bucket_creation=true"
    )


def test_what_is_written_is_read_and_files_stay_few(run):
    write(run, range(100))
    assert numbers_in(run) == list(range(100))
    first = next(evaluations(read_table(run)))
    assert first == evaluation(0)
    assert len(list((run / "evaluations").iterdir())) <= writer_module.PARTS_AT_REST
    assert list((run / ".lock").iterdir()) == []


def test_a_run_is_taken_up_again(run):
    write(run, range(3))
    with RunDirectory.open(run) as held, Writer(held, SCHEMA, gene_value) as writer:
        assert held.study == STUDY
        assert RunDirectory.read_file(run).decode() == SOURCE
        assert writer.recall(1, 0, 0).candidate.number == 1
        writer.append(evaluation(3), 3)
    assert numbers_in(run) == [0, 1, 2, 3]
    with pytest.raises(StoreError, match="evometa resume s3://bucket/"):
        RunDirectory.create(run, STUDY, SOURCE)


def test_what_a_study_needs_is_kept_too(run):
    files = {"project/models/nets.py": b"x = 1", "project/size.txt": b""}
    with RunDirectory.create(run, STUDY, SOURCE, files):
        assert {name: RunDirectory.read_file(run, name) for name in files} == files
    with pytest.raises(FileNotFoundError):
        RunDirectory.read_file(run, "project/other.py")


def test_torn_parts_are_set_aside(run):
    write(run, range(3))
    (part,) = (run / "evaluations").glob("part-000001.*")
    part.write_bytes(part.read_bytes()[:-7])
    assert numbers_in(run) == [0, 2]
    assert repair(run) == [run / "set-aside" / part.name]
    assert not part.exists() and numbers_in(run) == [0, 2]


def test_cut_connections_lose_nothing_and_double_nothing(run, proxy, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.05)
    ended, rng = threading.Event(), random.Random(0)

    def cut():
        while not ended.wait(rng.uniform(0.01, 0.3)):
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        write(run, range(80))
    finally:
        ended.set()
        cutter.join()
    assert proxy.cuts >= 10
    assert numbers_in(run) == list(range(80))
    assert repair(run) == []


def test_a_store_that_is_gone_is_named_and_the_rows_wait(run, proxy, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 1)
    with (
        RunDirectory.create(run, STUDY, SOURCE) as held,
        Writer(held, SCHEMA, gene_value) as writer,
    ):
        writer.append(evaluation(0), 0)
        writer.flush()
        proxy.refusing = True
        proxy.cut()
        writer.append(evaluation(1), 1)
        with pytest.raises(StoreError, match=r"(?s)cannot be written.*Mend the connection.*resume"):
            writer.flush()
        with pytest.raises(StoreError, match="cannot be reached"):
            read_table(run)
        proxy.refusing = False
    assert numbers_in(run) == [0, 1]


def test_a_second_driver_is_refused(run):
    with (
        RunDirectory.create(run, STUDY, SOURCE),
        pytest.raises(StoreError, match=f"another driver works on .*process {os.getpid()}"),
    ):
        RunDirectory.open(run)
    with RunDirectory.open(run):
        pass


@pytest.mark.parametrize("how", ["dead", "late"])
def test_a_killed_driver_is_followed(run, monkeypatch, how):
    write(run, [0])
    identity = lock._identity().replace(str(os.getpid()), "4194303")  # nobody has that number
    if how == "late":
        identity = "process 1 on another machine\n\n1"
        monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    (run / ".lock" / "killed").write_bytes(identity.encode())
    if how == "late":
        with pytest.raises(StoreError, match="process 1 on another machine"):
            RunDirectory.open(run)
        time.sleep(2.5)
    with RunDirectory.open(run):
        pass


def test_who_lost_its_lease_writes_no_more(run, monkeypatch):
    with (
        RunDirectory.create(run, STUDY, SOURCE) as held,
        Writer(held, SCHEMA, gene_value) as writer,
    ):
        writer.append(evaluation(0), 0)
        monkeypatch.setattr(lock, "LEASE_SECONDS", -1.0)
        with pytest.raises(StoreError, match="another driver may have taken over"):
            writer.flush()
        monkeypatch.undo()


def test_keys_are_not_shown():
    shown = str(place("s3://key:secret@bucket/runs/a?region=us-east-1") / "study.json")
    assert shown == "s3://bucket/runs/a/study.json?region=us-east-1"


def test_what_is_no_url_is_named():
    with pytest.raises(StoreError, match="A run directory is a folder, or a URL such as s3://"):
        place("nowhere://bucket/run")


def test_a_local_url_is_a_folder(tmp_path):
    assert place(f"file://{tmp_path}/run") == tmp_path / "run"
