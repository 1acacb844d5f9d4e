"""Train the best anew, with other seeds, and test them on meta-test beside the baselines."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from evometa.errors import EvometaError, StoreError, StudyError
from evometa.evaluate import Evaluator
from evometa.execute import Executor
from evometa.launch import Watch, Workers, make_executor
from evometa.metrics import scored_metric
from evometa.records import Candidate, Evaluation, Genome, Status, derive_seed
from evometa.report import rank
from evometa.report.standing import standing
from evometa.reuse.stored import StoredRun
from evometa.store import (
    Lock,
    Place,
    RunDirectory,
    confirmed_row,
    hold,
    read_confirmed,
    write_confirmed,
)
from evometa.study import Study

log = logging.getLogger(__name__)

REPEATS = 1000  # most new seeds of a candidate
FOLDER = "confirmed"
POLL_SECONDS = 0.2
FINAL = (Status.OK, Status.DIVERGED, Status.INVALID)


@dataclass(frozen=True)
class Confirmation:
    """What is trained anew.

    Attributes:
        top: how many of the best, by the first objective.
        seeds: new trainings of each.
        episodes: of meta-test.
        iterations: meta-iterations; None for as many as in the search.
        only: ids of candidates to take instead of the best.
        again: forget an earlier confirmation.
    """

    top: int = 5
    seeds: int = 3
    episodes: int = 600
    iterations: int | None = None
    only: Sequence[str] = ()
    again: bool = False

    def __post_init__(self) -> None:
        for name, most in (("top", None), ("seeds", REPEATS), ("episodes", None)):
            value = getattr(self, name)
            if value < 1 or (most is not None and value > most):
                raise StudyError(f"`{name} >= 1` must hold, but got ({name}={value!r})")


@dataclass(frozen=True)
class _Training:
    """A new training, as a candidate with a number of its own."""

    original: Candidate
    repeat: int
    rung: int
    search_scores: Sequence[float]

    @property
    def candidate(self) -> Candidate:
        number = self.original.number * REPEATS + self.repeat
        seed = derive_seed(self.original.seed, "confirm", self.repeat)
        return replace(self.original, number=number, seed=seed, rung=self.rung)


def confirm(
    run: StoredRun, wanted: Confirmation, workers: Workers, watch: Callable[[int, Executor], Watch]
) -> pa.Table:
    """Confirm the best of a run on meta-test; the only thing here that touches meta-test.

    Each is trained in full with seeds that the search has not seen, as are the baselines; all are
    tested on the same episodes of meta-test, and on the meta-validation episodes of the search, so
    that what selection has flattered can be told. Every finished training is kept in
    `confirm.parquet` at once, and is not repeated.

    Args:
        run: the run.
        wanted: what is trained anew.
        workers: where.
        watch: makes the observer from the number of trainings and from who does them.

    Returns:
        The confirmation, one row a candidate and new seed.

    Raises:
        StoreError: if another confirmation runs, or an earlier one had other numbers.
        EvometaError: if there is nothing to confirm.
    """
    study = run.full
    if wanted.iterations is not None:
        study = study.with_training(iterations=wanted.iterations)
    chosen = _chosen(run, wanted)
    with ExitStack() as stack:
        lock = _held(run.place / FOLDER)
        stack.callback(lock.release)
        if wanted.again:
            _forget(run.place)
        rows = _kept(run, wanted, study.training.iterations)
        behind = {(row["number"], row["repeat"]) for row in rows}
        trainings = {
            (each := _Training(candidate, repeat, len(study.rungs), scores)).candidate.number: each
            for candidate, scores in chosen
            for repeat in range(wanted.seeds)
            if (candidate.number, repeat) not in behind
        }
        if trainings:
            _warn_of_smaller_packs(trainings.values(), wanted.seeds)
            executor = make_executor(_evaluator(run, study, wanted), workers, run.file)
            stack.callback(executor.close)
            observer = stack.enter_context(watch(len(trainings), executor))
            for evaluation in _results(executor, list(trainings.values()), observer):
                training = trainings[evaluation.candidate.number]
                rows.append(_row(run, evaluation, training, study.training.iterations))
                lock.check()
                write_confirmed(run.place, run.kept, rows)
                shown = replace(training.original, rung=0)
                observer.recorded(replace(evaluation, candidate=shown))
        lock.check()
        return write_confirmed(run.place, run.kept, rows)


def _warn_of_smaller_packs(trainings: Iterable[_Training], seeds: int) -> None:
    """Say whose numbers may differ in the last digits from those of a confirmation in one go."""
    packs = Counter(training.original.id for training in trainings)
    fewer = [f"{id_} ({count})" for id_, count in packs.items() if count < seeds]
    if fewer:
        log.warning(
            "Of %s fewer than %d seeds are trained, the others being there already. Seeds are "
            "trained together, and in a smaller pack the last digits may differ; --again trains "
            "all of them in one",
            ", ".join(fewer),
            seeds,
        )


def _evaluator(run: StoredRun, study: Study, wanted: Confirmation) -> Evaluator:
    """Return what trains in full, and tests on meta-test and the search's meta-validation."""
    return replace(
        run.evaluator(),
        study=study,
        splits={"meta-test": wanted.episodes, "meta-validation": study.training.validation},
        keep=str((run.place / FOLDER).resolve()) if isinstance(run.place, Path) else None,
    )


def _results(
    executor: Executor, trainings: Sequence[_Training], observer: Watch
) -> Iterator[Evaluation]:
    """Yield the evaluation of each training as it comes."""
    for pack in _packs(trainings):
        executor.submit(pack)
    left = len(trainings)
    while left:
        found = executor.collect(POLL_SECONDS)
        left -= len(found)
        yield from found
        observer.tick()


def _chosen(run: StoredRun, wanted: Confirmation) -> list[tuple[Candidate, Sequence[float]]]:
    """Return the best, or those that are asked for, and the baselines, with their scores."""
    study = run.file.study
    ranked = rank(
        run.table,
        study.objectives,
        scored=scored_metric(run.kept),
        n=len(run.table),
        full=len(study.rungs),
        limits=study.limits,
    )
    best = [row.id for row in ranked if row.feasible and not row.name][: wanted.top]
    ids = list(dict.fromkeys(wanted.only or best))
    if not ids:
        raise EvometaError(
            f"there is nothing to confirm: of {run.place} no candidate has succeeded in full "
            + ("within the constraints " if study.limits else "")
            + "besides the baselines"
        )
    ids += [row.id for row in ranked if row.name and row.id not in ids]
    table = standing(run.table, len(study.rungs))
    scores = dict(zip(table["candidate_id"].to_pylist(), table["scores"].to_pylist(), strict=True))
    chosen = [(run.evaluation(id_).candidate, scores.get(id_, ())) for id_ in ids]
    known = {candidate.operator for candidate, _ in chosen}
    return chosen + [
        (_baseline(place, name, genome, run.settings.seed), ())
        for place, (name, genome) in enumerate(study.baselines.items())
        if f"seed:{name}" not in known
    ]


def _baseline(place: int, name: str, genome: Genome, seed: int) -> Candidate:
    """Return a baseline that the search has no result of; baselines are its first candidates."""
    return Candidate(place, genome, derive_seed(seed, "baseline", name), operator=f"seed:{name}")


def _held(folder: Place) -> Lock:
    """Make the folder of the weights, and hold it.

    Raises:
        StoreError: if it cannot be made, or another confirmation holds it.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error}") from error
    return hold(folder)


def _forget(run: Place) -> None:
    """Delete an earlier confirmation, with its weights."""
    if isinstance(run, Path):
        for path in (run / FOLDER).glob("*.safetensors"):
            path.unlink(missing_ok=True)
    write_confirmed(run, RunDirectory.read(run), [])


def _kept(run: StoredRun, wanted: Confirmation, iterations: int) -> list[dict[str, Any]]:
    table = read_confirmed(run.place)
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    rows = [row for row in rows if row["status"] in FINAL]
    for row in rows:
        had = (row["iterations"], len(row["scores"]) or wanted.episodes)
        if had != (iterations, wanted.episodes):
            raise StoreError(
                f"{run.place} holds a confirmation of {had[0]:,} meta-iterations and {had[1]:,} "
                f"episodes, not of {iterations:,} and {wanted.episodes:,}; ask for the same, or "
                "give --again to forget it"
            )
    return rows


def _packs(trainings: Sequence[_Training]) -> list[list[Candidate]]:
    """Return the seeds of each candidate as a pack."""
    packs: dict[int, list[Candidate]] = {}
    for training in trainings:
        packs.setdefault(training.original.number, []).append(training.candidate)
    return list(packs.values())


def _row(
    run: StoredRun, evaluation: Evaluation, training: _Training, iterations: int
) -> dict[str, Any]:
    named = replace(training.original, seed=evaluation.candidate.seed, rung=training.rung)
    return confirmed_row(
        replace(evaluation, candidate=named),
        run.kept["metrics"],
        repeat=training.repeat,
        iterations=iterations,
        search_scores=training.search_scores,
    )
