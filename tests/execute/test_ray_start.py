"""What people read where Ray does not start, or says no."""

import contextlib
import os
import signal
import sys

import pytest

from evometa.errors import ExecutorError, Interrupted
from evometa.execute import Interrupts
from evometa.execute.ray_start import cannot_connect, held, overheard, require_room, sigterm_kept


def test_a_folder_that_takes_no_more_is_named(monkeypatch, tmp_path):
    full = tmp_path / "file"
    full.touch()
    monkeypatch.setenv("RAY_TMPDIR", str(full / "below"))
    with pytest.raises(ExecutorError, match=rf"cannot start.*{full}/below.*RAY_TMPDIR=FOLDER"):
        require_room()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "made" / "here"))
    require_room()
    assert list((tmp_path / "made" / "here").iterdir()) == []


@pytest.mark.slow
def test_a_path_that_is_too_long_is_named(monkeypatch, tmp_path):
    from evometa.execute.ray_pool import RayPool

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(ExecutorError, match=r"(?s)cannot start on this machine.*107 bytes.*short"):
        RayPool(lambda pack: [])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Failed to connect"), "Unauthenticated: RPC error: InvalidAuthToken: ..."),
        (RuntimeError("Token authentication is enabled but no authentication token was found"), ""),
    ],
)
def test_a_cluster_that_refuses_the_token_is_not_one_that_is_not_there(error, said):
    text = str(cannot_connect("10.0.0.1:6379", error, said))
    assert "'10.0.0.1:6379' refuses the token" in text and "cluster/README.md" in text
    assert "no Ray cluster" not in text
    assert "no Ray cluster at 'auto'" in str(cannot_connect("auto", error=OSError(), said=""))


def test_what_is_overheard_is_printed_unless_it_was_read(capfd):
    with overheard() as said:
        os.write(2, b"from the machine's code\n")
        assert said() == "from the machine's code\n"
    with overheard():
        os.write(2, b"a warning\n")
    assert capfd.readouterr().err == "a warning\n"


class Utils:
    """As Ray's, whose handler would end the process."""

    @staticmethod
    def set_sigterm_handler(handler):
        signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("hold", [contextlib.nullcontext, held])
def test_sigterm_while_ray_starts_is_heard_by_our_handler(hold):
    """Where Ray forks, only at the end: Python drops what is raised in its hooks around a fork."""
    before, passed = signal.getsignal(signal.SIGTERM), False
    ours = Interrupts()
    signal.signal(signal.SIGTERM, ours)
    try:
        with pytest.raises(Interrupted), hold(), sigterm_kept(Utils):
            Utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)
            passed = True
        assert passed == (hold is held)
        assert signal.getsignal(signal.SIGTERM) is ours
        Utils.set_sigterm_handler(signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_handler_of_ours_that_of_ray_stays():
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with sigterm_kept(Utils):
            Utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
