"""Keeps workers busy and alive, and every candidate accounted for.

It decides; a `Fleet` acts. It knows neither Ray nor the wall clock, so its decisions are tested
without waiting.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evometa.errors import ExecutorError
from evometa.execute.failures import Failure, Pack, judge
from evometa.execute.fleet import Arrived, Event, Fleet, Gone
from evometa.execute.usage import Usage, told
from evometa.records import Candidate, Counts, Evaluation

IN_FLIGHT = 2  # packs a worker: the second hides the way to the driver and back
IDLE_SECONDS = 60.0
RECALL_SECONDS = 1.0  # a pack that waits behind a longer one is better off on an idle worker
SLICE_SECONDS = 0.5  # between two looks at the clock
FAILED_STARTS = 3


@dataclass(frozen=True)
class Limits:
    """How long a candidate may take; a pack may take as much for each of its candidates.

    Attributes:
        soft: seconds after which the evaluator is asked to stop, if it listens; None for ever.
        hard: seconds after which its worker is killed; None for ever.
    """

    soft: float | None = None
    hard: float | None = None

    def __post_init__(self) -> None:
        for name in ("soft", "hard"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ExecutorError(f"`{name} > 0` must hold, but got ({name}={seconds})")
        if self.soft is not None and self.hard is not None and self.hard < self.soft:
            raise ExecutorError(
                f"`soft <= hard` must hold, but got (soft={self.soft}, hard={self.hard})"
            )


NO_LIMITS = Limits()


@dataclass
class _Flight:
    number: int
    pack: Pack | None  # None: called back, and only its place is still taken


@dataclass
class _Worker:
    number: int
    asked_at: float
    node: str | None = None  # None: it has not started yet
    started_at: float = 0.0
    running_since: float = 0.0
    usage: Callable[[], Usage | None] = lambda: None
    had: Usage | None = None  # when the first flight began
    flights: deque[_Flight] = field(default_factory=deque)  # the first one runs
    leaving: bool = False


class Supervisor:
    """Runs packs on a fleet of workers.

    Args:
        fleet: starts and stops workers, and carries packs to them.
        most: no more workers than this; None for as many as there are packs.
        elastic: start workers as packs need them, and give back what is idle for a minute; else
            there are always `most`.
        limits: how long a candidate may take.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        most: int | None = None,
        elastic: bool = False,
        limits: Limits = NO_LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet, self._limits, self._clock = fleet, limits, clock
        self._most, self._elastic = most, elastic
        self._queue: deque[Pack] = deque()
        self._done: list[Evaluation] = []
        self._workers: dict[int, _Worker] = {}
        self._reserved: dict[str, Pack | None] = {}  # node -> pack that waits for it to be empty
        self._draining: frozenset[str] = frozenset()
        self._failures: Counter[Failure] = Counter()
        self._failed_starts = 0
        self._numbers = 0
        self._busy_seconds = self._worker_seconds = 0.0
        self._served_at = self._needed_at = clock()  # last time there was a worker; no surplus
        self._scale()

    def submit(self, candidates: Sequence[Candidate]) -> None:
        """Queue a pack."""
        self._queue.append(Pack(tuple(candidates)))
        self._scale()
        self._feed()

    def collect(self, timeout: float) -> list[Evaluation]:
        """Return what has finished; wait up to `timeout` seconds for the first.

        Raises:
            ExecutorError: if no worker can be had.
        """
        until = self._clock() + timeout
        while True:
            left = 0.0 if self._done else max(until - self._clock(), 0.0)
            for event in self._fleet.wait(min(left, SLICE_SECONDS)):
                self._handle(event)
            self._drain()
            self._stop_late_packs()
            self._scale()
            self._feed()
            self._require_workers()
            if self._done or self._clock() >= until:
                done, self._done = self._done, []
                return done

    def counts(self) -> Counts:
        """Return the state of the workers."""
        alive = [worker for worker in self._workers.values() if worker.node is not None]
        now = self._clock()
        running = sum(now - worker.running_since for worker in alive if worker.flights)
        total = self._worker_seconds + sum(now - worker.started_at for worker in alive)
        return Counts(
            alive=len(alive),
            busy=sum(bool(worker.flights) for worker in alive),
            starting=len(self._workers) - len(alive),
            lost=sum(self._failures.values()),
            failures={failure.value: count for failure, count in self._failures.items()},
            busy_seconds=self._busy_seconds,
            utilisation=(self._busy_seconds + running) / total if total else 0.0,
        )

    def close(self) -> None:
        """Stop all workers; those only asked for are asked for no longer."""
        for worker in list(self._workers.values()):
            self._retire(worker)
        self._queue.clear()

    # What happened

    def _handle(self, event: Event) -> None:
        if isinstance(event, Gone):
            self._lose(event)
            return
        worker = self._workers.get(event.worker)
        if worker is None:
            return  # it was replaced since
        if isinstance(event, Arrived):
            worker.node, worker.started_at = event.node, self._clock()
            worker.usage = event.usage
            self._failed_starts = 0
            return
        flight = next(f for f in worker.flights if f.number == event.flight)
        now = self._clock()
        if worker.flights[0] is flight:
            self._busy_seconds += now - worker.running_since
        worker.flights.remove(flight)
        self._begin(worker)
        if flight.pack is None:
            return  # it runs elsewhere by now
        self._done += event.evaluations
        if not event.evaluations:
            text = "its task was cancelled, by nobody but the candidate's own code"
            self._judge(flight.pack, Failure.CANCELLED, worker, text)

    def _lose(self, event: Gone) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return
        if worker.node is None:
            self._retire(worker)
            self._failed_starts += 1
            alive = any(other.node is not None for other in self._workers.values())
            if not alive and self._failed_starts >= max(FAILED_STARTS, len(self._workers)):
                raise ExecutorError(
                    f"the workers cannot load the study: {event.text}\nEvery machine needs evometa "
                    "and what the study imports from elsewhere than beside its file"
                )
            return
        node = worker.node
        failure = Failure.PREEMPTED if node in self._draining else event.failure
        self._bury(worker, failure, event.text)
        if failure in (Failure.NODE, Failure.PREEMPTED):
            # whoever idles there is gone as well, and would cost a pack an attempt
            for other in self._at(node):
                if not other.flights:
                    self._retire(other)

    def _bury(self, worker: _Worker, failure: Failure, text: str) -> None:
        """Drop a worker that is gone; blame the pack that ran, not the one that waited."""
        self._failures[failure] += 1
        packs = [flight.pack for flight in worker.flights]
        self._retire(worker)
        self._queue.extendleft(pack for pack in reversed(packs[1:]) if pack is not None)
        if packs and packs[0] is not None:
            self._judge(packs[0], failure, worker, text)

    def _judge(self, pack: Pack, failure: Failure, worker: _Worker, text: str) -> None:
        again, given_up = judge(pack, failure, worker.node or "", text)
        self._queue.extendleft(reversed(again))
        self._done += given_up

    def _stop_late_packs(self) -> None:
        if self._limits.hard is None:
            return
        for worker in list(self._workers.values()):
            pack = worker.flights[0].pack if worker.flights else None
            if pack is None:
                continue
            limit = self._limits.hard * len(pack.candidates)
            seconds = self._clock() - worker.running_since
            if seconds > limit:
                text = f"killed at the hard limit of {self._limits.hard:g} s a candidate"
                text += told(worker.had, worker.usage(), seconds)
                self._bury(worker, Failure.TIMEOUT, text)

    def _drain(self) -> None:
        """Give no more work to nodes that are about to go, and leave them."""
        self._draining = self._fleet.draining()
        for worker in list(self._workers.values()):
            if worker.node not in self._draining:
                continue
            worker.leaving = True
            for flight in list(worker.flights)[1:]:
                self._recall(flight)
            if not worker.flights:
                self._retire(worker)

    # How many workers

    def _scale(self) -> None:
        packs = len(self._queue) + sum(pack is not None for pack in self._reserved.values())
        packs += sum(len(worker.flights) for worker in self._workers.values())
        most = packs if self._most is None else self._most
        wanted = min(most, packs) if self._elastic else most
        staying = [worker for worker in self._workers.values() if not worker.leaving]
        for _ in range(wanted - len(staying)):
            self._numbers += 1
            self._workers[self._numbers] = _Worker(self._numbers, self._clock())
            self._fleet.start(self._numbers)
        if len(staying) <= wanted:
            self._needed_at = self._clock()
        elif self._clock() - self._needed_at > IDLE_SECONDS:
            idle = [worker for worker in staying if not worker.flights]
            idle.sort(key=lambda worker: worker.node is not None)  # first those not yet there
            for worker in idle[: len(staying) - wanted]:
                self._retire(worker)

    def _retire(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        if worker.node is not None:
            self._worker_seconds += self._clock() - worker.started_at
        self._fleet.kill(worker.number)

    def _require_workers(self) -> None:
        """Raise if packs wait, and for long no worker has come."""
        now = self._clock()
        waiting = any(worker.node is None for worker in self._workers.values())
        if not waiting or any(worker.node is not None for worker in self._workers.values()):
            self._served_at = now
        elif now - self._served_at > self._fleet.patience():
            raise ExecutorError(
                f"no worker started within {self._fleet.patience():.0f} s: {self._fleet.wants()}"
            )

    # Who runs what

    def _feed(self) -> None:
        self._feed_alone()
        ready = [w for w in self._workers.values() if w.node is not None and not w.leaving]
        free = [worker for worker in ready if worker.node not in self._reserved]
        nodes = {worker.node for worker in free}
        for depth in range(1, IN_FLIGHT + 1):  # a first pack for all before a second for any
            for worker in free:
                if len(worker.flights) < depth:
                    pack = self._next(worker, nodes)
                    if pack is not None:
                        self._send(worker, pack)
        self._rebalance(free)

    def _next(self, worker: _Worker, nodes: set[str | None]) -> Pack | None:
        for pack in self._queue:
            elsewhere = pack.avoid == worker.node and len(nodes) > 1
            if not pack.alone and not elsewhere:
                self._queue.remove(pack)
                return pack
        return None

    def _feed_alone(self) -> None:
        """Empty a node for each pack that wants one to itself."""
        for node in list(self._reserved):
            workers = [worker for worker in self._at(node) if not worker.leaving]
            pack = self._reserved[node]
            if not workers and pack is not None:
                self._queue.appendleft(pack)
            if not workers or (pack is None and not any(w.flights for w in workers)):
                del self._reserved[node]
        for lonely in [pack for pack in self._queue if pack.alone]:
            load = Counter[str]()
            for worker in self._workers.values():
                if worker.node not in (None, *self._reserved) and not worker.leaving:
                    load[str(worker.node)] += len(worker.flights)
            if load:
                self._queue.remove(lonely)
                _, _, node = min((node == lonely.avoid, load[node], node) for node in load)
                self._reserved[node] = lonely
        for node, pack in self._reserved.items():
            workers = self._at(node)
            if pack is not None and not any(worker.flights for worker in workers):
                self._send(workers[0], pack)
                self._reserved[node] = None

    def _rebalance(self, free: list[_Worker]) -> None:
        """Call back packs that wait behind a long one while another worker idles."""
        if self._queue:
            return
        idle = sum(not worker.flights for worker in free)
        now = self._clock()
        for worker in free:
            last = worker.flights[-1] if len(worker.flights) > 1 else None
            long = now - worker.running_since > RECALL_SECONDS
            if idle and long and last is not None and last.pack is not None:
                self._recall(last)
                idle -= 1

    def _recall(self, flight: _Flight) -> None:
        """Take a waiting pack back; its place is taken until the worker comes to it."""
        if flight.pack is not None:
            self._fleet.recall(flight.number)
            self._queue.append(flight.pack)
            flight.pack = None

    def _send(self, worker: _Worker, pack: Pack) -> None:
        self._numbers += 1
        if not worker.flights:
            self._begin(worker)
        worker.flights.append(_Flight(self._numbers, pack))
        soft = self._limits.soft
        seconds = None if soft is None else soft * len(pack.candidates)
        self._fleet.run(worker.number, self._numbers, pack.candidates, seconds)

    def _begin(self, worker: _Worker) -> None:
        """Note when the worker's next pack begins, and what the worker has had by then."""
        worker.running_since = self._clock()
        if self._limits.hard is not None:
            worker.had = worker.usage()

    def _at(self, node: str) -> list[_Worker]:
        return [worker for worker in self._workers.values() if worker.node == node]
