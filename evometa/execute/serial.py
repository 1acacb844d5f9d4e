"""In this process, one pack after the other: for small searches, debugging and benchmarks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from evometa.errors import ExecutorError
from evometa.execute.interrupts import check_interrupts, interruptible
from evometa.execute.protocol import Evaluate, run_pack
from evometa.records import Candidate, Counts, Evaluation


class Serial:
    """Evaluates one pack at each `collect`.

    Args:
        evaluate: turns a pack into evaluations.
    """

    workers = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._queue: deque[tuple[Candidate, ...]] = deque()
        self._closed = False
        self._began, self._busy_seconds = time.monotonic(), 0.0

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Queue a pack."""
        if self._closed:
            raise ExecutorError("the executor is closed; make a new one")
        self._queue.append(tuple(pack))

    def collect(self, timeout: float) -> list[Evaluation]:
        """Evaluate the pack that has waited longest; `timeout` does not interrupt it.

        Raises:
            Interrupted: on Ctrl-C; what a candidate raises, `KeyboardInterrupt` too, is an `ERROR`.
        """
        del timeout
        check_interrupts()
        if not self._queue:
            return []
        pack = self._queue.popleft()
        began = time.monotonic()
        with interruptible() as interrupts:
            results = run_pack(self._evaluate, pack)
            interrupts.check()
        self._busy_seconds += time.monotonic() - began
        return results

    def counts(self) -> Counts:
        """Return the state of this process as a worker: busy if a pack waits for it."""
        share = self._busy_seconds / max(time.monotonic() - self._began, 1e-9)
        return Counts(1, int(bool(self._queue)), busy_seconds=self._busy_seconds, utilisation=share)

    def close(self) -> None:
        """Drop what is queued."""
        self._closed = True
        self._queue.clear()
