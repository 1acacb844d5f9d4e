"""Downloads go on where they broke off, and are checked; against a server on this machine."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evometa.errors import TaskError
from evometa.task.download import download_archives

CONTENT = bytes(range(256)) * 1000
MD5 = {"images_background": hashlib.md5(CONTENT).hexdigest()}


class Server(ThreadingHTTPServer):
    ranges = True
    breaks_after: int | None = None  # bytes of the first answer, then the connection ends

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.breaks_after = self.server.breaks_after, None
        self.wfile.write(body[:cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def fetch(server, folder, md5=MD5, **options):
    download_archives(folder, base=f"http://127.0.0.1:{server.server_port}/", md5=md5, **options)


def test_a_whole_download(server, tmp_path):
    fetch(server, tmp_path)
    assert (tmp_path / "images_background.zip").read_bytes() == CONTENT
    fetch(server, tmp_path)
    assert server.asked == [None], "what is there is not fetched again"


def test_a_broken_download_goes_on(server, tmp_path):
    server.breaks_after = 100_000
    fetch(server, tmp_path)
    assert server.asked == [None, "bytes=100000-"]
    assert (tmp_path / "images_background.zip").read_bytes() == CONTENT


def test_an_interrupted_process_goes_on(server, tmp_path):
    (tmp_path / "images_background.part").write_bytes(CONTENT[:777])
    fetch(server, tmp_path)
    assert server.asked == ["bytes=777-"]
    assert (tmp_path / "images_background.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    server.breaks_after = 5000
    fetch(server, tmp_path)
    assert (tmp_path / "images_background.zip").read_bytes() == CONTENT


def test_a_wrong_archive_is_named_and_removed(server, tmp_path):
    with pytest.raises(TaskError, match=r"must have the md5 0000.*--data DIR"):
        fetch(server, tmp_path, md5={"images_background": "0000"})
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"failed 2 times.*--data DIR"):
        download_archives(tmp_path, base="http://127.0.0.1:9/", md5=MD5, attempts=2)
