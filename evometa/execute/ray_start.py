"""What goes wrong while Ray starts, or says no, and what it does to this process meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evometa.errors import ExecutorError
from evometa.execute.interrupts import Interrupts, is_main_thread

ROOM = 2**20  # bytes; with less, Ray starts and then hangs
TOKENS = (
    "Give it the cluster's token: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, or the file "
    "~/.ray/auth_token; cluster/README.md tells how under 'Security'"
)


def knock(address: str) -> None:
    """Knock at a `HOST:PORT` address: `ray.init` would try for minutes where nobody answers.

    Raises:
        OSError: if nobody answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def require_room() -> None:
    """Write into the folder where Ray keeps its files, for it does not say that it cannot.

    Raises:
        ExecutorError: if the folder takes no more.
    """
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
            file.flush()
    except OSError as error:
        raise cannot_start(error) from error


def cannot_start(error: BaseException) -> ExecutorError:
    """Return what to say where Ray does not start on this machine."""
    return ExecutorError(
        f"Ray cannot start on this machine: {error}. It keeps its files in {_folder()}: free some "
        "space there, or name a folder that has some, with a short path: RAY_TMPDIR=FOLDER; or "
        "use --executor serial"
    )


def cannot_connect(address: str, error: BaseException, said: str) -> ExecutorError:
    """Return what to say where there is no cluster, or one that takes us for a stranger.

    Args:
        address: of the cluster.
        error: what Ray raised.
        said: what it has printed meanwhile; that the token is wrong is told only there.
    """
    if any(word in f"{error} {said}" for word in ("AuthToken", "uthentication", "nauthenticated")):
        return ExecutorError(f"the Ray cluster at {address!r} refuses the token. {TOKENS}")
    return ExecutorError(
        f"there is no Ray cluster at {address!r}: {error}. Start one with `ray start --head`, "
        "look at it with `ray status`, or leave --address out to use this machine"
    )


@contextlib.contextmanager
def overheard() -> Iterator[Callable[[], str]]:
    """Keep what is printed to standard error, by Ray's machine code too; print it afterwards.

    Yields:
        What returns it so far; once that is called, nobody else needs to read it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    taken = False
    with tempfile.TemporaryFile() as file:

        def said() -> str:
            nonlocal taken
            taken = True
            return _text(file)

        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if not taken and (text := _text(file)):
                sys.stderr.write(text)


@contextlib.contextmanager
def sigterm_kept(utils: Any) -> Iterator[None]:
    """Keep our handler of SIGTERM, which Ray replaces twice while it starts.

    Its first replacement is left out. The second, which ends a process in a dump of the stack, is
    put right at the end; some 3 ms before that nobody can guard, but nothing is evaluated by then.

    Args:
        utils: Ray's module that sets the handler.
    """
    if not is_main_thread():
        yield
        return
    theirs = utils.set_sigterm_handler
    if callable(signal.getsignal(signal.SIGTERM)):
        utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def held() -> contextlib.AbstractContextManager[None]:
    """Let Ctrl-C and SIGTERM wait until Ray has started its processes: some seconds."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler.held() if isinstance(handler, Interrupts) else contextlib.nullcontext()


def guarded(end: Callable[[], Any]) -> None:
    """End Ray, which puts back SIGTERM's default long before it is through; keep our handler."""
    ours = signal.getsignal(signal.SIGTERM)
    if not is_main_thread() or not callable(ours):
        end()
        return
    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    while thread.is_alive():
        signal.signal(signal.SIGTERM, ours)
        thread.join(0.001)
    signal.signal(signal.SIGTERM, ours)


def _folder() -> Path:
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))
