"""On the workers of a Ray cluster: long-lived actors, supervised by the driver.

One actor a core (or a GPU) lives as long as there is work, so that a candidate costs about a
millisecond of the driver, and no process, directory or file. The pool is our own because
`ray.util.ActorPool` takes an actor that is just restarting for an idle one, and burns candidates
on it. Here is only what touches Ray; the decisions are the supervisor's.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
)

from evometa.errors import ExecutorError
from evometa.execute.failures import Failure
from evometa.execute.fleet import Arrived, Event, Finished, Gone
from evometa.execute.interrupts import check_interrupts
from evometa.execute.protocol import Evaluate, Interruptible, failed, run_pack
from evometa.execute.ray_start import (
    cannot_connect,
    cannot_start,
    guarded,
    held,
    knock,
    overheard,
    require_room,
    sigterm_kept,
)
from evometa.execute.supervisor import NO_LIMITS, Limits, Supervisor
from evometa.execute.usage import told, usage
from evometa.files import open_plain
from evometa.records import Candidate, Counts, Evaluation, Status

START_SECONDS = 120.0
SCALE_SECONDS = 900.0  # a cloud may take that long to find a machine
LOOK_SECONDS = 1.0
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RayPool:
    """Evaluates packs on Ray actors.

    What becomes of a pack whose worker is gone is told in `evometa.execute.failures`: no other
    candidate suffers, and the guilty one is `LOST`, `OOM` or `TIMEOUT`. What the evaluator raises
    is an `ERROR` with its traceback.

    On a cluster of others (`address`), workers are asked for as packs need them, so that an
    autoscaler can follow, and given back when they have been idle for a minute.

    Args:
        evaluate: turns a pack into evaluations; put into the object store once. If it is
            `Interruptible`, it is asked to stop at the soft limit.
        address: of a running cluster, `"auto"` for the one on this machine; None starts one here.
        workers: at most how many actors; None takes one a GPU, or one a core where there is none.
        modules: modules that workers do not have; their functions travel by value.
        gpus: of each worker; a fraction lets several share one. None takes one where there are
            any, 0 takes none.
        limits: how long a candidate may take, in seconds.
        logs: folder for what workers print and log, a file each, on the machine of the worker; it
            is made if need be. None keeps nothing.

    Raises:
        ExecutorError: if there is no cluster at the address, or it is too small.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        address: str | None = None,
        workers: int | None = None,
        modules: Sequence[ModuleType] = (),
        gpus: float | None = None,
        limits: Limits = NO_LIMITS,
        logs: str | None = None,
    ) -> None:
        self._owns_ray = _connect(address)
        self._supervisor: Supervisor | None = None
        with ExitStack() as stack:
            stack.callback(self.close)
            fleet = _RayFleet(float(_has_gpus()) if gpus is None else gpus, logs)
            room = fleet.room()
            if self._owns_ray and (workers or 1) > room:
                raise ExecutorError(
                    f"{fleet.needs()}, but {workers or 1} are wanted and this machine has room for "
                    f"{room}; lower --workers, or give the --address of a cluster"
                )
            for module in modules:
                ray.cloudpickle.register_pickle_by_value(module)
            fleet.load(evaluate)
            elastic = address is not None
            self.workers = workers or max(room, 1)
            most = workers if elastic else self.workers
            self._supervisor = Supervisor(fleet, most=most, elastic=elastic, limits=limits)
            stack.pop_all()

    def submit(self, pack: Sequence[Candidate]) -> None:
        """Queue a pack; it starts as soon as a worker is free."""
        self._open().submit(pack)

    def collect(self, timeout: float) -> list[Evaluation]:
        """Return what has finished; wait up to `timeout` seconds for the first.

        Raises:
            ExecutorError: if no worker can be had: none starts within two minutes, or within a
                quarter of an hour where an autoscaler must first find a machine.
            Interrupted: if a person asks to stop.
        """
        check_interrupts()
        return self._open().collect(timeout)

    def counts(self) -> Counts:
        """Return how many workers there are and what became of others."""
        return self._open().counts()

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
        if self._owns_ray:
            self._owns_ray = False
            guarded(ray.shutdown)

    def _open(self) -> Supervisor:
        if self._supervisor is None:
            raise ExecutorError("the executor is closed; make a new one")
        return self._supervisor


@dataclass(frozen=True, slots=True)
class _Call:
    """What is known of an object that Ray will deliver."""

    worker: int
    flight: int = 0  # 0: the worker's arrival
    pack: Sequence[Candidate] = ()


def hash_seed() -> str:
    """Return what orders the sets of texts of all workers: the driver's `PYTHONHASHSEED`, or 0."""
    own = os.environ.get("PYTHONHASHSEED", "")
    return own if own.isdigit() else "0"


class _RayFleet:
    """Workers as Ray actors.

    Args:
        gpus: of each worker.
        logs: folder for what they print; None for nowhere.
    """

    def __init__(self, gpus: float, logs: str | None) -> None:
        self._gpus, self._logs = gpus, logs
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        variables = {"PYTHONHASHSEED": hash_seed()}
        if gpus:
            options["num_gpus"] = gpus
        else:
            # Ray leaves all GPUs visible to actors that ask for none
            variables["CUDA_VISIBLE_DEVICES"] = ""
        options["runtime_env"] = {"env_vars": variables}
        self._actor = ray.remote(_Actor).options(**options)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, _Call] = {}
        self._draining: frozenset[str] = frozenset()
        self._looked_at = -math.inf

    def load(self, evaluate: Evaluate) -> None:
        """Put the evaluator, with its data, where workers find it: once for each node."""
        self._evaluate = ray.put(evaluate)

    def start(self, worker: int) -> None:
        actor = self._actor.remote(self._evaluate, self._logs)
        self._actors[worker] = actor
        self._calls[actor.arrive.remote()] = _Call(worker)

    def run(
        self, worker: int, flight: int, pack: Sequence[Candidate], seconds: float | None
    ) -> None:
        ref = self._actors[worker].run.remote(pack, seconds)
        self._calls[ref] = _Call(worker, flight, pack)

    def recall(self, flight: int) -> None:
        for ref, call in self._calls.items():
            if call.flight == flight:
                ray.cancel(ref)

    def kill(self, worker: int) -> None:
        ray.kill(self._actors.pop(worker), no_restart=True)
        self._calls = {ref: call for ref, call in self._calls.items() if call.worker != worker}

    def wait(self, timeout: float) -> list[Event]:
        if not self._calls:
            time.sleep(timeout)
            return []
        refs = list(self._calls)
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout, fetch_local=False)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        calls = [(self._calls.pop(ref), ref) for ref in ready]
        calls.sort(key=lambda pair: pair[0].flight)
        return [_event(call, ref) for call, ref in calls]

    def draining(self) -> frozenset[str]:
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._draining = _draining_nodes()
        return self._draining

    def patience(self) -> float:
        return START_SECONDS if self.room() else SCALE_SECONDS

    def wants(self) -> str:
        return (
            f"{self.needs()}; the cluster has {_resources(ray.cluster_resources())}, and free are "
            f"{_resources(ray.available_resources())}. Look at it with `ray status`; ask for fewer "
            "with --workers"
        )

    def needs(self) -> str:
        """Say what a worker needs."""
        return "each worker needs 1 CPU" + (f" and {self._gpus:g} GPU" if self._gpus else "")

    def room(self) -> int:
        """Return how many workers the cluster has room for if nobody else uses it."""
        total = 0
        for node in ray.nodes():
            if node["Alive"]:
                cores = node["Resources"].get("CPU", 0.0)
                gpus = node["Resources"].get("GPU", 0.0)
                total += int(min(cores, gpus / self._gpus) if self._gpus else cores)
        return total


class _Actor:
    """A worker: holds the evaluator, and runs packs one after the other."""

    def __init__(self, evaluate: Evaluate, logs: str | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
        # who ends this process ends no candidate: Ray would raise SystemExit in its code
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _print_to(None if logs is None else Path(logs))
        self._stop_at = math.inf
        late = self._late
        self._evaluate = evaluate.until(late) if isinstance(evaluate, Interruptible) else evaluate

    def arrive(self) -> tuple[str, int]:
        """Say on which node it is, and its process there, once it has started."""
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def run(self, pack: Sequence[Candidate], seconds: float | None) -> list[Evaluation]:
        """Evaluate a pack, in `seconds` if the evaluator listens."""
        began, before = time.monotonic(), usage(os.getpid())
        self._stop_at = math.inf if seconds is None else began + seconds
        results = run_pack(self._evaluate, pack)
        had = told(before, usage(os.getpid()), time.monotonic() - began)
        return [
            replace(result, error=result.error + had) if result.status is Status.TIMEOUT else result
            for result in results
        ]

    def _late(self) -> bool:
        return time.monotonic() > self._stop_at


def _print_to(folder: Path | None) -> None:
    """Let this process print, and log from `INFO` on, to a file of its own; None for nowhere.

    Ray would keep what candidates print, however much, in a folder that soon is full.
    """
    if folder is None:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"worker-{socket.gethostname()}-{os.getpid()}.log"
        descriptor = open_plain(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    # line by line, so that a crash loses nothing
    sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, force=True)


def _event(call: _Call, ref: Any) -> Event:
    """Say what a delivered object, or the error in its place, means."""
    try:
        value = ray.get(ref)
    except TaskCancelledError:
        return Finished(call.worker, call.flight, [])
    except OutOfMemoryError as error:
        return Gone(call.worker, Failure.MEMORY, str(error))
    except RayTaskError as error:
        if not call.flight:
            return Gone(call.worker, Failure.CRASH, str(error))
        return Finished(call.worker, call.flight, failed(call.pack, Status.ERROR, str(error)))
    except RayError as error:
        return Gone(call.worker, _failure(error), str(error))
    if call.flight:
        return Finished(call.worker, call.flight, value)
    node, process = value
    here = node == ray.get_runtime_context().get_node_id()
    return Arrived(call.worker, node, *([partial(usage, process)] if here else []))


def _failure(error: RayError) -> Failure:
    if getattr(error, "preempted", False):
        return Failure.PREEMPTED
    text = str(error)
    if "memory monitor" in text or "node running low on memory" in text:
        return Failure.MEMORY
    died = isinstance(error, RayActorError) and not isinstance(error, ActorUnavailableError)
    return Failure.CRASH if died and "node has died" not in text else Failure.NODE


def _has_gpus() -> bool:
    """Return whether there are GPUs in the cluster, or its autoscaler could bring some."""
    if ray.cluster_resources().get("GPU"):
        return True
    try:
        config = ray._private.state.state.get_cluster_config()
        return any(group.resources.get("GPU") for group in config.node_group_configs)
    except Exception:  # private to Ray; there may be no autoscaler
        return False


def _draining_nodes() -> frozenset[str]:
    try:
        return frozenset(ray._private.state.state.get_draining_nodes())
    except Exception:  # private to Ray; without it, nodes are left when they are gone
        return frozenset()


def _resources(found: dict[str, float]) -> str:
    return ", ".join(f"{found.get(name, 0):g} {name}" for name in ("CPU", "GPU"))


def _connect(address: str | None) -> bool:
    """Connect to a cluster, or start one; return whether it was started here."""
    if ray.is_initialized():
        return False
    # nothing is sent to Ray's makers unless it is turned on
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        require_room()
    with overheard() if address else nullcontext(str) as said:
        try:
            if address is not None:
                knock(address)
            with nullcontext() if address else held(), sigterm_kept(ray._private.utils):
                ray.init(
                    address=address or "local",
                    include_dashboard=False if address is None else None,
                    log_to_driver=False,
                    configure_logging=True,
                    logging_level=logging.ERROR,
                )
        except (OSError, ValueError, RuntimeError, RayError) as error:
            guarded(ray.shutdown)
            why = cannot_connect(address, error, said()) if address else cannot_start(error)
            raise why from error
        except BaseException:  # it is half started
            guarded(ray.shutdown)
            raise
    return address is None
