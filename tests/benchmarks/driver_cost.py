"""What the driver costs: ask, store and tell with evaluations that do nothing.

    python -m tests.benchmarks.driver_cost --candidates 10000

The whole product but the training: the default searcher, the loop, the Parquet store with its
flushes and merges, on the serial executor. Memory is the driver's, sampled along the way.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from evometa.budget import Budget, Meter
from evometa.execute import Serial
from evometa.records import Evaluation, Status
from evometa.run import Schedule, Search
from evometa.search import Wishes, make_searcher
from evometa.space import Choice, Float, Int, List, Struct, gene_value
from evometa.store import RunDirectory, Writer, make_schema, read_table

OBJECTIVES = {"query_loss": "min", "params": "min"}
SPACE = Struct(
    hidden=List(Int(8, 80, step=8), 1, 3),
    activation=Choice("relu", "tanh", "silu"),
    rate=Float(0.001, 1, log=True),
    steps=Int(1, 5),
)
EPISODES = 200


def no_op(pack):  # type: ignore[no-untyped-def]
    return [
        Evaluation(
            candidate,
            Status.OK,
            {
                "query_loss": abs(candidate.genome["rate"] - 0.05),
                "params": float(sum(candidate.genome["hidden"])),
            },
            scores=tuple(float(candidate.number + i) for i in range(EPISODES)),
        )
        for candidate in pack
    ]


class Watch:
    """Notes time and resident memory every thousand candidates."""

    def __init__(self, total: int) -> None:
        self._every, self._seen, self.marks = max(1, total // 10), 0, []

    def recorded(self, evaluation: Evaluation) -> None:
        self._seen += 1
        if self._seen % self._every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = pages * resource.getpagesize() / 2**20
            self.marks.append((self._seen, time.perf_counter(), megabytes))

    def found(self, evaluation: Evaluation) -> None:
        pass

    def tick(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--searchers", nargs="+", default=["random", "evolution", "nsga2"])
    arguments = parser.parse_args()
    print("| searcher | ms each | first tenth | last tenth | MB at 1/10 | MB at end | files |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.searchers:
        print("| " + " | ".join(measure(name, arguments.candidates)) + " |", flush=True)


def measure(name: str, n: int) -> list[str]:
    watch = Watch(n)
    genes = {path: leaf.type for path, leaf in SPACE.genes().items()}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        searcher = make_searcher(name, SPACE, OBJECTIVES, 0, Wishes(n))
        started = time.perf_counter()
        with (
            RunDirectory.create(run, {}, "") as directory,
            Writer(directory, make_schema(genes, ["query_loss", "params"]), gene_value) as writer,
        ):
            meter = Meter(Budget(), OBJECTIVES)
            Search(searcher, Serial(no_op), writer, watch, meter, Schedule(16)).run()
        seconds = time.perf_counter() - started
        assert len(read_table(run)) == n
        files = len(list((run / "evaluations").iterdir()))
    marks = watch.marks
    first = (marks[0][1] - started) / marks[0][0] * 1e3
    last = (marks[-1][1] - marks[-2][1]) / (marks[-1][0] - marks[-2][0]) * 1e3
    return [name, f"{seconds / n * 1e3:.2f}", f"{first:.2f}", f"{last:.2f}",
            f"{marks[0][2]:.0f}", f"{marks[-1][2]:.0f}", str(files)]  # fmt: skip


if __name__ == "__main__":
    main()
