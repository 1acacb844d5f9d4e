"""Train the best anew, with other seeds, and test them on meta-test beside the baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
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
from evometa.records import BASELINE, Candidate, Evaluation, Genome, Status, derive_seed
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
        for name in ("top", "seeds", "episodes"):
            value = getattr(self, name)
            if value < 1:
                raise StudyError(f"`{name} >= 1` must hold, but got ({name}={value!r})")


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
    study = run.file.study
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
        packs = [
            [
                _repeated(candidate, len(study.rungs), repeat)
                for repeat in range(wanted.seeds)
                if (candidate.number, repeat) not in behind
            ]
            for candidate, _ in chosen
        ]
        packs = [pack for pack in packs if pack]
        scores = {candidate.number: found for candidate, found in chosen}
        if packs:
            _warn_of_smaller_packs(packs, wanted.seeds)
            executor = make_executor(_evaluator(run, study, wanted), workers, run.file)
            stack.callback(executor.close)
            observer = stack.enter_context(watch(sum(map(len, packs)), executor))
            for evaluation in _results(executor, packs, observer):
                candidate = evaluation.candidate
                row = confirmed_row(
                    evaluation,
                    run.kept["metrics"],
                    iterations=study.training.iterations,
                    search_scores=scores[candidate.number],
                )
                rows.append(row)
                lock.check()
                write_confirmed(run.place, run.kept, rows)
                shown = replace(candidate, rung=0, repeat=0)  # each is one of the total
                observer.recorded(replace(evaluation, candidate=shown))
        lock.check()
        return write_confirmed(run.place, run.kept, rows)


def _warn_of_smaller_packs(packs: Sequence[Sequence[Candidate]], seeds: int) -> None:
    """Say whose numbers may differ in the last digits from those of a confirmation in one go."""
    fewer = [f"{pack[0].id} ({len(pack)})" for pack in packs if len(pack) < seeds]
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
    executor: Executor, packs: Sequence[Sequence[Candidate]], observer: Watch
) -> Iterator[Evaluation]:
    """Yield the evaluation of each training as it comes; the seeds of a candidate are a pack."""
    for pack in packs:
        executor.submit(pack)
    left = sum(map(len, packs))
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
    table = standing(run.table)
    scores = dict(zip(table["candidate_id"].to_pylist(), table["scores"].to_pylist(), strict=True))
    chosen = [(run.evaluation(id_).candidate, scores.get(id_, ())) for id_ in ids]
    known = {candidate.name for candidate, _ in chosen if candidate.operator == BASELINE}
    return chosen + [
        (_baseline(place, name, genome, run.settings.seed), ())
        for place, (name, genome) in enumerate(study.baselines.items())
        if name not in known
    ]


def _baseline(place: int, name: str, genome: Genome, seed: int) -> Candidate:
    """Return a baseline that the search has no result of; baselines are its first candidates."""
    own = derive_seed(seed, "baseline", name)
    return Candidate(place, genome, own, operator=BASELINE, name=name)


def _repeated(candidate: Candidate, rung: int, repeat: int) -> Candidate:
    """Return a candidate with a seed that its search has not seen."""
    seed = derive_seed(candidate.seed, "confirm", repeat)
    return replace(candidate, rung=rung, repeat=repeat, seed=seed)


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
