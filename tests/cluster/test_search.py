"""The same study file runs on a laptop and on a cluster, to the same table."""

from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, read_table
from tests.commands import evometa

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "search_spaces" / "sinusoid.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_cluster_gives_the_table_of_a_laptop(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False}
    )
    try:
        for _ in range(2):
            cluster.add_node(**node)
        short = ("-n", 6, "--iterations", 3, "--plan", "vmap", "--time-limit", 60)
        for where in (
            ("laptop", "--executor", "serial"),
            ("cluster", "--address", cluster.address),
        ):
            evometa("search", STUDY, "--run", *where, *short, folder=tmp_path)
    finally:
        cluster.shutdown()
    laptop, far = (
        read_table(tmp_path / run).drop_columns([*TIME_AND_PLACE]) for run in ("laptop", "cluster")
    )
    assert len(set(laptop["number"].to_pylist())) == 6
    assert laptop.to_pylist() == far.to_pylist()
