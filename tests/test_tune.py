"""A study under Ray Tune."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from evometa.errors import StudyError
from evometa.records import Status
from evometa.store import RunDirectory, evaluations, read_table

STUDY = Path(__file__).resolve().parents[1] / "search_spaces" / "sinusoid.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def local_ray(monkeypatch):
    import ray

    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }.items():
        monkeypatch.setenv(name, value)
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


def test_asha_searches_a_study_and_the_table_keeps_it(local_ray, tmp_path):
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from evometa.tune import make_search_alg, make_trainable

    tuner = tune.Tuner(
        make_trainable(STUDY, iterations=(2, 4, 8)),
        tune_config=tune.TuneConfig(
            metric="query_loss",
            mode="min",
            num_samples=9,
            search_alg=make_search_alg(STUDY, tmp_path / "run", concurrent=2),
            scheduler=ASHAScheduler(max_t=3, grace_period=1, reduction_factor=3),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    )
    results = tuner.fit()
    assert len(results) == 9 and results.num_errors == 0
    stored = list(evaluations(read_table(tmp_path / "run")))
    assert sorted(e.candidate.number for e in stored) == list(range(9))
    assert {e.candidate.rung for e in stored} > {0}, "none was stopped, or none went on"
    best = json.loads(results.get_best_result().metrics["evaluation"])["candidate"]["number"]
    losses = {e.candidate.number: e.metrics.get("query_loss", 1e9) for e in stored}
    assert losses[best] == min(losses.values())
    assert RunDirectory.read(tmp_path / "run")["settings"]["order"] == "arrival"


def result_of(config, rung=0):
    from dataclasses import asdict, replace

    from evometa.records import Evaluation, Status
    from evometa.tune import _candidate

    candidate = replace(_candidate(config), rung=rung)
    loss = (candidate.number * 7 % 5) + 0.5
    row = asdict(Evaluation(candidate, Status.OK, {"query_loss": loss, "params": 3.0}))
    return {"evaluation": json.dumps({**row, "status": "OK"})}


def search_alg(run):
    from evometa.tune import make_search_alg

    return make_search_alg(STUDY, run, concurrent=4, seed=3).searcher


def walk(alg, first, last):
    """Ask and tell, three trials on their way at any time; return the configs."""
    configs = {}
    for number in range(first, last):
        configs[number] = alg.suggest(f"trial-{number}")
        if number >= 3:
            before = configs.get(number - 3) or alg.before[number - 3]
            alg.on_trial_complete(f"trial-{number - 3}", result_of(before))
    return configs


def test_what_is_restored_goes_on_as_if_never_stopped(tmp_path):
    import pickle

    whole = walk(search_alg(tmp_path / "whole"), 0, 40)
    alg = search_alg(tmp_path / "stopped")
    before = walk(alg, 0, 20)
    alg.save(str(tmp_path / "state.json"))
    again = pickle.loads(pickle.dumps(alg))
    alg._directory.__exit__(None, None, None)  # as the end of its process would
    again.restore(str(tmp_path / "state.json"))
    again.before = before
    assert before | walk(again, 20, 40) == whole


def test_a_trial_that_failed_is_lost(tmp_path):
    alg = search_alg(tmp_path / "run")
    alg.suggest("a")
    alg.on_trial_complete("a", error=True)
    alg.save(os.devnull)
    (evaluation,) = evaluations(read_table(tmp_path / "run"))
    assert evaluation.status.value == "LOST"


@pytest.mark.parametrize("iterations", [(), (4, 2), (2, 2)])
def test_rungs_must_increase(iterations):
    from evometa.tune import make_trainable

    with pytest.raises(StudyError, match="must increase"):
        make_trainable(STUDY, iterations)


TUNED = """
import sys, time
from pathlib import Path
import ray
from ray import tune
from evometa.tune import make_search_alg, make_trainable

def main():
    study, folder, restore = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "restore"
    ray.init(address=sys.argv[4], log_to_driver=False, logging_level="ERROR")
    trainable = make_trainable(study, iterations=(2, 4))
    if restore:
        tuner = tune.Tuner.restore(str(folder / "tune/study"), trainable=trainable)
    else:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric="query_loss", mode="min", num_samples=8, reuse_actors=True,
                search_alg=make_search_alg(study, folder / "run", concurrent=2, seed=3),
            ),
            run_config=tune.RunConfig(
                name="study", storage_path=str(folder / "tune"), verbose=0
            ),
        )
    results = tuner.fit()
    print("trials", len(results), "errors", results.num_errors)

main()
"""


@pytest.fixture
def address(request):
    """Where Ray is: started by each driver here, or a cluster of machines that survives them."""
    if request.param == 1:
        yield "local"
        return
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    for _ in range(request.param):
        cluster.add_node(**{k: v for k, v in node.items() if k != "include_dashboard"})
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@contextmanager
def tuned(folder, how, address):
    """A tuner in a session of its own, which is ended at the latest with the block."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(STUDY.parents[1]),
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "0.5",  # snapshots of Tune's, as a long search has many
    }
    process = subprocess.Popen(
        [sys.executable, "-c", TUNED, STUDY, folder, how, address],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    "address",
    [pytest.param(1, marks=pytest.mark.nightly), 2],
    indirect=True,
    ids=["one machine", "two"],
)
def test_an_interrupted_tuner_is_restored(tmp_path, address):
    run, whole = tmp_path / "run", False
    while not whole:  # Tune cannot go on from a snapshot that it was just writing
        for leftover in ("run", "tune"):
            shutil.rmtree(tmp_path / leftover, ignore_errors=True)
        with tuned(tmp_path, "start", address) as process:
            while not ((run / "evaluations").is_dir() and len(read_table(run)) >= 3):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
        snapshots = [*(tmp_path / "tune/study").glob("experiment_state-*.json")]
        whole = bool(snapshots) and all(path.stat().st_size for path in snapshots)
    before = {e.candidate.id: e for e in evaluations(read_table(run))}
    assert 3 <= len(before) < 8
    with tuned(tmp_path, "restore", address) as process:
        said = process.communicate()[0]
    assert "trials 8 errors 0" in said, said
    stored = list(evaluations(read_table(run)))
    assert sorted(e.candidate.number for e in stored) == list(range(8))
    assert {e.status for e in stored} <= {Status.OK, Status.DIVERGED, Status.INVALID}
    assert {e.candidate.rung for e in stored if e.status is Status.OK} == {1}
    after = {e.candidate.id: e for e in stored}
    for name, evaluation in before.items():  # evaluated again if Tune had forgotten it, to the same
        assert after[name].candidate == evaluation.candidate
        assert after[name].scores == evaluation.scores
