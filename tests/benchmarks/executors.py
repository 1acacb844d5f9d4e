"""What a candidate costs the driver: a bare `ray.wait` loop, the pool, Ray Tune, in turn; a whole
search; and the supervisor alone with up to a thousand workers that do not exist.

python -m tests.benchmarks.executors

Evaluations sleep, so that what else the machine does costs them nothing.
"""

import functools
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from evometa.budget import Budget, Meter
from evometa.records import Candidate, Evaluation, Status
from evometa.run import Schedule, Search
from evometa.search import Wishes, make_searcher
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, make_schema
from tests.benchmarks import traffic
from tests.benchmarks.driver_cost import OBJECTIVES, SPACE

STUDY = Path(__file__).resolve().parents[2] / "search_spaces" / "sinusoid.py"
WORKERS, WINDOW, ROUNDS = 2, 16, 3
KINDS = ((2000, 300, 0.0), (100, 100, 0.1), (20, 24, 1.0))  # candidates, those of Tune, seconds


def evaluate(pack, seconds=0.0):
    if seconds:
        time.sleep(seconds * len(pack))
    metrics = {"query_loss": 1.0, "params": 1.0}
    return [Evaluation(candidate, Status.OK, metrics) for candidate in pack]


class Rung:
    """What `evometa.tune` takes for an evaluator; only sleeps."""

    class study:
        objectives = {"query_loss": "min"}

    def __init__(self, seconds):
        self._seconds = seconds

    def __call__(self, pack):
        return evaluate(pack, self._seconds)


def bare(n, seconds):
    """Return seconds a candidate of the shortest loop that keeps two actors busy."""
    import ray

    @ray.remote(num_cpus=1)
    class Actor:
        def ping(self):
            return True

        def run(self, pack):
            return evaluate(pack, seconds)

    actors = [Actor.remote() for _ in range(WORKERS)]
    ray.get([actor.ping.remote() for actor in actors])
    started, todo, running, done = time.perf_counter(), list(range(n)), {}, 0
    for actor in actors:
        running[actor.run.remote((Candidate(todo.pop(), None, 0),))] = actor
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        for ref in ready:
            actor = running.pop(ref)
            done += len(ray.get(ref))
            if todo:
                running[actor.run.remote((Candidate(todo.pop(), None, 0),))] = actor
    assert done == n
    elapsed = time.perf_counter() - started
    for actor in actors:
        ray.kill(actor)
    return elapsed / n


def started_pool(seconds):
    """Return the pool, its workers up."""
    from evometa.execute.ray_pool import RayPool

    evaluator = functools.partial(evaluate, seconds=seconds)
    executor = RayPool(evaluator, workers=WORKERS, modules=(sys.modules[__name__],))
    while executor.counts().alive < WORKERS:
        executor.collect(0.1)
    return executor


def pool(n, seconds):
    """Return seconds a candidate of the pool, its workers up."""
    executor = started_pool(seconds)
    started, sent, done = time.perf_counter(), 0, 0
    while done < n:
        for _ in range(min(n, done + WINDOW) - sent):
            executor.submit([Candidate(sent, None, 0)])
            sent += 1
        done += len(executor.collect(0.2))
    elapsed = time.perf_counter() - started
    executor.close()
    return elapsed / n


def tuned(n, seconds):
    """Return seconds a candidate of Ray Tune, after its first sixth, and files a candidate."""
    from ray import tune

    import evometa.tune as subject

    ends = []

    class Watch(tune.Callback):
        def on_trial_complete(self, *arguments, **more):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        search = subject.make_search_alg(STUDY, f"{folder}/run", concurrent=4, searcher="random")
        tune.Tuner(
            tune.with_parameters(subject._Trainable, rungs=[Rung(seconds)]),
            tune_config=tune.TuneConfig(
                metric="query_loss", mode="min", num_samples=n, reuse_actors=True, search_alg=search
            ),
            run_config=tune.RunConfig(
                storage_path=f"{folder}/tune", verbose=0, callbacks=[Watch()]
            ),
        ).fit()
        files = sum(1 for _ in Path(folder, "tune").rglob("*"))
    first = len(ends) // 6
    return (ends[-1] - ends[first]) / (len(ends) - 1 - first), files / n


class Watch:
    """Notes how much memory the driver has and how many files there are, all along."""

    def __init__(self, n, run):
        self._n, self._run, self.seen = n, run, 0
        self.megabytes, self.most_files = [], 0

    def recorded(self, evaluation):
        self.seen += 1
        if self.seen % (self._n // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.megabytes.append(pages * resource.getpagesize() / 2**20)
        if self.seen % 10 == 0:
            self.most_files = max(self.most_files, sum(1 for _ in self._run.rglob("*")))

    found = recorded

    def tick(self):
        pass


def whole(n, seconds, searcher="hybrid"):
    """Run a whole search on the pool; return seconds a candidate, and what was watched."""
    genes = {path: leaf.type for path, leaf in SPACE.genes().items()}
    executor = started_pool(seconds)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(n, Path(folder, "run"))
        strategy = make_searcher(searcher, SPACE, OBJECTIVES, 0, Wishes(n))
        with (
            RunDirectory.create(Path(folder, "run"), {}, "") as directory,
            Writer(directory, make_schema(genes, [*OBJECTIVES]), gene_value) as writer,
        ):
            started = time.perf_counter()
            meter = Meter(Budget(), OBJECTIVES)
            Search(strategy, executor, writer, watch, meter, Schedule(WINDOW)).run()
            elapsed = time.perf_counter() - started
        files = sum(1 for _ in watch._run.rglob("*"))
    executor.close()
    return elapsed / n, watch, files


def supervisor(workers, n):
    """Return seconds a candidate that runs for 5 to 15 s, and how busy the workers are."""
    from evometa.execute.supervisor import Limits, Supervisor
    from tests.execute.world import World

    world = World({f"node-{i}": 8 for i in range(workers // 8 + 1)})
    subject = Supervisor(world, clock=world.clock, most=workers, limits=Limits(hard=1000.0))
    started, sent, done = time.perf_counter(), 0, 0
    while done < n:
        for _ in range(min(n, done + 3 * workers) - sent):
            subject.submit([Candidate(sent, world.random.uniform(5, 15), 0)])
            sent += 1
        done += len(subject.collect(5.0))
    return (time.perf_counter() - started) / n, subject.counts().utilisation


def say(text):
    print(text, flush=True)


def in_turn():
    """Measure the contenders one after the other, several times; print medians."""
    say("| evaluation | bare ray.wait | pool | Ray Tune, actors reused | busy: pool |")
    say("|---|---|---|---|---|")
    files = 0.0
    for n, n_tune, seconds in KINDS:
        rounds = []
        for _ in range(ROUNDS):
            tune, files = tuned(n_tune, seconds)
            rounds.append((bare(n, seconds), pool(n, seconds), tune))
        one, other, tune = (statistics.median(column) for column in zip(*rounds, strict=True))
        busy = f"{seconds / WORKERS / other:.1%}" if seconds else ""
        cells = (f"{1e3 * each:.2f} ms" for each in (one, other, tune))
        say(f"| {seconds:g} s | {' | '.join(cells)} | {busy} |")
    say(f"Ray Tune leaves {files:.2f} files and folders a candidate")


def searches():
    """Measure whole searches: how busy the workers are, memory, files."""
    n = 60
    seconds, _, _ = whole(n, 1.0)
    bound = -(-n // WORKERS) / n
    say(f"a whole search, 1 s evaluations: busy {bound / seconds:.1%} of what is possible")
    for searcher in ("random", "evolution", "hybrid"):
        n = 5000
        seconds, watch, files = whole(n, 0.0, searcher)
        low, high = watch.megabytes[0], watch.megabytes[-1]
        say(
            f"{n:,} candidates of 0 s, {searcher}: {1e3 * seconds:.2f} ms each; the driver "
            f"has {low:.0f} MB after a tenth, {high:.0f} MB at the end; at most {watch.most_files} files and "
            f"folders, {files} at the end, {files / n:.3f} a candidate"
        )


def main():
    for workers, n in ((10, 5_000), (100, 10_000), (1000, 20_000)):
        seconds, utilisation = supervisor(workers, n)
        say(f"supervisor, {workers:>4} workers: {1e3 * seconds:.2f} ms, busy {utilisation:.1%}")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AIR_NEW_OUTPUT"):
        os.environ.setdefault(name, "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    import ray

    ray.init(
        address="local",
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    in_turn()
    searches()
    ray.shutdown()
    traffic.report([20_000, 50_000, 100_000])


if __name__ == "__main__":
    main()
