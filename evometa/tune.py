"""A study under Ray Tune, for those who live in it: its schedulers, loggers and results.

`make_trainable` turns a study into a trainable whose every step is a rung, a longer meta-training
than the one before; `make_search_alg` proposes its candidates and keeps the table. Tune costs the
driver more than ten times as much for each candidate as `evometa search`, and does not pack; use it
for its schedulers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search import Searcher as TuneSearcher

from evometa.errors import StudyError
from evometa.evaluate import Evaluator
from evometa.launch import Data, Settings, describe, prepare, schema_of
from evometa.records import Candidate, Evaluation, Status, canonical_json
from evometa.search import Searcher, Wishes, make_searcher
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, evaluations, place, read_table
from evometa.study_file import Shipped, StudyFile, load_study

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unless it is turned on

__all__ = ["make_search_alg", "make_trainable"]

NO_DATA = Data()


def make_trainable(
    file: Path | str, iterations: Sequence[int], *, seed: int = 0, data: Data = NO_DATA
) -> Any:
    """Return a study as a class trainable of Tune.

    Step *k* meta-trains the candidate from the beginning for `iterations[k - 1]` meta-iterations
    and reports all metrics of the study, `training_iteration` being *k*. A candidate that fails is
    done, and reports the worst value of each objective.

    Args:
        file: a study file.
        iterations: meta-iterations of the rungs, increasing.
        seed: the study's seed.
        data: where the task's data is.

    Raises:
        StudyError: if the file cannot be loaded, or the rungs do not increase.
    """
    if not iterations or sorted({*iterations}) != [*iterations]:
        raise StudyError(f"`iterations` must increase from rung to rung, got {iterations!r}")
    found = prepare(load_study(file), data).packed()
    studies = [found.study.with_training(iterations=n) for n in iterations]
    rungs = [Shipped.of(found, Evaluator(study, seed)) for study in studies]
    return tune.with_parameters(_Trainable, rungs=rungs)


def make_search_alg(
    file: Path | str,
    run: Path | str,
    *,
    concurrent: int,
    seed: int = 0,
    searcher: str | None = None,
    data: Data = NO_DATA,
) -> ConcurrencyLimiter:
    """Return a search algorithm of Tune that proposes a study's candidates.

    Args:
        file: a study file; its objectives are the metrics, the first is the one that Tune sees.
        run: the run directory that keeps the table; made if it is not there.
        concurrent: how many candidates are on their way at once.
        seed: decides everything random.
        searcher: a name of `evometa.search`; default by the number of objectives.
        data: where the task's data is.
    """
    return ConcurrencyLimiter(_SearchAlg(str(file), str(run), seed, searcher, data), concurrent)


class _Trainable(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """Evaluates one candidate, at one rung after the other."""

    def setup(self, config: dict[str, Any], rungs: Sequence[Shipped]) -> None:
        self._rungs = rungs
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._candidate = _candidate(new_config)
        return True

    def step(self) -> dict[str, Any]:
        rung = self.iteration
        study = self._rungs[rung].evaluate.study
        (found,) = self._rungs[rung]([self._candidate])  # whose study has one level, this one
        evaluation = replace(found, candidate=replace(self._candidate, rung=rung))
        if not all(map(math.isfinite, evaluation.metrics.values())):
            evaluation = replace(evaluation, status=Status.DIVERGED, metrics={}, scores=())
        worst = {
            name: math.inf if direction == "min" else -math.inf
            for name, direction in study.objectives.items()
        }
        done = evaluation.status is not Status.OK or rung + 1 == len(self._rungs)
        row = asdict(replace(evaluation, status=evaluation.status.value))
        return {**worst, **evaluation.metrics, "done": done, "evaluation": json.dumps(row)}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # every rung begins anew; Tune keeps the count

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """There is nothing to load."""


class _SearchAlg(TuneSearcher):  # type: ignore[misc]  # ray has no types
    """Asks a searcher, keeps results in a run directory, and tells.

    Only the arguments are pickled; `save` keeps the order of asking and telling, and `restore`
    walks it again with the rows of the table.
    """

    def __init__(self, file: str, run: str, seed: int, searcher: str | None, data: Data) -> None:
        objectives = load_study(file).study.objectives
        metric, direction = next(iter(objectives.items()))
        super().__init__(metric=metric, mode=direction)
        self._arguments = (file, run, seed, searcher, data)
        self._live: dict[str, Candidate] = {}  # by trial
        self._journal: list[str] = []  # "" for an ask, else the id that was told
        self._searcher: Searcher | None = None
        self._directory: RunDirectory | None = None
        self._writer: Writer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(*state["arguments"])  # type: ignore[misc]

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Refuse a `param_space`: the study's space is searched."""
        return not config

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next candidate, as the config of a trial."""
        searcher = self._open()
        batch = searcher.ask(1)
        if not batch:
            return str(TuneSearcher.FINISHED)
        self._journal.append("")
        (candidate,) = batch
        self._live[trial_id] = candidate
        return {**asdict(candidate), "genome": canonical_json(candidate.genome)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Wait for the last one."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep the result of the highest rung, then tell it."""
        searcher = self._open()
        candidate = self._live.pop(trial_id, None)
        if candidate is None:
            return
        if result is None or error:
            told = Evaluation(candidate, Status.LOST, error="its trial failed; Tune's logs say how")
        else:
            told = _evaluation(result["evaluation"])
        assert self._writer is not None
        self._writer.append(told, sum(map(bool, self._journal)))
        self._journal.append(candidate.id)
        searcher.tell([told])

    def save(self, checkpoint_path: str) -> None:
        """Keep what the table does not say: the order of asking and telling."""
        if self._writer is not None:
            self._writer.flush()
        live = {trial: candidate.number for trial, candidate in self._live.items()}
        text = json.dumps({"journal": self._journal, "live": live})
        Path(checkpoint_path).write_text(text, encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Ask and tell again as before."""
        kept = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
        searcher = self._open()
        stored = {e.candidate.id: e for e in evaluations(read_table(place(self._arguments[1])))}
        asked: dict[int, Candidate] = {}
        for told in kept["journal"]:
            if told:
                searcher.tell([stored[told]])
            else:
                asked |= {candidate.number: candidate for candidate in searcher.ask(1)}
        self._journal = kept["journal"]
        self._live = {trial: asked[number] for trial, number in kept["live"].items()}

    def _open(self) -> Searcher:
        if self._searcher is None:
            file, run, seed, name, data = self._arguments
            found = prepare(load_study(file), data)
            study = found.study
            chosen = name or study.searcher
            self._directory = _run_directory(found, run, seed, name or "", data)
            self._writer = Writer(self._directory, schema_of(found), gene_value)
            self._searcher = make_searcher(
                chosen, study.space, study.objectives, seed, Wishes(seeds=study.baselines)
            )
        return self._searcher


def _run_directory(
    found: StudyFile, run: str, seed: int, searcher: str, data: Data
) -> RunDirectory:
    path = place(run)
    if (path / "study.json").exists():
        return RunDirectory.open(path)
    settings = Settings(
        found.study.candidates, seed=seed, searcher=searcher, order="arrival", data=data
    )
    found = found.packed()
    bundle = found.bundle()
    return RunDirectory.create(
        path, describe(found, settings), bundle.small[bundle.study], bundle.others
    )


def _candidate(config: dict[str, Any]) -> Candidate:
    genome = json.loads(config["genome"])
    return Candidate(**{**config, "genome": genome, "parents": tuple(config["parents"])})


def _evaluation(text: str) -> Evaluation:
    row = json.loads(text)
    candidate = {**row["candidate"], "parents": tuple(row["candidate"]["parents"])}
    return Evaluation(
        **{
            **row,
            "candidate": Candidate(**candidate),
            "status": Status(row["status"]),
            "scores": tuple(row["scores"]),
            "steps": tuple(row["steps"]),
            "curve": tuple((step, loss) for step, loss in row["curve"]),
        }
    )
