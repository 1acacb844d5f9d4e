"""On the workers of a Ray cluster: long-lived actors, supervised by the driver.

One actor a core (or a GPU) lives as long as the search, so that a candidate costs about a
millisecond of the driver, and no process, directory or file. The pool is our own because
`ray.util.ActorPool` takes an actor that is just restarting for an idle one, and burns candidates
on it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)

from evometa.errors import ExecutorError
from evometa.execute.protocol import Evaluate, failed, run_pack
from evometa.records import Candidate, Evaluation, Status

IN_FLIGHT = 2  # packs an actor: the second hides the way to the driver and back
ATTEMPTS = 3
START_SECONDS = 120.0


@dataclass
class _Pack:
    candidates: tuple[Candidate, ...]
    attempts: int = 0


@dataclass
class _Worker:
    actor: Any
    packs: deque[tuple[Any, _Pack]] = field(default_factory=deque)  # the first one runs


class RayPool:
    """Evaluates packs on Ray actors.

    A pack whose worker dies goes to another one; after three deaths its candidate is `LOST`. The
    packs that only waited on that worker are not blamed, and a pack of several is split, so that
    the guilty candidate is found. What the evaluator raises is an `ERROR` with its traceback.

    Args:
        evaluate: turns a pack into evaluations; put into the object store once.
        address: of a running cluster, `"auto"` for the one on this machine; None starts one here.
        workers: how many actors; None takes one a GPU, or one a core where there is no GPU.
        modules: modules that workers do not have; their functions travel by value.

    Raises:
        ExecutorError: if there is no cluster at the address.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        address: str | None = None,
        workers: int | None = None,
        modules: Sequence[ModuleType] = (),
    ) -> None:
        self._owns_ray = _connect(address)
        self._queue: deque[_Pack] = deque()
        self._done: list[Evaluation] = []
        self._pool: list[_Worker] = []
        self._closed = False
        self._gpus = int(ray.cluster_resources().get("GPU", 0))
        cores = int(ray.cluster_resources().get("CPU", 1))
        self.workers = workers or self._gpus or cores
        if self._owns_ray and self.workers > cores:
            self.close()
            raise ExecutorError(
                f"a worker needs a core, but {self.workers} are wanted and this machine has "
                f"{cores}; lower --workers, or give the --address of a cluster"
            )
        for module in modules:
            ray.cloudpickle.register_pickle_by_value(module)
        self._evaluate = ray.put(evaluate)
        self._ready_by: float | None = time.monotonic() + START_SECONDS
        self._pool = [self._start() for _ in range(self.workers)]

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Queue a pack; it starts as soon as a worker is free."""
        if self._closed:
            raise ExecutorError("the executor is closed; make a new one")
        self._queue.append(_Pack(tuple(pack)))
        self._feed()

    def collect(self, timeout: float) -> list[Evaluation]:
        """Return what has finished; wait up to `timeout` seconds for the first.

        Raises:
            ExecutorError: if no worker starts within two minutes.
        """
        self._feed()
        refs = {ref: worker for worker in self._pool for ref, _ in worker.packs}
        if refs and not self._done:
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=timeout, fetch_local=False)
            if ready:
                ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0, fetch_local=False)
            for ref in ready:
                self._take(refs[ref], ref)
            self._check_started(bool(ready))
        elif not self._done:
            time.sleep(timeout)
        done, self._done = self._done, []
        self._feed()
        return done

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        if self._closed:
            return
        self._closed = True
        for worker in self._pool:
            ray.kill(worker.actor, no_restart=True)
        self._pool = []
        if self._owns_ray:
            ray.shutdown()

    def _start(self) -> _Worker:
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        if self._gpus:
            options["num_gpus"] = 1
        else:
            # Ray leaves all GPUs visible to actors that ask for none
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        return _Worker(ray.remote(_Actor).options(**options).remote(self._evaluate))

    def _feed(self) -> None:
        for depth in range(1, IN_FLIGHT + 1):  # a first pack for all before a second for any
            for worker in self._pool:
                if self._queue and len(worker.packs) < depth:
                    pack = self._queue.popleft()
                    worker.packs.append((worker.actor.run.remote(pack.candidates), pack))

    def _take(self, worker: _Worker, ref: Any) -> None:
        if worker not in self._pool:
            return  # it was replaced while an earlier pack of this round was taken
        pack = next(pack for held, pack in worker.packs if held == ref)
        try:
            self._done += ray.get(ref)
        except RayTaskError as error:
            if isinstance(error, OutOfMemoryError) or isinstance(error.cause, OutOfMemoryError):
                self._replace(worker, str(error), memory=True)
                return
            self._done += failed(pack.candidates, Status.ERROR, str(error))
        except OutOfMemoryError as error:
            self._replace(worker, str(error), memory=True)
            return
        except (RayActorError, RayError) as error:
            if getattr(error, "actor_init_failed", False):
                raise ExecutorError(f"the workers cannot load the study: {error}") from error
            self._replace(worker, str(error), preempted=getattr(error, "preempted", False))
            return
        worker.packs = deque((held, other) for held, other in worker.packs if held != ref)

    def _replace(
        self, worker: _Worker, reason: str, *, memory: bool = False, preempted: bool = False
    ) -> None:
        """Start a worker in a dead one's place, and its packs again; blame the one that ran."""
        packs = [pack for _, pack in worker.packs]
        ray.kill(worker.actor, no_restart=True)
        self._pool[self._pool.index(worker)] = self._start()
        if not packs:
            return
        running, *waiting = packs
        self._queue.extendleft(reversed(waiting))
        if not preempted:
            running.attempts += 1
        if len(running.candidates) > 1:
            singles = [_Pack((candidate,)) for candidate in running.candidates]
            self._queue.extendleft(reversed(singles))
        elif running.attempts >= (2 if memory else ATTEMPTS):
            status = Status.OOM if memory else Status.LOST
            text = f"its worker died {running.attempts} times; the last: {reason}"
            self._done += failed(running.candidates, status, text)
        else:
            self._queue.appendleft(running)

    def _check_started(self, ready: bool) -> None:
        if ready:
            self._ready_by = None
        if self._ready_by is not None and time.monotonic() > self._ready_by:
            wanted = f"{self.workers} workers of 1 CPU" + (" and 1 GPU" if self._gpus else "")
            try:
                pings = [worker.actor.ping.remote() for worker in self._pool]
                ray.get(pings[0], timeout=5.0)
            except GetTimeoutError as error:
                raise ExecutorError(
                    f"no worker started within {START_SECONDS:.0f} s: {wanted} are wanted, free "
                    f"are {ray.available_resources()}; ask for fewer with --workers"
                ) from error
            self._ready_by = None  # they have started, and their first packs are long


class _Actor:
    """A worker: holds the evaluator, and runs packs one after the other."""

    def __init__(self, evaluate: Evaluate) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
        self._evaluate = evaluate

    def run(self, pack: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate a pack."""
        return run_pack(self._evaluate, pack)

    def ping(self) -> bool:
        """Answer once the worker has started."""
        return True


def _probe(address: str | None) -> None:
    """Knock at a `HOST:PORT` address: `ray.init` would try for minutes where nobody answers.

    Raises:
        OSError: if nobody answers.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10.0).close()


def _connect(address: str | None) -> bool:
    """Connect to a cluster, or start one; return whether it was started here."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _probe(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ExecutorError(
            f"there is no Ray cluster at {address!r}: {error}. Start one with `ray start --head`, "
            "look at it with `ray status`, or leave --address out to use this machine"
        ) from error
    return address is None
