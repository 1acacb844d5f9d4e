"""What every executor offers."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from evometa.errors import Interrupted
from evometa.records import Candidate, Counts, Evaluation, Status

Evaluate: TypeAlias = Callable[[Sequence[Candidate]], list[Evaluation]]
"""Turns a pack into one evaluation a candidate, in the pack's order."""


@runtime_checkable
class Interruptible(Protocol):
    """An evaluator that can stop early, instead of being killed with all that it knows."""

    def until(self, late: Callable[[], bool]) -> Evaluate:
        """Return an evaluator that stops soon after `late()`, which it polls, is true.

        What it has finished then is returned as it is, and the rest as `TIMEOUT`.
        """
        ...


class Executor(Protocol):
    """Runs packs somewhere."""

    @property
    def workers(self) -> int:
        """How many packs run at once."""
        ...

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Queue a pack; never blocks.

        Raises:
            ExecutorError: after `close`.
        """
        ...

    def collect(self, timeout: float) -> list[Evaluation]:
        """Return what has finished; wait up to `timeout` seconds for the first.

        Every submitted candidate comes back exactly once, whatever happened to it.
        """
        ...

    def counts(self) -> Counts:
        """Return the state of the workers."""
        ...

    def close(self) -> None:
        """Stop; more than one call does no harm."""
        ...


def run_pack(evaluate: Evaluate, pack: Sequence[Candidate]) -> list[Evaluation]:
    """Evaluate a pack; whatever the evaluator raises, `sys.exit()` included, is an `ERROR`.

    The members of a pack that raises are evaluated one by one, so that only the guilty are blamed.

    Raises:
        Interrupted: if a person asks to stop.
    """
    try:
        return evaluate(pack)
    except Interrupted:
        raise
    except BaseException:
        if len(pack) == 1:
            return failed(pack, Status.ERROR, traceback.format_exc())
    return [result for candidate in pack for result in run_pack(evaluate, [candidate])]


def failed(pack: Sequence[Candidate], status: Status, error: str) -> list[Evaluation]:
    """Return the evaluations of a pack that brought no results."""
    return [Evaluation(candidate, status, error=error) for candidate in pack]
