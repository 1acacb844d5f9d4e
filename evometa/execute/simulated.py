"""On a simulated clock: hours of a thousand workers in seconds, to study searchers and orders."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from evometa.errors import ExecutorError
from evometa.execute.protocol import Evaluate, run_pack
from evometa.records import Candidate, Counts, Evaluation


class Simulated:
    """Runs packs on simulated workers; `collect` moves the clock to the next that finishes.

    Args:
        evaluate: turns a pack into evaluations; it takes no simulated time itself.
        duration: simulated seconds of a candidate; a pack takes the sum.
        slots: simulated workers.

    Attributes:
        now: simulated seconds since the start.
        workers: simulated workers.
    """

    def __init__(
        self, evaluate: Evaluate, duration: Callable[[Candidate], float], slots: int = 1
    ) -> None:
        if slots < 1:
            raise ExecutorError(f"`slots >= 1` must hold, but got (slots={slots})")
        self._evaluate, self._duration = evaluate, duration
        self.workers = slots
        self.now = 0.0
        self._busy = 0.0
        self._started = 0
        self._queue: deque[tuple[Candidate, ...]] = deque()
        self._running: list[tuple[float, int, tuple[Candidate, ...]]] = []
        self._closed = False

    @property
    def utilisation(self) -> float:
        """Share of the workers' time so far in which they were busy."""
        return self._busy / (self.now * self.workers) if self.now else 0.0

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Start a pack on a free worker, or queue it."""
        if self._closed:
            raise ExecutorError("the executor is closed; make a new one")
        self._queue.append(tuple(pack))
        self._start()

    def collect(self, timeout: float) -> list[Evaluation]:
        """Move the clock to the next pack that finishes; return its evaluations."""
        del timeout  # nobody waits for a simulated clock
        if not self._running:
            return []
        self.now, _, pack = heapq.heappop(self._running)
        self._start()
        return run_pack(self._evaluate, pack)

    def counts(self) -> Counts:
        """Return the state of the simulated workers."""
        return Counts(
            self.workers,
            len(self._running),
            busy_seconds=self._busy,
            utilisation=self.utilisation,
        )

    def close(self) -> None:
        """Drop what is queued and running."""
        self._closed = True
        self._queue.clear()
        self._running.clear()

    def _start(self) -> None:
        while self._queue and len(self._running) < self.workers:
            pack = self._queue.popleft()
            seconds = sum(self._duration(candidate) for candidate in pack)
            self._busy += seconds
            # the counter breaks ties in the order of starting
            heapq.heappush(self._running, (self.now + seconds, self._started, pack))
            self._started += 1
