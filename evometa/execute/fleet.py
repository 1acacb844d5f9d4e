"""What a supervisor asks of those who start workers, and what it hears from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from evometa.execute.failures import Failure
from evometa.execute.usage import Usage
from evometa.records import Candidate, Evaluation


def _unknown() -> Usage | None:
    return None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A worker has started, on a node.

    Attributes:
        worker: its number.
        node: where it is.
        usage: returns what it has had of the machine's cores; None where that cannot be told.
    """

    worker: int
    node: str
    usage: Callable[[], Usage | None] = _unknown


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker has finished a pack, or left it: called back, or ended by who had no right to."""

    worker: int
    flight: int
    evaluations: list[Evaluation]


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker is gone, or never came."""

    worker: int
    failure: Failure
    text: str


Event: TypeAlias = Arrived | Finished | Gone


class Fleet(Protocol):
    """Starts and stops workers, and carries packs to them; decides nothing.

    Workers and flights (packs on their way) are numbered by the caller. A worker runs its flights
    one after the other, in the order of `run`.
    """

    def start(self, worker: int) -> None:
        """Ask for a worker; it arrives later, or never."""
        ...

    def run(
        self, worker: int, flight: int, pack: Sequence[Candidate], seconds: float | None
    ) -> None:
        """Send a pack to a worker, which asks the evaluator to stop after `seconds`."""
        ...

    def recall(self, flight: int) -> None:
        """Call back a pack that has not begun; if it has, it goes on."""
        ...

    def kill(self, worker: int) -> None:
        """Stop a worker, or stop asking for it; nothing more is heard of it."""
        ...

    def wait(self, timeout: float) -> list[Event]:
        """Return what happened, in order; wait up to `timeout` seconds for the first."""
        ...

    def draining(self) -> frozenset[str]:
        """Return the nodes that are about to go."""
        ...

    def patience(self) -> float:
        """Return for how many seconds having no worker at all is no reason to give up."""
        ...

    def wants(self) -> str:
        """Say what a worker needs and what there is, for an error message."""
        ...
