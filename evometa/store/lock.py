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
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from evometa.errors import StoreError
from evometa.files import open_plain
from evometa.store.remote import Place, RemotePath

log = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0


def _seconds() -> float:
    """Return seconds that also pass while the machine sleeps, where the system counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lock(Protocol):
    """A run that is held."""

    @property
    def token(self) -> str:
        """A name for this holder's files alone; empty where nobody else can hold the run."""
        ...

    def check(self) -> None:
        """Raise `StoreError` if it may be held by another by now."""
        ...

    def confirm(self, file: Place) -> None:
        """Withdraw a file just written, and raise `StoreError`, if it came too late."""
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
    """Return whether a driver works on a run now, as far as can be seen without taking its lock.

    On an object store, one that was killed on another machine does so until its lease ends.
    """
    if isinstance(run, RemotePath):
        leases = [*(run / ".lock").iterdir()]
        now = _store_time(run) if leases else 0.0
        return any(_holder_by(lease, now) for lease in leases)
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
        self.token = ""
        try:
            self._descriptor = open_plain(run / ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StoreError(f"{run} cannot be written: {error}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log.warning("%s does not support locks: start one driver at a time", run)
                self.token = uuid.uuid4().hex
                return
            holder = os.read(self._descriptor, 200).decode(errors="replace")
            os.close(self._descriptor)
            raise StoreError(
                f"another driver works on {run} ({holder}); wait for it, or stop it first"
            ) from error
        try:
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        except OSError as error:
            os.close(self._descriptor)
            raise StoreError(
                f"{run}/.lock cannot be written: {error}. Free some space, or make the folder "
                "writable"
            ) from error

    def check(self) -> None:
        """Do nothing: the system keeps the lock."""

    def confirm(self, file: Place) -> None:
        """Do nothing: the system keeps the lock."""

    def release(self) -> None:
        """Let go."""
        os.close(self._descriptor)


class Lease:
    """A lock for stores that have none: an object of our own, renewed while we live.

    Whoever finds the fresh object of another driver goes away. Two that come at once both do; two
    that both stay there cannot be, since each writes before it looks.

    A driver may be suspended for longer than the lease, and another follow it. Only the clock of
    the store, which both see, can tell: a renewal or a file that comes `LEASE_SECONDS` after the
    last renewal comes too late, for whoever followed may have looked before.

    Args:
        run: the run directory.
        clock: seconds, from any start, which go on while this machine sleeps.

    Raises:
        StoreError: if another driver holds it, or it cannot be written.
    """

    def __init__(self, run: RemotePath, clock: Callable[[], float] = _seconds) -> None:
        self._run, self._clock = run, clock
        self.token = uuid.uuid4().hex
        self._own = run / ".lock" / self.token
        self._ended, self._lost = threading.Event(), False
        self._renewed_at = clock()
        try:
            self._own.write_bytes(_identity().encode())
            self._stamp = self._own.modified()  # of the last renewal, by the clock of the store
            holder = self._holder()
        except OSError as error:
            raise StoreError(f"{run} cannot be written: {error}") from error
        if holder:
            self._forget(self._own)
            raise StoreError(
                f"another driver works on {run} ({holder}); wait for it, or stop it first. One "
                f"that was killed lets go after {LEASE_SECONDS:.0f} s"
            )
        self._thread = threading.Thread(target=self._go_on_renewing, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `StoreError` if the lease has not been renewed for longer than it lasts."""
        if self._lost or self._clock() - self._renewed_at > LEASE_SECONDS:
            raise StoreError(
                f"{self._run} could not be held: for {LEASE_SECONDS:.0f} s this driver was "
                "suspended, or did not reach it, and another driver may have taken over. This one "
                "stops, and writes no more; rows that it had not written are evaluated again. If "
                f"no other works there, go on with: evometa resume '{self._run}'"
            )

    def confirm(self, file: Place) -> None:
        """Raise `StoreError`, and withdraw a file just written, if it came after the lease."""
        if isinstance(file, RemotePath) and self._is_late(file.modified()):
            self._lost = True
        try:
            self.check()
        except StoreError:
            self._forget(file)
            raise

    def renew(self) -> None:
        """Make the lease last from now; one that had ended, or was taken away, is lost for good.

        Raises:
            OSError: if the store cannot be reached.
        """
        started = self._clock()
        if not self._own.exists():  # who followed us has removed it
            self._lost = True
            return
        self._own.write_bytes(_identity().encode())
        stamp = self._own.modified()
        if self._is_late(stamp):
            self._lost = True
            self._forget(self._own)
            return
        self._stamp, self._renewed_at = stamp, started

    def release(self) -> None:
        """Let go."""
        self._ended.set()
        self._thread.join(RENEW_SECONDS)
        self._forget(self._own)

    def _holder(self) -> str:
        for other in (self._run / ".lock").iterdir():
            if other == self._own:
                continue
            if holder := _holder_by(other, self._stamp):
                return holder
            self._forget(other)
        return ""

    def _is_late(self, stamp: float) -> bool:
        # stores count whole seconds, and so does whoever follows: at the equal one it may do so
        return stamp - self._stamp >= LEASE_SECONDS

    def _go_on_renewing(self) -> None:
        while not self._lost and not self._ended.wait(RENEW_SECONDS):
            try:
                self.renew()
            except OSError as error:
                log.warning("The lease on %s is not renewed: %s", self._run, error)

    @staticmethod
    def _forget(path: Place) -> None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _holder_by(lease: RemotePath, now: float) -> str:
    """Return whose lease it is; empty if it has ended by `now`, of the clock of the store."""
    try:
        text = lease.read_bytes().decode(errors="replace")
        if now - lease.modified() < LEASE_SECONDS and not _is_dead(text):
            return text.partition("\n")[0] or "it does not say who"
    except FileNotFoundError:  # it lets go just now
        pass
    return ""


def _store_time(run: RemotePath) -> float:
    """Return the time by the clock of the store, which stamps what is written; or our own."""
    stamped = run / f".clock-{uuid.uuid4().hex}"
    try:
        stamped.write_bytes(b"")
        return stamped.modified()
    except OSError:  # we may only read
        return time.time()
    finally:
        Lease._forget(stamped)


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
