"""What a candidate costs the driver: a bare `ray.wait` loop, the pool, Ray Tune; and the supervisor
alone with up to a thousand workers that do not exist.

python -m tests.benchmarks.executors
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from evometa.records import Candidate, Evaluation, Status

STUDY = Path(__file__).resolve().parents[2] / "search_spaces" / "sinusoid.py"
WORKERS, WINDOW = 2, 16


def evaluate(pack):
    if pack[0].genome:
        time.sleep(pack[0].genome)
    return [Evaluation(candidate, Status.OK, {"query_loss": 1.0}) for candidate in pack]


class Rung:
    """What `evometa.tune` takes for an evaluator; costs nothing."""

    class study:
        objectives = {"query_loss": "min"}

    def __call__(self, pack):
        return [Evaluation(candidate, Status.OK, {"query_loss": 1.0}) for candidate in pack]


def bare(n, seconds):
    """Return seconds a candidate of the shortest loop that keeps two actors busy."""
    import ray

    @ray.remote(num_cpus=1)
    class Actor:
        def ping(self):
            return True

        def run(self, pack):
            return evaluate(pack)

    actors = [Actor.remote() for _ in range(WORKERS)]
    ray.get([actor.ping.remote() for actor in actors])
    started, todo, running, done = time.perf_counter(), list(range(n)), {}, 0
    for actor in actors:
        running[actor.run.remote((Candidate(todo.pop(), seconds, 0),))] = actor
    while running:
        ready, _ = ray.wait(list(running), num_returns=1)
        for ref in ready:
            actor = running.pop(ref)
            done += len(ray.get(ref))
            if todo:
                running[actor.run.remote((Candidate(todo.pop(), seconds, 0),))] = actor
    assert done == n
    for actor in actors:
        ray.kill(actor)
    return (time.perf_counter() - started) / n


def pool(n, seconds):
    """Return seconds a candidate of the pool, its workers up."""
    from evometa.execute.ray_pool import RayPool

    executor = RayPool(evaluate, workers=WORKERS, modules=(sys.modules[__name__],))
    while executor.counts().alive < WORKERS:
        executor.collect(0.1)
    started, sent, done = time.perf_counter(), 0, 0
    while done < n:
        for _ in range(min(n, done + WINDOW) - sent):
            executor.submit([Candidate(sent, seconds, 0)])
            sent += 1
        done += len(executor.collect(0.2))
    elapsed = time.perf_counter() - started
    executor.close()
    return elapsed / n


def tuned(n):
    """Return seconds a candidate of Ray Tune, after its first fifty."""
    from ray import tune

    import evometa.tune as subject

    ends = []

    class Watch(tune.Callback):
        def on_trial_complete(self, *arguments, **more):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        search = subject.make_search_alg(STUDY, f"{folder}/run", concurrent=4, searcher="random")
        tune.Tuner(
            tune.with_parameters(subject._Trainable, rungs=[Rung()]),
            tune_config=tune.TuneConfig(
                metric="query_loss", mode="min", num_samples=n, reuse_actors=True, search_alg=search
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Watch()]),
        ).fit()
    return (ends[-1] - ends[50]) / (len(ends) - 51)


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


def main():
    for workers, n in ((10, 5_000), (100, 10_000), (1000, 20_000)):
        seconds, utilisation = supervisor(workers, n)
        print(
            f"supervisor, {workers:>4} workers: {1e3 * seconds:.2f} ms, busy {utilisation:.1%}",
            flush=True,
        )
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
    for n, seconds in ((2000, 0.0), (200, 0.1), (20, 1.0)):
        rounds = [(bare(n, seconds), pool(n, seconds)) for _ in range(3)]
        one, other = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{n} x {seconds} s: bare {one:.2f} ms, pool {other:.2f} ms, {other / one:.2f} times",
            flush=True,
        )
    print(f"Ray Tune, 0.0 s: {1e3 * tuned(300):.1f} ms")
    ray.shutdown()


if __name__ == "__main__":
    main()
