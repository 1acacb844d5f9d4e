"""The Ray pool keeps the contract, and survives what candidates do to their workers."""

import os
import sys
import textwrap

import pytest

from evometa.errors import ExecutorError
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


def kills_its_worker(pack):
    if any(candidate.genome == "die" for candidate in pack):
        os._exit(1)
    return [Evaluation(candidate, Status.OK) for candidate in pack]


def test_a_candidate_that_kills_its_worker_is_lost_and_no_other(make):
    pool = make(kills_its_worker, modules=(sys.modules[__name__],))
    crowd = candidates(12)
    crowd[5] = Candidate(5, "die", 0)
    pool.submit(crowd[:4])
    pool.submit(crowd[4:8])  # the guilty one is found by splitting this pack
    for candidate in crowd[8:]:
        pool.submit([candidate])
    found = {e.candidate.number: e for e in collect_all(pool, 12, seconds=120)}
    assert sorted(found) == list(range(12))
    assert {n for n, e in found.items() if e.status is not Status.OK} == {5}
    assert found[5].status is Status.LOST
    assert "died" in found[5].error


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
