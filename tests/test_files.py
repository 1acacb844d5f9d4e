"""What is written lands where it was meant to, whatever a stranger has put there before."""

import os
import stat
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evometa.cli import app
from evometa.errors import StoreError
from evometa.files import is_stream, is_unfinished, local, open_plain, private_folder, write_whole
from evometa.report.convert import WRITERS
from evometa.store import RunDirectory, place
from tests.report.tables import ordinary, write


def evometa(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def home(tmp_path):
    """A folder of somebody's own, of which nothing may change."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "keys").write_text("mine")
    yield folder
    assert content(folder) == {Path("keys"): b"mine"}


NAMES = ("report.html", "summary.json", "study.json", "confirm.parquet", ".lock")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["keys", "made"])
def test_links_of_a_run_are_not_followed(tmp_path, home, name, target):
    run = write(tmp_path / "run", ordinary(4))
    path = run / name
    before = path.read_bytes() if path.exists() and name != ".lock" else None
    path.unlink(missing_ok=True)
    path.symlink_to(home / target)
    if name == ".lock":
        with pytest.raises(StoreError, match="cannot be written"):
            RunDirectory.open(run)
        return
    write_whole(path, lambda file: file.write(before or b"new"))
    assert not path.is_symlink() and path.read_bytes() == (before or b"new")


@pytest.mark.parametrize("name", ["report.html", "x.html"])
def test_links_under_unfinished_names_are_not_followed(tmp_path, home, name):
    run = write(tmp_path / "run", ordinary(4))
    for old in (f".{name}.tmp", f"{name}.tmp", f".{name}"):
        (run / old).symlink_to(home / "keys")
    (run / name).symlink_to(home / "keys")
    assert evometa("report", run, "--out", run / name).exit_code == 0
    assert (run / name).read_text().startswith("<!doctype html>")


def test_unfinished_names_cannot_be_guessed_and_go(tmp_path):
    seen = set()
    for _ in range(20):
        write_whole(tmp_path / "x", lambda file: seen.update(p.name for p in tmp_path.iterdir()))
    assert len([*filter(is_unfinished, seen)]) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with private_folder(tmp_path / "x") as one, private_folder(tmp_path / "x") as two:
        assert one != two and is_unfinished(one.name)
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("old")

    def fail(file):
        file.write(b"half")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "x", fail)
    assert content(tmp_path) == {Path("x"): b"old"}


def test_files_are_readable_as_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "x", lambda file: file.write(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")], ids=repr
)
def test_a_lock_is_a_file(tmp_path, make):
    make(tmp_path / "lock")
    with pytest.raises(OSError):
        os.close(open_plain(tmp_path / "lock", os.O_RDWR | os.O_CREAT))


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_what_is_converted_follows_no_link(tmp_path, home, kind):
    run = write(tmp_path / "run", ordinary(4))
    (tmp_path / "out").symlink_to(home / "made")
    result = evometa("convert", run, tmp_path / "out", "--to", kind)
    assert "must not exist" in str(result.exception)
    (tmp_path / "out").unlink()
    for lock in ("out.lock", "out.tmp"):
        (tmp_path / lock).symlink_to(home / "keys")
    assert evometa("convert", run, tmp_path / "out", "--to", kind).exit_code == 0
    assert (tmp_path / "out").exists()
    assert not [p for p in tmp_path.iterdir() if is_unfinished(p.name)]


@pytest.mark.parametrize(
    ("command", "start"),
    [(("report", "--out"), b"<!doctype"), (("convert", "--to", "json"), b'{"run"'),
     (("convert", "--to", "csv"), b'"candidate_id"')],
)  # fmt: skip
def test_pipes_and_devices_are_written_into(tmp_path, command, start):
    run = write(tmp_path / "run", ordinary(4))
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert evometa(command[0], run, *command[1:], tmp_path / "pipe").exit_code == 0
    reader.join(20)
    assert found[0].startswith(start) and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert evometa(command[0], run, *command[1:], "/dev/null").exit_code == 0
    assert is_stream(Path("/dev/null")) and is_stream(Path("/dev/stdout"))


def test_only_links_of_the_system_lead_to_devices(tmp_path):
    (tmp_path / "x").symlink_to("/dev/null")
    assert not is_stream(tmp_path / "x") and not is_stream(tmp_path / "missing")


PATHS = {
    "~/x": "{home}/x",
    "~": "{home}",
    "~/a b/ü": "{home}/a b/ü",
    "file://~/x": "{home}/x",
    "file:///a%20b/%C3%BC": "/a b/ü",
    "file://localhost/x": "/x",
    "runs/x/": "runs/x",
    "a~b": "a~b",
    "~nobody-of-this-name/x": "~nobody-of-this-name/x",
    "./x": "x",
    "100%25": "100%25",
}


@pytest.mark.parametrize("text", PATHS)
def test_paths_are_read_as_people_write_them(text, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = Path(PATHS[text].format(home=tmp_path))
    assert local(text) == place(text) == wanted
    if not text.startswith("file:"):
        assert local(Path(text)) == place(Path(text)) == wanted


STUDY = """
from evometa import Study, Training
from evometa import space as s
from evometa.network import mlp
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(4, 16)),
    build=lambda genome: mlp(1, [genome["width"]], 1),
    task=Sinusoid(shots=5),
    training=Training(iterations=1, tasks=2, validation=3),
)
"""


@pytest.mark.parametrize("named", ["~/x", "~/a b/ü/", "file://{home}/x", "x y/"])
def test_every_command_finds_a_run_where_it_was_put(named, monkeypatch, tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    (home / "study one.py").write_text(STUDY)
    run = named.format(home=home)
    options = ("--executor", "serial", "--plan", "loop", "-n", 2)
    made = evometa("search", "~/study one.py", f"--run={run}", *options)
    assert made.exit_code == 0, made.output + repr(made.exception)
    assert not [*here.glob("~*"), *here.glob("file:*")]
    (path,) = tmp_path.rglob("study.json")
    assert path.parent == here / local(run)
    for command in (
        ["top", run],
        ["show", run, "c000000"],
        ["report", run, "--out", "~/report.html"],
        ["convert", run, "~/table.csv", "--to", "csv"],
        ["resume", run, "-n", 3, "--executor", "serial"],
        ["rerun", run, "c000000"],
        ["export", run, "c000000", "~/export"],
        ["search", "~/study one.py", "--run", "~/second", "--warm-start", run, *options],
    ):
        result = evometa(*command)
        assert result.exit_code == 0, result.output + repr(result.exception)
    made = {path.name for path in home.iterdir()}
    assert {"report.html", "table.csv", "export", "second"} <= made
