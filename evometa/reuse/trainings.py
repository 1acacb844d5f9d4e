"""Train designs with seeds of their own, test them on meta-test, and keep what is finished."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from evometa.errors import StoreError, StudyError
from evometa.evaluate import Evaluator
from evometa.execute import Executor
from evometa.launch import Watch, Workers, make_executor
from evometa.records import BASELINE, Candidate, Evaluation, Genome, Status, derive_seed
from evometa.reuse.stored import StoredRun
from evometa.store import (
    Lock,
    Place,
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

MakeWatch: TypeAlias = Callable[[int, Executor], Watch]
"""Makes an observer from the number of trainings and from who does them."""

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Trainings:
    """How each design is trained and tested.

    Attributes:
        seeds: trainings of each.
        episodes: of meta-test.
        iterations: meta-iterations; None for as many as the study says.
        again: forget those that are kept.
    """

    seeds: int = 3
    episodes: int = 600
    iterations: int | None = None
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "episodes", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StudyError(f"`{name} >= 1` must hold, but got ({name}={value!r})")


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes:
        candidate: as a search proposed it, or would.
        scores: what the search has found, one value a meta-validation episode; empty for nothing.
    """

    candidate: Candidate
    scores: Sequence[float] = ()


def baseline(run: StoredRun, place: int, name: str, genome: Genome) -> Design:
    """Return a baseline of which there is no result; baselines are a search's first candidates."""
    seed = derive_seed(run.settings.seed, "baseline", name)
    return Design(Candidate(place, genome, seed, operator=BASELINE, name=name))


def train(
    run: StoredRun,
    designs: Sequence[Design],
    wanted: Trainings,
    workers: Workers,
    watch: MakeWatch,
) -> pa.Table:
    """Train designs in full, and test them; the only thing in evometa that touches meta-test.

    All are tested on the same episodes of meta-test, and on the meta-validation episodes of the
    search. Every finished training is kept in `confirm.parquet` at once, and is not repeated.

    Args:
        run: where they are kept, and what the study is.
        designs: what is trained.
        wanted: how.
        workers: where.
        watch: makes the observer.

    Returns:
        All that is kept, one row a design and new seed.

    Raises:
        StoreError: if another such training runs, or an earlier one had other numbers.
    """
    study = run.file.study
    if wanted.iterations is not None:
        study = study.with_training(iterations=wanted.iterations)
    with ExitStack() as stack:
        lock = _held(run.place / FOLDER)
        stack.callback(lock.release)
        if wanted.again:
            _forget(run)
        rows = _kept(run, wanted, study.training.iterations)
        missing, packs = _left(designs, wanted.seeds, rows, len(study.rungs))
        if packs:
            executor = make_executor(_evaluator(run, study, wanted), workers, run.file)
            stack.callback(executor.close)
            observer = stack.enter_context(watch(len(missing), executor))
            for row, evaluation in _rows(run, study, designs, packs, executor, observer):
                if evaluation.candidate.key not in missing:
                    continue
                rows.append(row)
                lock.check()
                write_confirmed(run.place, run.kept, rows)
                # each is one of the total
                shown = replace(evaluation.candidate, rung=0, repeat=0)
                observer.recorded(replace(evaluation, candidate=shown))
        lock.check()
        return write_confirmed(run.place, run.kept, rows)


_Pack: TypeAlias = list[Candidate]
"""The seeds of one design, which are trained together."""


def _left(
    designs: Sequence[Design], seeds: int, rows: Sequence[Row], rung: int
) -> tuple[set[tuple[int, int, int]], list[_Pack]]:
    """Return what is still to be trained, and the packs that it is trained in.

    A pack that is kept in part is trained as it was, so that its missing members come out to the
    last bit as they would have.
    """
    missing, packs, fewer = set(), [], []
    for candidate in (design.candidate for design in designs):
        mine = [row for row in rows if row["number"] == candidate.number]
        left = set(range(seeds)) - {row["repeat"] for row in mine}
        missing |= {(candidate.number, rung, repeat) for repeat in left}
        for begun in sorted({tuple(row["pack"]) for row in mine}):
            if left & {*begun}:
                packs.append([_repeated(candidate, rung, repeat) for repeat in begun])
                left -= {*begun}
        if left:
            packs.append([_repeated(candidate, rung, repeat) for repeat in sorted(left)])
            fewer += [f"{candidate.name or candidate.id} ({len(left)})"] * (len(left) < seeds)
    if fewer:
        log.warning(
            "Of %s fewer than %d seeds are trained, the others being there already. Seeds are "
            "trained together, and in a smaller pack the last digits may differ; --again trains "
            "all of them in one",
            ", ".join(fewer),
            seeds,
        )
    return missing, packs


def _rows(
    run: StoredRun,
    study: Study,
    designs: Sequence[Design],
    packs: Sequence[_Pack],
    executor: Executor,
    observer: Watch,
) -> Iterator[tuple[Row, Evaluation]]:
    """Yield each training as it ends, with its row."""
    together = {each.key: [m.repeat for m in pack] for pack in packs for each in pack}
    scores = {design.candidate.number: design.scores for design in designs}
    for pack in packs:
        executor.submit(pack)
    left = len(together)
    while left:
        found = executor.collect(POLL_SECONDS)
        left -= len(found)
        for evaluation in found:
            row = confirmed_row(
                evaluation,
                run.kept["metrics"],
                iterations=study.training.iterations,
                search_scores=scores[evaluation.candidate.number],
                pack=together[evaluation.candidate.key],
            )
            yield row, evaluation
        observer.tick()


def _evaluator(run: StoredRun, study: Study, wanted: Trainings) -> Evaluator:
    """Return what trains in full, and tests on meta-test and the search's meta-validation."""
    return replace(
        run.evaluator(),
        study=study,
        splits={"meta-test": wanted.episodes, "meta-validation": study.training.validation},
        keep=str((run.place / FOLDER).resolve()) if isinstance(run.place, Path) else None,
    )


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


def _forget(run: StoredRun) -> None:
    """Delete earlier trainings, with their weights."""
    if isinstance(run.place, Path):
        for path in (run.place / FOLDER).glob("*.safetensors"):
            path.unlink(missing_ok=True)
    write_confirmed(run.place, run.kept, [])


def _kept(run: StoredRun, wanted: Trainings, iterations: int) -> list[Row]:
    table = read_confirmed(run.place)
    rows: list[Row] = [] if table is None else table.to_pylist()
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
