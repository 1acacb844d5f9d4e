"""Ctrl-C and SIGTERM, told from what candidates raise, and heard once."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from evometa.errors import Interrupted

GRACE_SECONDS = 10.0


class Interrupts:
    """A handler of signals that raises `Interrupted`, and lets what it ends end in order.

    People press Ctrl-C twice, and batch systems signal a process and its group: what comes within
    `GRACE_SECONDS` is the same wish, and does not disturb the writing of what is finished.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._heard_at, self._held = clock, -math.inf, False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`, if it is the first signal or long after the last that was heard."""
        first, now = self._heard_at == -math.inf, self._clock()
        if now - self._heard_at >= GRACE_SECONDS:
            self._heard_at = now
            if not (first and self._held):
                raise Interrupted

    def check(self) -> None:
        """Raise `Interrupted` again if a signal was heard: a candidate may have caught it."""
        if self._heard_at > -math.inf:
            raise Interrupted

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raise at the end of the block what is heard in it; only who insists is heard before.

        While a process forks, Python takes locks in hooks and drops what is raised in these: a
        lock that is not let go hangs the process.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()

    def install(self) -> None:
        """Hear Ctrl-C and SIGTERM, but what this process was started to ignore.

        Where Python drops what is raised, in finalisers and in hooks around a fork, it would print
        a traceback; nothing is printed of a stop, which `check_interrupts` raises again.
        """
        told = sys.unraisablehook

        def tell(lost: Any) -> None:
            if not issubclass(lost.exc_type, Interrupted):
                told(lost)

        sys.unraisablehook = tell
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Let Ctrl-C raise `Interrupted` while user code runs in this process; yield what hears it."""
    handler = signal.getsignal(signal.SIGINT)
    interrupts = handler if isinstance(handler, Interrupts) else Interrupts()
    if not is_main_thread() or handler is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, handler)


def check_interrupts() -> None:
    """Raise `Interrupted` again if a signal was heard, and what it raised was lost on its way."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupts):
        handler.check()


def is_main_thread() -> bool:
    """Return whether signals are handled in this thread."""
    return threading.current_thread() is threading.main_thread()
