"""Put a search together from concrete parts, start it or go on with it.

The only place that knows both which searcher and which executor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from evometa.budget import Budget, Meter
from evometa.errors import StoreError
from evometa.evaluate import Evaluator, identify
from evometa.execute import Executor, Limits, Serial
from evometa.execute.ray_pool import RayPool
from evometa.launch.description import (
    check_same,
    describe,
    is_comparison,
    schema_of,
    stored_study,
    way_on,
)
from evometa.launch.settings import Data, Settings, Workers
from evometa.observe import MakeObserver, Observers
from evometa.report import summary_of
from evometa.run import DONE, Observer, Schedule, Search
from evometa.search import RungRole, Searcher, Wishes, make_searcher
from evometa.space import gene_value
from evometa.store import (
    Place,
    RunDirectory,
    Writer,
    evaluations,
    fitting,
    read_table,
    repair,
)
from evometa.study_file import Shipped, StudyFile
from evometa.warm import Earlier, stored_earlier


class Watch(Observer, Protocol):
    """An observer that is entered while the search runs."""

    def __enter__(self) -> Watch:
        """Begin to show."""
        ...

    def __exit__(self, *error: object) -> None:
        """Stop showing."""
        ...


def start(
    file: StudyFile,
    run: Place,
    settings: Settings,
    workers: Workers,
    watch: Callable[[int, Executor], Watch],
    earlier: Earlier | None = None,
    observers: Sequence[MakeObserver] = (),
) -> pa.Table:
    """Search from the beginning; return the table.

    Args:
        file: the study, its task loaded by `prepare`.
        run: the run directory to create.
        settings: what the search is started with.
        workers: where candidates are evaluated.
        watch: makes the observer from the number of candidates and from who evaluates them.
        earlier: what earlier runs have found; default nothing.
        observers: make observers of one's own, as `evometa.observe` tells.

    Raises:
        StoreError: if the run directory exists.
    """
    earlier, file = earlier or Earlier(), file.packed()
    searcher = _searcher(file, settings, earlier)
    with ExitStack() as stack:  # what may fail comes before the folder is made
        executor = _executor(file, settings, workers, run)
        stack.callback(executor.close)
        description = {**describe(file, settings), "earlier": asdict(earlier)}
        directory = stack.enter_context(_directory(run, description, file))
        return _search(file, directory, settings, searcher, executor, watch, observers)


def resume(
    run: Place,
    workers: Workers,
    watch: Callable[[int, Executor], Watch],
    *,
    candidates: int | None = None,
    budget: Budget | None = None,
    data: Data | None = None,
    observers: Sequence[MakeObserver] = (),
) -> pa.Table:
    """Go on with a search that was stopped; return the table.

    Args:
        run: an existing run directory. Its copy of the study file is run.
        workers: where candidates are evaluated; may differ from before.
        watch: makes the observer from the number of candidates and from who evaluates them.
        candidates: a new total; default the one it was started with.
        budget: what else ends it; default what it was started with.
        data: where the data is now; default where it was.
        observers: make observers of one's own.

    Raises:
        StoreError: if there is no run, it is a comparison, or another driver holds it.
        StudyError: if the study or its data is not what it was.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(RunDirectory.open(run))
        if is_comparison(directory.study):
            raise StoreError(
                f"{run} holds a comparison, which searches nothing; go on with it: "
                f"{way_on(run, directory.study)}"
            )
        settings, file = stored_study(directory.study, run, data)
        if candidates is not None:
            settings = replace(settings, candidates=candidates)
        if budget is not None:
            settings = replace(settings, budget=budget)
        check_same(directory.study, describe(file, settings))
        repair(run)
        earlier = stored_earlier(directory.study)
        searcher = _searcher(file, settings, earlier)
        executor = _executor(file, settings, workers, run)
        stack.callback(executor.close)
        return _search(file, directory, settings, searcher, executor, watch, observers)


def _search(
    file: StudyFile,
    directory: RunDirectory,
    settings: Settings,
    searcher: Searcher,
    executor: Executor,
    watch: Callable[[int, Executor], Watch],
    observers: Sequence[MakeObserver],
) -> pa.Table:
    study = file.study
    schedule = Schedule(settings.window, settings.order, settings.pack)
    meter = Meter(settings.budget, study.objectives, len(study.rungs))
    table = fitting(directory.path, directory.study, read_table(directory.path))
    stored = list(evaluations(table))
    with (
        Writer(directory, schema_of(file), gene_value) as writer,
        watch(settings.candidates, executor) as shown,
        Observers(shown, observers, str(directory.path)) as observer,
    ):
        search = Search(searcher, executor, writer, observer, meter, schedule, identify(file.study))
        ended = search.run(stored)
    table = read_table(directory.path)
    begun = pc.count_distinct(table["number"]).as_py()
    if ended == DONE:
        ended = "" if begun >= settings.candidates else _used_up(begun)
    directory.end(summary_of(table, study.objectives, ended))
    return table


def _directory(run: Place, description: Mapping[str, Any], file: StudyFile) -> RunDirectory:
    bundle = file.bundle()
    return RunDirectory.create(run, description, bundle.small[bundle.study], bundle.others)


def _used_up(begun: int) -> str:
    return f"the space holds no genome that has not been tried, after {begun:,} candidates"


def _searcher(file: StudyFile, settings: Settings, earlier: Earlier) -> Searcher:
    study = file.study
    wishes = Wishes(
        settings.candidates,
        study.baselines,
        earlier.seeds,
        [RungRole(look_ahead=not level.iterations) for level in study.levels],
        study.seeds - 1,
        earlier.evaluations(len(study.rungs)),
        scored=study.scored == next(iter(study.objectives))
        and study.task_metrics[study.scored].is_mean,
    )
    name = settings.searcher or study.searcher
    return make_searcher(name, study.space, study.objectives, settings.seed, wishes)


def _executor(file: StudyFile, settings: Settings, workers: Workers, run: Place) -> Executor:
    # on an object store, promoted candidates are trained from the start
    local = isinstance(run, Path) and file.study.rungs
    weights = str(Path(str(run), "weights").resolve()) if local else None
    evaluate = Evaluator(file.study, settings.seed, settings.device, settings.plans, weights)
    return make_executor(evaluate, workers, file)


def make_executor(evaluate: Evaluator, workers: Workers, file: StudyFile) -> Executor:
    """Return what evaluates packs where a person wants it.

    Args:
        evaluate: turns a pack into evaluations.
        workers: where.
        file: the study's, which workers elsewhere do not have; what it needs is sent along.

    Raises:
        ExecutorError: if there is no such cluster, or it is too small.
    """
    if workers.executor == "serial":
        return Serial(evaluate)
    limit = workers.time_limit
    return RayPool(
        Shipped.of(file, evaluate),
        address=workers.address,
        workers=workers.count,
        gpus=workers.gpus,
        logs=workers.logs,
        limits=Limits() if limit is None else Limits(soft=limit, hard=1.5 * limit),
    )
