"""The same study file runs on a laptop and on a cluster, to the same table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evometa.store import TIME_AND_PLACE, read_table

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "search_spaces" / "sinusoid.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def evometa(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "evometa.cli", *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


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
        evometa(tmp_path, "search", STUDY, "--run", "laptop", "--executor", "serial", *short)
        evometa(tmp_path, "search", STUDY, "--run", "cluster", "--address", cluster.address, *short)
    finally:
        cluster.shutdown()
    laptop, far = (
        read_table(tmp_path / run).drop_columns([*TIME_AND_PLACE]) for run in ("laptop", "cluster")
    )
    assert len(set(laptop["number"].to_pylist())) == 6
    assert laptop.to_pylist() == far.to_pylist()
