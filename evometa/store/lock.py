"""One driver at a time, on folders and on object stores."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Protocol

from evometa.errors import StoreError
from evometa.files import open_plain
from evometa.store.remote import Place, RemotePath

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0


class Lock(Protocol):
    """A run that is held."""

    def check(self) -> None:
        """Raise `StoreError` if it may be held by another by now."""
        ...

    def release(self) -> None:
        """Let go."""
        ...


def hold(run: Place) -> Lock:
    """Take a run's lock.

    Raises:
        StoreError: if another driver holds it, or it cannot be written.
    """
    return Lease(run) if isinstance(run, RemotePath) else FileLock(run)


def is_held(run: Place) -> bool:
    """Return whether a driver works on a run now, as far as can be seen without taking its lock."""
    if isinstance(run, RemotePath):
        return any(True for _ in (run / ".lock").iterdir())
    try:
        descriptor = open_plain(run / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False


class FileLock:
    """A lock that the system drops when this process ends, however it ends.

    Raises:
        StoreError: if another driver holds it, or it cannot be written.
    """

    def __init__(self, run: Path) -> None:
        try:
            self._descriptor = open_plain(run / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StoreError(f"{run} cannot be written: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log.warning("%s does not support locks: start one driver at a time", run)
                return
            holder = os.read(self._descriptor, 200).decode(errors="replace")
            os.close(self._descriptor)
            raise StoreError(
                f"another driver works on {run} ({holder}); wait for it, or stop it first"
            ) from error
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, f"process {os.getpid()} on {platform.node()}".encode())

    def check(self) -> None:
        """Do nothing: the system keeps the lock."""

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)


class Lease:
    """A lock for stores that have none: an object of our own, renewed while we live.

    Whoever finds the fresh object of another driver goes away. Two that come at once both do; two
    that both stay there cannot be, since each writes before it looks.

    Raises:
        StoreError: if another driver holds it, or it cannot be written.
    """

    def __init__(self, run: RemotePath) -> None:
        self._run = run
        self._own = run / ".lock" / uuid.uuid4().hex
        self._ended = threading.Event()
        self._renewed_at = time.monotonic()
        try:
            self._own.write_bytes(_identity().encode())
            holder = self._holder()
        except OSError as error:
            raise StoreError(f"{run} cannot be written: {error}") from error
        if holder:
            self._forget(self._own)
            raise StoreError(
                f"another driver works on {run} ({holder}); wait for it, or stop it first. One "
                f"that was killed lets go after {LEASE_SECONDS:.0f} s"
            )
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `StoreError` if the store could not be reached for longer than the lease."""
        if time.monotonic() - self._renewed_at > LEASE_SECONDS:
            raise StoreError(
                f"{self._run} could not be reached for {LEASE_SECONDS:.0f} s, and another driver "
                f"may have taken over; if none has, go on with: evometa resume '{self._run}'"
            )

    def release(self) -> None:
        """Let go."""
        self._ended.set()
        self._thread.join(RENEW_SECONDS)
        self._forget(self._own)

    def _holder(self) -> str:
        now = self._own.modified()
        for other in (self._run / ".lock").iterdir():
            if other == self._own:
                continue
            with contextlib.suppress(FileNotFoundError):  # it lets go just now
                text = other.read_bytes().decode(errors="replace")
                if now - other.modified() < LEASE_SECONDS and not _is_dead(text):
                    return text.partition("\n")[0]
                self._forget(other)
        return ""

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            started = time.monotonic()
            try:
                self._own.write_bytes(_identity().encode())
                self._renewed_at = started
            except OSError as error:
                log.warning("The lease on %s is not renewed: %s", self._run, error)

    @staticmethod
    def _forget(path: RemotePath) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _identity() -> str:
    """Return who we are, for people, and below it for `_is_dead`."""
    return f"process {os.getpid()} on {platform.node()}\n{_world()}\n{os.getpid()}"


def _world() -> str:
    """Return what two processes share that see each other's numbers; empty if it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _is_dead(identity: str) -> bool:
    """Return whether a driver is known to have ended: one of this machine."""
    _, world, process = [*identity.split("\n"), "", ""][:3]
    if not world or world != _world():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        return False
    return False
