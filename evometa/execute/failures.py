"""What a failure means: which packs are tried again, and who is blamed.

No failure of the machinery is a verdict on a candidate, and no candidate takes its company down:
the guilty member of a pack is found by halving it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from evometa.execute.protocol import failed
from evometa.records import Candidate, Evaluation, Status

ATTEMPTS = 3


class Failure(Enum):
    """Why a worker is gone."""

    CRASH = "crash"
    """Its process died: a segfault, a kill."""
    NODE = "node"
    """Its machine is gone, or cannot be reached."""
    PREEMPTED = "preempted"
    """Its machine was taken away, with or without notice."""
    MEMORY = "memory"
    """It was killed because its machine ran out of memory."""
    TIMEOUT = "timeout"
    """It was killed because its pack ran past the hard limit."""
    CANCELLED = "cancelled"
    """It lives, but has left its pack unasked: the pack's code has cancelled itself."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Candidates that are evaluated together.

    Attributes:
        candidates: in the order of submission.
        deaths: how many workers died while they ran it.
        alone: it wants a machine to itself.
        avoid: a node that it should not run on if there is another.
    """

    candidates: tuple[Candidate, ...]
    deaths: int = 0
    alone: bool = False
    avoid: str = ""


def judge(
    pack: Pack, failure: Failure, node: str, text: str
) -> tuple[list[Pack], list[Evaluation]]:
    """Decide what becomes of a pack whose worker is gone.

    Args:
        pack: the one that ran.
        failure: why the worker is gone, or has left it.
        node: where that was.
        text: what the system said.

    Returns:
        The packs to be tried again, and the evaluations of those that are given up.
    """
    single = len(pack.candidates) == 1
    if failure is Failure.PREEMPTED:
        return [replace(pack, avoid=node)], []
    if failure is Failure.NODE:
        tried = replace(pack, deaths=pack.deaths + 1, avoid=node)
        if tried.deaths < ATTEMPTS:
            return [tried], []
        return ([], _lost(tried, text)) if single else (_halves(pack), [])
    if failure is Failure.MEMORY:
        # the monitor may have killed it for what its neighbours took
        if single and pack.alone:
            error = f"out of memory, with a machine to itself: {text}"
            return [], failed(pack.candidates, Status.OOM, error)
        alone = replace(pack, alone=True)
        return ([alone] if single else _halves(alone)), []
    if not single:
        return _halves(pack), []
    if failure is Failure.CANCELLED:
        return [], failed(pack.candidates, Status.ERROR, text)
    if failure is Failure.TIMEOUT:
        return [], failed(pack.candidates, Status.TIMEOUT, text)
    tried = replace(pack, deaths=pack.deaths + 1)
    return ([tried], []) if tried.deaths < ATTEMPTS else ([], _lost(tried, text))


def _halves(pack: Pack) -> list[Pack]:
    middle = len(pack.candidates) // 2
    parts = (pack.candidates[:middle], pack.candidates[middle:])
    return [Pack(part, alone=pack.alone) for part in parts]


def _lost(pack: Pack, text: str) -> list[Evaluation]:
    error = f"its worker died {pack.deaths} times; the last: {text}"
    return failed(pack.candidates, Status.LOST, error)
