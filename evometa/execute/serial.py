"""In this process, one pack after the other: for small searches, debugging and benchmarks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from evometa.errors import ExecutorError
from evometa.execute.protocol import Evaluate, run_pack
from evometa.records import Candidate, Evaluation


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

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Queue a pack."""
        if self._closed:
            raise ExecutorError("the executor is closed; make a new one")
        self._queue.append(tuple(pack))

    def collect(self, timeout: float) -> list[Evaluation]:
        """Evaluate the pack that has waited longest; `timeout` does not interrupt it."""
        del timeout
        if not self._queue:
            return []
        pack = self._queue.popleft()
        return run_pack(self._evaluate, pack)

    def close(self) -> None:
        """Drop what is queued."""
        self._closed = True
        self._queue.clear()
