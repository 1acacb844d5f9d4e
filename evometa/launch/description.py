"""A search as plain data, as study.json keeps it, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa

from evometa.budget import Budget
from evometa.errors import StoreError, StudyError
from evometa.launch.preparation import adjusted, prepare
from evometa.launch.settings import Data, Settings
from evometa.store import VERSION, Place, RunDirectory, make_schema, versions
from evometa.study import Level, Training
from evometa.study_file import Bundle, StudyFile, load_kept

_KINDS = {
    "candidates": int,
    "seed": int,
    "searcher": str,
    "rungs": int,
    "look_ahead": bool,
    "seeds": int,
    "order": str,
    "window": int,
    "pack": int,
    "device": str,
}
"""Settings of which study.json must not say something else."""

COMPARISON = "comparison"
"""The `kind` of a run that searches nothing."""


def describe(file: StudyFile, settings: Settings) -> dict[str, Any]:
    """Return the study as plain data, as study.json keeps it."""
    study = file.study
    return {
        "schema": VERSION,
        "file": str(file.path.resolve()),
        "file_sha256": file.sha256,
        "files": file.bundle().describe(),
        "space": study.space.describe(),
        "task": study.task.describe(),
        "objectives": dict(study.objectives),
        "metrics": list(study.metrics),
        "directions": {name: metric.direction for name, metric in study.metrics.items()},
        "summaries": {name: m.name for name, m in study.metrics.items() if not m.is_mean},
        "baselines": dict(study.baselines),
        "training": asdict(study.training),
        "constraints": [str(limit) for limit in study.limits],
        "levels": [_described(level) for level in study.levels],
        "seeds": study.seeds,
        "settings": asdict(settings),
        "versions": versions(),
    }


def named(searcher: str | Callable[..., Any]) -> str:
    """Return a searcher's name; empty for one of the study's own."""
    return searcher if isinstance(searcher, str) else ""


def schema_of(file: StudyFile) -> pa.Schema:
    """Return the columns of a study's table."""
    genes = file.study.space.genes()
    return make_schema({path: leaf.type for path, leaf in genes.items()}, tuple(file.study.metrics))


def refuse_existing(run: Place, file: StudyFile) -> None:
    """Refuse a run directory that exists, and say how to go on with it, if that can be.

    Raises:
        StoreError: if `run` holds a search, a comparison, or what is none of evometa's.
    """
    if not (run / "study.json").exists():
        RunDirectory.require_free(run)
        return
    kept = RunDirectory.read(run)
    require_study(run, kept, file)
    raise StoreError(
        f"{run} holds {_what(kept)} of this study; go on with it: {way_on(run, kept)}, "
        "or start another with --run FOLDER"
    )


def require_study(run: Place, kept: Mapping[str, Any], file: StudyFile) -> None:
    """Raise `StoreError` if a run is that of another study file, or of other files beside it."""
    changed = _changed(kept.get("files", {}), file.bundle().describe())
    digest = kept.get("file_sha256", "")
    if digest == file.sha256 and not changed:
        return
    raise StoreError(
        f"{run} holds {_what(kept)} of another study: {kept.get('file')} (sha256 "
        f"{digest[:12]}), not {file.path} (sha256 {file.sha256[:12]})"
        f"{''.join(f', and {each}' for each in changed)}; "
        "start this one with --run FOLDER"
    )


def is_comparison(kept: Mapping[str, Any]) -> bool:
    """Return whether a run compares given designs, and searches nothing, by its study.json."""
    return kept.get("kind") == COMPARISON


def way_on(run: Place, kept: Mapping[str, Any]) -> str:
    """Return the command that goes on with a run."""
    if is_comparison(kept):
        return f"evometa compare {kept.get('file')} --run {run}"
    return f"evometa resume {run}"


def _what(kept: Mapping[str, Any]) -> str:
    return "a comparison" if is_comparison(kept) else "a search"


def stored_study(
    kept: Mapping[str, Any], run: Place, data: Data | None = None
) -> tuple[Settings, StudyFile]:
    """Load the study that a run keeps, with its data.

    Args:
        kept: study.json.
        run: the run directory; the study file in it is run, with the files that were found to
            belong to it, whatever has become of the originals.
        data: where the data is now, of which the folder counts; default where it was.

    Raises:
        StoreError: if study.json lacks what a search began with.
        StudyError: if the file cannot be run, or what it needs is missing or has been changed.
        TaskError: if the data is missing or broken.
    """
    try:
        options = dict(kept["settings"])
        strange = [n for n, kind in _KINDS.items() if type(options.get(n, kind())) is not kind]
        if strange:
            raise TypeError(f"settings.{strange[0]} must be of type {_KINDS[strange[0]].__name__}")
        options["data"] = Data(**options["data"])
        if data is not None:  # how it is read stays
            options["data"] = replace(options["data"], folder=data.folder)
        options["budget"] = Budget(**options.get("budget", {}))
        settings = Settings(**options)
        training, _ = replace(Training(), **kept["training"]), kept["file"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{run}/study.json does not say what a search began with: {error!r}; put a sound copy "
            "in its place"
        ) from error
    bundle = Bundle.read(kept, lambda name: RunDirectory.read_file(run, name))
    file = adjusted(load_kept(bundle, f"{run}/study.py"), settings, asdict(training))
    return settings, prepare(file, settings.data)


def check_same(kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `StudyError` naming what differs between two studies as plain data."""
    wanted = [
        "file_sha256",
        "space",
        "task",
        "objectives",
        "baselines",
        "training",
        "levels",
        "seeds",
    ]
    now = json.loads(json.dumps(now))
    parts = [part for part in wanted if part in kept]  # older runs have fewer
    different = [
        f"{part}: {kept[part]} -> {now[part]}" for part in parts if kept[part] != now[part]
    ]
    different += _changed(kept.get("files", {}), now["files"])
    if different:
        raise StudyError(
            "a run goes on only with the study it was started with, but these differ: "
            + "; ".join(different)
            + ". Start a new run with another --run folder"
        )


def _changed(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the files besides the study's own that differ; those that are known on one side only
    may not have been looked for yet."""
    then, here = (
        {**each.get("kept", {}), **{n: f["sha256"] for n, f in each.get("named", {}).items()}}
        for each in (kept, now)
    )
    return [
        f"{name}: sha256 {then[name][:12]} -> {here[name][:12]}"
        for name in then
        if name in here and name != kept["study"] and then[name] != here[name]
    ]


def _described(level: Level) -> dict[str, Any]:
    return {
        "iterations": level.iterations,
        "tasks": level.training.tasks,
        "validation": level.training.validation,
        "steps": level.steps,
        "task": level.task.describe(),
    }
