"""Train and test given designs, without a search: a study's baselines beside each other."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import StoreError, StudyError
from evometa.launch import (
    COMPARISON,
    Settings,
    Workers,
    choose_plans,
    describe,
    is_comparison,
    preflight,
    prepare,
    require_study,
)
from evometa.records import Genome
from evometa.reuse.stored import StoredRun, read_run
from evometa.reuse.trainings import MakeWatch, Trainings, baseline, train
from evometa.store import Place, RunDirectory, read_search
from evometa.study import Study
from evometa.study_file import StudyFile


def open_comparison(
    file: StudyFile,
    run: Place,
    settings: Settings,
    workers: Workers,
    *,
    only: Sequence[str] = (),
    plan: str = "auto",
) -> StoredRun:
    """Begin a comparison, or go on with one.

    Args:
        file: the study, its task not loaded.
        run: the run directory, to create or of a comparison of this study.
        settings: seed, device and data; as they were, if it goes on.
        workers: where designs are trained.
        only: names of the designs that are to be compared; default all.
        plan: how inner loops are executed; `"auto"` is what the comparison began with.

    Returns:
        The run, in which nothing has been searched, with its data loaded.

    Raises:
        StudyError: if there is no such design, or one cannot work.
        StoreError: if the run directory holds something else.
        TaskError: if the data is missing or broken.
    """
    designs = designs_of(file, only)
    if (run / "study.json").exists():
        return _gone_on(file, run, settings, plan)
    RunDirectory.require_free(run)  # said before anything is tried
    file = prepare(file, settings.data)
    tried = replace(file, study=replace(file.study, baselines=designs))
    admitted = preflight(tried, settings.seed, settings.device, samples=0)
    plans = choose_plans(tried, admitted, plan, settings.device, workers)
    settings, file = replace(settings, plans=plans), file.packed()
    bundle, description = file.bundle(), {"kind": COMPARISON, **describe(file, settings)}
    with RunDirectory.create(run, description, bundle.small[bundle.study], bundle.others):
        kept, table = read_search(run)
    return StoredRun(run, kept, settings, file, table)


def compare(
    run: StoredRun,
    only: Sequence[str],
    wanted: Trainings,
    workers: Workers,
    watch: MakeWatch,
) -> pa.Table:
    """Train and test the designs of a study, all on the same episodes of meta-test.

    Args:
        run: as `open_comparison` returns it.
        only: names of designs; default all.
        wanted: how each is trained.
        workers: where.
        watch: makes the observer.

    Returns:
        One row a design and seed, of these designs.

    Raises:
        StudyError: if there is no such design.
        StoreError: if another driver compares here, or it had other numbers.
    """
    names, chosen = [*run.file.study.baselines], designs_of(run.file, only)
    designs = [baseline(run, names.index(name), name, chosen[name]) for name in chosen]
    table = train(run, designs, wanted, workers, watch)
    return table.filter(pc.is_in(table["name"], pa.array([*chosen])))


def designs_of(file: StudyFile, only: Sequence[str] = ()) -> Mapping[str, Genome]:
    """Return the designs that a study names, or some of them, with their genomes.

    Raises:
        StudyError: if there is none, or none of a name.
    """
    study: Study = file.study
    if not study.baselines:
        raise StudyError(
            f"{file.path} names no designs to compare; a study declares them by name, as points of "
            'its space: Study(..., baselines={"MAML": {"width": 32, "rule": preset("maml")}})'
        )
    for name in only:
        if name not in study.baselines:
            known = ", ".join(map(repr, study.baselines))
            raise StudyError(f"{file.path} has no design {name!r} among its baselines: {known}")
    return {name: study.baselines[name] for name in only or study.baselines}


def _gone_on(file: StudyFile, run: Place, settings: Settings, plan: str) -> StoredRun:
    """Return a comparison that has begun.

    Raises:
        StoreError: if it is not one of this study, or began otherwise.
    """
    kept = RunDirectory.read(run)
    require_study(run, kept, file)
    if not is_comparison(kept):
        raise StoreError(
            f"{run} holds a search of this study, whose best are compared with its baselines by: "
            f"evometa confirm {run}; or compare the baselines alone with --run FOLDER"
        )
    stored = read_run(run, settings.data.folder)
    for name in ("seed", "device"):
        began, now = getattr(stored.settings, name), getattr(settings, name)
        if began != now:
            raise StoreError(
                f"{run} holds a comparison with --{name} {shlex.quote(str(began))}, not {now}; "
                "give the same, or start another with --run FOLDER"
            )
    plans = {*stored.settings.plans.values()}
    if plan != "auto" and plans != {plan}:
        began = ", ".join(sorted(plans)) or "auto"
        raise StoreError(
            f"{run} holds a comparison with --plan {began}, not {plan}; give the same, or start "
            "another with --run FOLDER"
        )
    return stored
