"""What a search of 1,000 workers and a million evaluations puts on its driver, network and disk.

    python -m tests.benchmarks.traffic --rows 20000 50000 100000

The searcher, the loop and the writer are run for real, on generated results and a simulated clock.
The rest is reckoned: how often a row is written follows from the sizes of the parts alone, so the
merges of any number of rows can be walked through without the rows. The walk is held against what
was really written. Times are the driver's CPU time, so that what else the machine does is not in
them.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import tempfile
import time
from pathlib import Path

from evometa.budget import Budget, Meter
from evometa.execute import Simulated
from evometa.records import Evaluation, Status
from evometa.run import Schedule, Search
from evometa.search import Wishes, make_searcher
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, make_schema, read_table
from evometa.store import writer as store
from tests.benchmarks.driver_cost import OBJECTIVES, SPACE

WORKERS, SECONDS, MILLION = 1000, 10.0, 1_000_000
EPISODES, POINTS = 200, 20
PART = round(WORKERS / SECONDS * store.FLUSH_SECONDS)  # rows that come between two flushes


def result(pack):
    """Return evaluations as large as real ones, which do not compress better than those."""
    return [_result(candidate) for candidate in pack]


def _result(candidate):
    chance = random.Random(candidate.number)
    scores = tuple(chance.gauss(1, 0.5) for _ in range(EPISODES))
    return Evaluation(
        candidate,
        Status.OK,
        {"query_loss": sum(scores) / EPISODES, "params": float(sum(candidate.genome["hidden"]))},
        scores=scores,
        curve=tuple((50 * point, chance.random()) for point in range(POINTS)),
        steps=(1.0, 0.5),
        signature="0123456789abcdef",
        network="Sequential(Linear(1, 40), ReLU(), Linear(40, 40), ReLU(), Linear(40, 1))",
        norm="transductive",
        plan="vmap",
        seconds=chance.lognormvariate(2, 0.3),
        node=f"node-{candidate.number % 125}",
        device="NVIDIA H100",
        started_at=1e9 + candidate.number / 100,
    )


class Recorder:
    """A writer whose clock is the simulated one: a part for every second of it."""

    def __init__(self, writer):
        self._writer, self._waiting = writer, 0
        self.slowest = self.seconds = 0.0

    def append(self, evaluation, told):
        started = time.process_time()
        self._writer.append(evaluation, told)
        self._waiting += 1
        if self._waiting == PART:
            self._writer.flush()
            self._waiting = 0
        took = time.process_time() - started
        self.seconds += took
        self.slowest = max(self.slowest, took)

    def recall(self, *key):
        return self._writer.recall(*key)


class Nobody:
    def recorded(self, evaluation):
        pass

    found = recorded

    def tick(self):
        pass


def search(rows):
    """Search on simulated workers; return what it cost."""
    genes = {path: leaf.type for path, leaf in SPACE.genes().items()}
    written, real = [], store.write_atomically

    def counted(path, write):
        real(path, write)
        written.append(path.stat().st_size)

    searcher = make_searcher("evolution", SPACE, OBJECTIVES, 0, Wishes(rows))
    executor = Simulated(result, lambda candidate: SECONDS, WORKERS)
    store.write_atomically = counted
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            started = time.process_time()
            with RunDirectory.create(run, {}, "") as directory:
                schema = make_schema(genes, ["query_loss", "params"])
                with Writer(directory, schema, gene_value) as writer:
                    recorder = Recorder(writer)
                    meter = Meter(Budget(), OBJECTIVES)
                    schedule = Schedule(3 * WORKERS)
                    Search(searcher, executor, recorder, Nobody(), meter, schedule).run()
            seconds = time.process_time() - started
            assert len(read_table(run, [])) == rows
            files = list((run / "evaluations").iterdir())
            kept = sum(path.stat().st_size for path in files)
    finally:
        store.write_atomically = real
    return {
        "rows": rows,
        "driver ms a row": 1e3 * seconds / rows,
        "of that the store": 1e3 * recorder.seconds / rows,
        "longest stall s": recorder.slowest,
        "files written": len(written),
        "MB written": sum(written) / 1e6,
        "files left": len(files),
        "MB left": kept / 1e6,
        "driver MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def walk(rows):
    """Return how many files and rows are written, the longest merge, and the files that stay."""
    sizes, files, total, most = [], 0, 0, 0  # sizes as the writer counts them, in first parts
    for first in range(0, rows, PART):
        sizes.append(1)
        files, total = files + 1, total + min(PART, rows - first)
        end = first + PART >= rows
        if store.small_parts(sizes) > (store.PARTS_AT_REST if end else store.MOST_PARTS):
            place = store.first_to_merge(sizes)
            if len(sizes) - place > 1:
                sizes[place:] = [sum(sizes[place:])]
                files, total = files + 1, total + PART * sizes[-1]
                most = max(most, PART * sizes[-1])
    return files, total, most, len(sizes)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000, 100_000])
    report(parser.parse_args().rows)


def report(sizes):
    """Print what was measured, and what a million rows would cost."""
    found = [search(rows) for rows in sizes]
    for name in found[0]:
        print(f"{name:<20}" + "".join(f"{each[name]:>14,.4g}" for each in found))
    print("\nby the sizes of parts alone")
    for each in found:
        files, total, *_ = walk(each["rows"])
        print(
            f"{each['rows']:>9,} rows: {files:,} files ({each['files written']:,} counted), each "
            f"row {total / each['rows']:.2f} times "
            f"({each['MB written'] / each['MB left']:.2f} times the bytes that stay)"
        )
    last = found[-1]
    files, total, most, left = walk(MILLION)
    row = last["MB left"] / last["rows"]
    candidate = searcher_candidate()
    there, back = len(pickle.dumps((candidate,))), len(pickle.dumps(result([candidate])))
    print(
        f"{MILLION:>9,} rows: {files:,} files, each row {total / MILLION:.2f} times: "
        f"{row * total / 1e3:.2f} GB written for {row * MILLION / 1e3:.2f} GB that stay in {left} "
        f"files; the longest merge is of {most:,} rows, "
        f"{last['longest stall s'] * most / max(walk(last['rows'])[2], 1):.0f} s"
    )
    print(
        f"over the network, {there:,} bytes to a worker and {back:,} back a candidate: "
        f"{MILLION * (there + back) / 1e9:.2f} GB in all, none through the object store "
        "(results below 100 kB travel with the answer)"
    )


def searcher_candidate():
    (candidate,) = make_searcher("evolution", SPACE, OBJECTIVES, 0, Wishes(1)).ask(1)
    return candidate


if __name__ == "__main__":
    main()
