"""Does the cluster work? Prints nodes and GPUs; writes and reads the storage from each node.

ray job submit --working-dir . -- python cluster/smoke.py --storage s3://bucket/runs
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from typing import Any

import ray
from pyarrow import fs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SECONDS = 120.0


def main() -> int:
    """Look at every node; return 0 if all of them are fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="auto", help="of the cluster (%(default)s)")
    parser.add_argument("--storage", help="folder or URL where runs will be kept")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=arguments.address, log_to_driver=False)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    mark = uuid.uuid4().hex
    reports = {
        node["NodeID"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(arguments.storage, f"smoke-{mark}-{node['NodeID']}")
        for node in nodes
    }
    ray.wait(list(reports.values()), num_returns=len(reports), timeout=SECONDS)
    faults = 0
    for node in nodes:
        wanted = node["Resources"]
        gpus = int(wanted.get("GPU", 0))
        print(f"{node['NodeManagerHostname']}  {wanted.get('CPU', 0):g} CPU  {gpus} GPU")
        for line, fit in findings(reports[node["NodeID"]], gpus):
            print(f"  {'ok  ' if fit else 'FAIL'}  {line}")
            faults += not fit
    print(f"{len(nodes)} nodes, {faults} faults")
    return 1 if faults else 0


@ray.remote(num_cpus=0)
def look(storage: str | None, name: str) -> dict[str, Any]:
    """Return what this node has, and whether it can write, read and delete a file."""
    import torch

    report: dict[str, Any] = {
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": f"ray {ray.__version__}, torch {torch.__version__}",
        "storage": None,
    }
    if storage is not None:
        try:
            exercise(storage, name)
            report["storage"] = ""
        except Exception as error:  # any library of any cloud may raise its own
            report["storage"] = f"{type(error).__name__}: {error}"
    return report


def exercise(storage: str, name: str) -> None:
    """Write, read and delete a file.

    Raises:
        OSError: if what was read is not what was written, or the storage says no.
    """
    system, folder = fs.FileSystem.from_uri(storage)
    system.create_dir(folder, recursive=True)
    path = f"{folder}/{name}"
    with system.open_output_stream(path) as file:
        file.write(name.encode())
    with system.open_input_stream(path) as file:
        if file.read() != name.encode():
            raise OSError(f"{storage} does not give back what was written")
    system.delete_file(path)


def findings(reference: Any, gpus: int) -> list[tuple[str, bool]]:
    """Return the lines about one node, each with whether it is as it should be."""
    try:
        report = ray.get(reference, timeout=0.0)
    except ray.exceptions.RayError as error:
        return [(f"no answer within {SECONDS:.0f} s: {type(error).__name__}", False)]
    lines = [
        (report["versions"], True),
        (f"torch sees {', '.join(report['gpus']) or 'no GPU'}", len(report["gpus"]) >= gpus),
    ]
    if report["storage"] is not None:
        lines.append((f"storage: {report['storage'] or 'written and read'}", not report["storage"]))
    return lines


if __name__ == "__main__":
    sys.exit(main())
