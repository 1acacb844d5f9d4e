"""The Ray pool keeps the contract, and survives what candidates do to their workers."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from evometa.errors import ExecutorError
from evometa.execute.supervisor import Limits
from evometa.records import Candidate, Evaluation, Status
from tests.contracts.executor import ExecutorContract, candidates, collect_all, evaluate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_cluster_that_is_not_there_is_named():
    from evometa.execute.ray_pool import RayPool

    with pytest.raises(
        ExecutorError, match=r"no Ray cluster at '127\.0\.0\.1:1'.*ray start --head"
    ):
        RayPool(evaluate, address="127.0.0.1:1")


@pytest.fixture(scope="module")
def local_ray():
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture
def make(local_ray):
    from evometa.execute.ray_pool import RayPool

    pools = []

    def start(evaluate, **options):
        pools.append(RayPool(evaluate, **options))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


class TestRayPool(ExecutorContract):
    @pytest.fixture
    def make(self, make):
        import tests.contracts.executor as suite

        return lambda evaluate: make(evaluate, modules=(suite,))


PRINTED = 5 * 2**20


def misbehave(pack):
    """A genome is a number of seconds, or what a candidate does to its worker."""
    for candidate in pack:
        if candidate.genome == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif candidate.genome == "exit":
            os._exit(0)
        elif candidate.genome == "threads":
            threading.Thread(target=time.sleep, args=(3600,)).start()
        elif candidate.genome == "prints":
            print("x" * PRINTED, flush=True)
        elif str(candidate.genome).startswith("sleep"):
            Path(candidate.genome.split()[1]).touch()
            time.sleep(3600)
        elif str(candidate.genome).startswith("waits"):
            folder = Path(candidate.genome.split()[1])
            (folder / ".pid").write_text(str(os.getpid()))
            (folder / ".pid").rename(folder / "pid")
            if not (folder / "go").exists():
                time.sleep(3600)
        elif candidate.genome == "raise":
            raise ValueError(f"candidate {candidate.number} raises")
        else:
            time.sleep(candidate.genome)
    where = {"pid": float(os.getpid())}
    return [Evaluation(candidate, Status.OK, where) for candidate in pack]


HERE = (sys.modules[__name__],)


def run(pool, crowd, pack=1, seconds=150):
    for start in range(0, len(crowd), pack):
        pool.submit(crowd[start : start + pack])
    found = collect_all(pool, len(crowd), seconds)
    assert sorted(e.candidate.number for e in found) == list(range(len(crowd)))
    assert pool.collect(0.0) == []
    return {e.candidate.number: e for e in found}


def crowd_with(guilty, n=16, seconds=0.01):
    return [Candidate(number, guilty.get(number, seconds), 0) for number in range(n)]


@pytest.fixture
def asleep(tmp_path, monkeypatch):
    """A clock for the supervisor: an hour passes whenever a candidate has gone to sleep."""
    import evometa.execute.ray_pool as module

    sleeps, late, looks = tmp_path / "sleeps", 0.0, 0

    def clock():
        nonlocal late, looks
        looks = looks + 1 if sleeps.exists() else 0
        if looks == 100:  # by then the supervisor has heard of all that came before
            sleeps.unlink()
            late += 3600.0
        return time.monotonic() + late

    monkeypatch.setattr(module, "START_SECONDS", 1e6)  # no worker need start within such an hour
    monkeypatch.setattr(module, "Supervisor", partial(module.Supervisor, clock=clock))
    return sleeps


def test_each_guilty_candidate_has_its_status_and_no_other(make, asleep):
    """One worker, so that nobody else is busy in the hours that pass."""
    guilty = {1: "segfault", 6: f"sleep {asleep}", 14: "raise", 17: "exit"}
    pool = make(misbehave, modules=HERE, workers=1, limits=Limits(hard=600.0))
    found = run(pool, crowd_with(guilty, n=20), pack=4)
    status = {n: e.status for n, e in found.items() if e.status is not Status.OK}
    assert status.pop(1) is Status.LOST and "died 3 times" in found[1].error
    assert status.pop(6) is Status.TIMEOUT and "hard limit of 600 s" in found[6].error
    assert "s of CPU time" in found[6].error
    assert status.pop(17) is Status.LOST and "died 3 times" in found[17].error
    assert status == {14: Status.ERROR}
    assert "ValueError: candidate 14 raises" in found[14].error
    counts = pool.counts()
    assert set(counts.failures) == {"crash", "timeout"} and counts.failures["timeout"] == 3
    # a death may take the result before it along, which has not left the worker yet
    assert counts.failures["crash"] >= 10 and counts.alive + counts.starting == 1


def test_what_candidates_leave_behind_and_print_is_in_nobodys_way(make):
    import ray

    pool = make(misbehave, modules=HERE, workers=1)
    found = run(pool, [Candidate(0, "threads", 0), Candidate(1, "prints", 0), Candidate(2, 0.0, 0)])
    assert {e.status for e in found.values()} == {Status.OK}
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    kept = sum(file.stat().st_size for file in logs.glob(f"worker*{int(found[1].metrics['pid'])}*"))
    assert kept < PRINTED / 2


def noting_the_order_of_sets(pack):
    order = " ".join({f"feature {number}" for number in range(20)})
    return [Evaluation(each, Status.OK, {"query_loss": 0.0}, note=order) for each in pack]


@pytest.mark.parametrize("own", [None, "random", "7"])
def test_all_workers_order_sets_of_texts_alike(make, monkeypatch, own):
    if own is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", own)
    found = set()
    for _ in range(2):  # each with a worker of its own
        pool = make(noting_the_order_of_sets, workers=1)
        pool.submit(candidates(1))
        found |= {each.note for each in collect_all(pool, 1)}
        pool.close()
    code = "print(' '.join({f'feature {number}' for number in range(20)}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7" if own == "7" else "0"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert found == {said.stdout.decode().strip()}


def test_who_ends_a_worker_ends_no_candidate(make, tmp_path):
    """A machine that goes down signals its processes; Ray would raise it in a candidate's code."""
    pool = make(misbehave, modules=HERE, workers=1)
    pool.submit([Candidate(0, f"waits {tmp_path}", 0)])
    while not (tmp_path / "pid").exists():
        assert pool.collect(0.05) == []
    (tmp_path / "go").touch()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    (found,) = collect_all(pool, 1)
    assert found.status is Status.OK and pool.counts().failures == {"crash": 1}


def test_our_handler_of_sigterm_outlives_ray(monkeypatch):
    """Ray puts two of its own in place when it starts, and the default when it ends."""
    code = """
import signal, ray
from evometa.execute import ray_pool
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
assert ray_pool._connect(None)
signal.raise_signal(signal.SIGTERM)
from evometa.execute.ray_start import guarded
guarded(ray.shutdown)
signal.raise_signal(signal.SIGTERM)
assert heard == [1, 1]
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_workers_killed_at_random_cost_no_candidate(make):
    pool = make(misbehave, modules=HERE)
    rng, crowd, found = random.Random(0), crowd_with({}, n=60, seconds=0.2), []
    pids, kills = set(), 0  # those that brought a result since the last kill
    for candidate in crowd:
        pool.submit([candidate])
    until = time.monotonic() + 150
    while len(found) < len(crowd) and time.monotonic() < until:
        new = pool.collect(0.2)
        found += new
        pids |= {int(e.metrics["pid"]) for e in new if e.status is Status.OK}
        if pids and kills < 6 and len(found) > 8 * kills:
            os.kill(rng.choice(sorted(pids)), signal.SIGKILL)
            pids = set()
            kills += 1
    assert kills == 6
    assert sorted(e.candidate.number for e in found) == list(range(60))
    assert {e.status for e in found} == {Status.OK}


class Patient:
    """An evaluator that listens to the soft limit."""

    def __init__(self, late=lambda: False):
        self._late = late

    def until(self, late):
        return Patient(late)

    def __call__(self, pack):
        until = time.monotonic() + 60
        while not self._late() and time.monotonic() < until:
            time.sleep(0.01)
        status = Status.TIMEOUT if self._late() else Status.OK
        return [Evaluation(c, status, {"pid": float(os.getpid())}) for c in pack]


def test_an_evaluator_that_listens_stops_at_the_soft_limit_and_keeps_its_worker(make):
    pool = make(Patient(), modules=HERE, workers=1, limits=Limits(soft=0.3))
    found = run(pool, candidates(3))
    assert {e.status for e in found.values()} == {Status.TIMEOUT}
    assert len({e.metrics["pid"] for e in found.values()}) == 1
    assert pool.counts().lost == 0


def test_the_users_module_travels_by_value(make, tmp_path):
    import importlib.util

    file = tmp_path / "not_on_workers.py"
    file.write_text(
        textwrap.dedent(
            """
            from evometa.records import Evaluation, Status
            def evaluate(pack):
                return [Evaluation(c, Status.OK, {"twice": 2.0 * c.number}) for c in pack]
            """
        )
    )
    spec = importlib.util.spec_from_file_location("not_on_workers", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["not_on_workers"] = module
    spec.loader.exec_module(module)
    file.unlink()
    pool = make(module.evaluate, modules=(module,))
    pool.submit(candidates(3))
    assert sorted(e.metrics["twice"] for e in collect_all(pool, 3)) == [0.0, 2.0, 4.0]


class Unloadable:
    def __reduce__(self):
        return (_refuse, (os.getpid(),))


def _refuse(pid):
    if os.getpid() != pid:
        raise ModuleNotFoundError("No module named 'only_here'")
    return Unloadable()


def test_a_study_that_workers_cannot_load_is_said(make):
    pool = make(Unloadable(), modules=HERE)
    with pytest.raises(ExecutorError, match=r"(?s)cannot load the study.*only_here"):
        collect_all(pool, 1)
