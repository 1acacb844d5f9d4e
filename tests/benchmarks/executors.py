"""What a candidate costs the driver: a bare `ray.wait` loop, the pool, Ray Tune, in turn; a whole
search; and the supervisor alone with up to a thousand workers that do not exist.

python -m tests.benchmarks.executors

Evaluations sleep, so that what else the machine does costs them nothing. Beside the time that
passes, CPU time of the driver is told, for the same reason.
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
KINDS = ((2000, 200, 0.0), (100, 60, 0.1), (20, 18, 1.0))  # candidates, those of Tune, seconds


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


def stopwatch():
    """Return what returns the seconds a candidate that have passed, and those of CPU."""
    passed, cpu = time.perf_counter(), time.process_time()
    return lambda n: ((time.perf_counter() - passed) / n, (time.process_time() - cpu) / n)


def bare(n, seconds):
    """Return seconds, and CPU seconds, a candidate of the shortest loop for two actors."""
    import ray

    @ray.remote(num_cpus=1)
    class Actor:
        def ping(self):
            return True

        def run(self, pack):
            return evaluate(pack, seconds)

    actors = [Actor.remote() for _ in range(WORKERS)]
    ray.get([actor.ping.remote() for actor in actors])
    stop, todo, running, done = stopwatch(), list(range(n)), {}, 0
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
    elapsed = stop(n)
    for actor in actors:
        ray.kill(actor)
    return elapsed


def started_pool(seconds):
    """Return the pool, its workers up."""
    from evometa.execute.ray_pool import RayPool

    evaluator = functools.partial(evaluate, seconds=seconds)
    executor = RayPool(evaluator, workers=WORKERS, modules=(sys.modules[__name__],))
    while executor.counts().alive < WORKERS:
        executor.collect(0.1)
    return executor


def pool(n, seconds):
    """Return seconds, and CPU seconds, a candidate of the pool, its workers up."""
    executor = started_pool(seconds)
    stop, sent, done = stopwatch(), 0, 0
    while done < n:
        for _ in range(min(n, done + WINDOW) - sent):
            executor.submit([Candidate(sent, None, 0)])
            sent += 1
        done += len(executor.collect(0.2))
    elapsed = stop(n)
    executor.close()
    return elapsed


def tuned(n, seconds):
    """Return seconds and CPU seconds a candidate of Ray Tune, after its first sixth, and files."""
    from ray import tune

    import evometa.tune as subject

    ends = []

    class Watch(tune.Callback):
        def on_trial_complete(self, *arguments, **more):
            ends.append((time.perf_counter(), time.process_time()))

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
    pairs = zip(ends[first], ends[-1], strict=True)
    return [(end - begin) / (len(ends) - 1 - first) for begin, end in pairs], files / n


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
    """Run a whole search on the pool; return its times a candidate, and what was watched."""
    genes = {path: leaf.type for path, leaf in SPACE.genes().items()}
    executor = started_pool(seconds)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(n, Path(folder, "run"))
        strategy = make_searcher(searcher, SPACE, OBJECTIVES, 0, Wishes(n))
        with (
            RunDirectory.create(Path(folder, "run"), {}, "") as directory,
            Writer(directory, make_schema(genes, [*OBJECTIVES]), gene_value) as writer,
        ):
            stop, meter = stopwatch(), Meter(Budget(), OBJECTIVES)
            Search(strategy, executor, writer, watch, meter, Schedule(WINDOW)).run()
            elapsed = stop(n)
        files = sum(1 for _ in watch._run.rglob("*"))
    executor.close()
    return elapsed, watch, files


def supervisor(workers, n):
    """Return CPU seconds a candidate that runs for 5 to 15 s, and how busy the workers are."""
    from evometa.execute.supervisor import Limits, Supervisor
    from tests.execute.world import World

    world = World({f"node-{i}": 8 for i in range(workers // 8 + 1)})
    subject = Supervisor(world, clock=world.clock, most=workers, limits=Limits(hard=1000.0))
    stop, sent, done = stopwatch(), 0, 0
    while done < n:
        for _ in range(min(n, done + 3 * workers) - sent):
            subject.submit([Candidate(sent, world.random.uniform(5, 15), 0)])
            sent += 1
        done += len(subject.collect(5.0))
    return stop(n)[1], subject.counts().utilisation


def say(text):
    print(text, flush=True)


def in_turn():
    """Measure the contenders one after the other, several times; print medians."""
    say("| evaluation | bare ray.wait | the pool | Ray Tune, actors reused | the pool is busy |")
    say("|---|---|---|---|---|")
    files = 0.0
    for n, n_tune, seconds in KINDS:
        rounds = []
        for _ in range(ROUNDS):
            tune, files = tuned(n_tune, seconds)
            rounds.append([bare(n, seconds), pool(n, seconds), tune])
        medians = [
            [1e3 * statistics.median(each[place][clock] for each in rounds) for clock in (0, 1)]
            for place in range(3)
        ]
        cells = (f"{passed:.2f} ms, CPU {cpu:.2f} ms" for passed, cpu in medians)
        busy = f"{1e3 * seconds / WORKERS / medians[1][0]:.1%}" if seconds else ""
        say(f"| {seconds:g} s | {' | '.join(cells)} | {busy} |")
    say(f"Ray Tune leaves {files:.2f} files and folders a candidate")


def searches():
    """Measure whole searches: how busy the workers are, memory, files."""
    n = 60
    (seconds, _), *_ = whole(n, 1.0)
    say(f"a whole search, 1 s evaluations: busy {1 / WORKERS / seconds:.1%} of what is possible")
    n = 5000
    (seconds, cpu), watch, files = whole(n, 0.0)
    low, high = watch.megabytes[0], watch.megabytes[-1]
    say(
        f"a whole search, {n:,} candidates of 0 s: {1e3 * seconds:.2f} ms each, CPU "
        f"{1e3 * cpu:.2f} ms; the driver has {low:.0f} MB after a tenth, {high:.0f} MB at the end; "
        f"at most {watch.most_files} files and folders, {files} at the end, {files / n:.4f} each"
    )


def simulated():
    for workers, n in ((10, 5_000), (100, 10_000), (1000, 20_000)):
        seconds, utilisation = supervisor(workers, n)
        say(f"supervisor, {workers:>4} workers: CPU {1e3 * seconds:.2f} ms, busy {utilisation:.1%}")
    traffic.report([20_000, 50_000])


def on_ray():
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


if __name__ == "__main__":
    simulated()
    on_ray()
