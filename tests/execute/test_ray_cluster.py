"""The Ray pool on a cluster whose machines come, go and run out of memory."""

import os
import sys
import time

import pytest

from evometa.records import Candidate, Evaluation, Status
from tests.contracts.executor import collect_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
HERE = (sys.modules[__name__],)


def locate(pack):
    import ray

    node = ray.get_runtime_context().get_node_id()
    for candidate in pack:
        if candidate.genome == "eat":
            hoard = []
            while True:
                hoard.append(bytearray(os.urandom(2**20)) * 64)
        time.sleep(candidate.genome)
    return [Evaluation(candidate, Status.OK, node=node) for candidate in pack]


@pytest.fixture
def cluster(monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def pool_on(cluster, **options):
    from evometa.execute.ray_pool import RayPool

    return RayPool(locate, address=cluster.address, modules=HERE, **options)


def crowd(n, seconds):
    return [Candidate(number, seconds, 0) for number in range(n)]


def finish(pool, found, n, seconds=120):
    found += collect_all(pool, n - len(found), seconds)
    assert sorted(e.candidate.number for e in found) == list(range(n))
    return {e.status for e in found}


def test_a_killed_raylet_loses_nothing(cluster):
    doomed = cluster.add_node(**NODE)
    cluster.add_node(**NODE)
    pool = pool_on(cluster)
    try:
        assert pool.workers == 2
        for candidate in crowd(40, 0.3):
            pool.submit([candidate])
        found = collect_all(pool, 10)
        cluster.remove_node(doomed, allow_graceful=False)
        assert finish(pool, found, 40) == {Status.OK}
        assert {e.node for e in found[-5:]}.isdisjoint({doomed.node_id})
        assert set(pool.counts().failures) == {"node"}
    finally:
        pool.close()


def test_a_node_that_joins_late_is_used_within_seconds(cluster):
    pool = pool_on(cluster)  # nothing is there yet, and packs do not wait on workers to come
    try:
        for candidate in crowd(60, 0.3):
            pool.submit([candidate])
        assert pool.collect(0.5) == []
        first = cluster.add_node(**NODE)
        found = collect_all(pool, 5)
        assert {e.node for e in found} == {first.node_id}
        late = cluster.add_node(**NODE)
        joined = time.monotonic()
        while late.node_id not in {e.node for e in found}:
            found += pool.collect(0.1)
        seconds = time.monotonic() - joined
        print(f"a late node brings its first result after {seconds:.1f} s")
        assert seconds < 20  # most of it a process that starts on a busy machine
        assert finish(pool, found, 60) == {Status.OK}
    finally:
        pool.close()


def test_a_draining_node_gets_no_new_work(cluster):
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    going = cluster.add_node(**NODE)
    cluster.add_node(**NODE)
    pool = pool_on(cluster)
    try:
        for candidate in crowd(40, 0.3):
            pool.submit([candidate])
        found = collect_all(pool, 10)
        accepted, text = GcsClient(cluster.address).drain_node(
            going.node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "spot",
            int((time.time() + 3600) * 1000),
        )
        assert accepted, text
        found += collect_all(pool, 10)
        later = len(found)
        assert finish(pool, found, 40) == {Status.OK}
        assert {e.node for e in found[later:]}.isdisjoint({going.node_id})
        assert pool.counts().failures == {}
    finally:
        pool.close()


def test_nothing_is_asked_for_at_the_end(cluster):
    import ray
    from ray._private.state import state

    pool = pool_on(cluster, workers=5)
    for candidate in crowd(5, 0.1):
        pool.submit([candidate])
    assert pool.counts().starting == 5
    pool.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        states = {actor["State"] for actor in state.actor_table(None).values()}
        if states <= {"DEAD"}:
            break
        time.sleep(0.2)
    assert states == {"DEAD"}
    assert ray.is_initialized()


def test_who_eats_memory_is_blamed_and_no_other(monkeypatch):
    import psutil
    import ray
    from ray.cluster_utils import Cluster

    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 2.5 * 2**30) / memory.total
    if threshold > 0.9:
        pytest.skip("this machine has too little free memory to waste some of it")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{threshold:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 2, "include_dashboard": False}
    )
    try:
        pool = pool_on(cluster)
        genomes = [0.1, 0.1, "eat", *[0.1] * 9]
        for number, genome in enumerate(genomes):
            pool.submit([Candidate(number, genome, 0)])
        found = collect_all(pool, len(genomes), 200)
        status = {e.candidate.number: e.status for e in found}
        assert len(found) == len(status) == len(genomes)
        assert status.pop(2) is Status.OOM
        assert set(status.values()) == {Status.OK}
        pool.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
