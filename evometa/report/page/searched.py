"""What was searched: the space, the task, the budget."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from evometa.records import Status
from evometa.report.page.document import Html, Section, cards, chips, cut, folded, paragraph, table
from evometa.report.page.facts import Facts, duration
from evometa.report.show import brief

MOST_LETTERS = 300


def searched(facts: Facts) -> Section:
    """Space, task, objectives, budget."""
    study, final = facts.study, facts.final
    aims = " and ".join(
        f"{'low' if d == 'min' else 'high'} {n}" for n, d in facts.objectives.items()
    )
    task = study.get("task") or {}
    settings, training = study.get("settings") or {}, study.get("training") or {}
    fine = pc.sum(pc.equal(pc.cast(final["status"], "string"), Status.OK.value)).as_py() or 0
    reused = pc.sum(pc.not_equal(final["copied_from"], "")).as_py() or 0
    device_seconds = pc.sum(facts.rows["seconds"]).as_py() or 0.0
    of_all = (
        f"candidates of {settings['candidates']:,}"
        if isinstance(settings.get("candidates"), int) and settings["candidates"]
        else "candidates"
    )
    genes = list(_leaves(study.get("space"), ""))
    body = [
        cards(
            [
                (f"{len(final):,}", of_all),
                (f"{fine:,}", f"succeeded, {reused:,} of them reused" if reused else "succeeded"),
                (duration(device_seconds), "device time"),
                (
                    str(settings.get("searcher", "unknown")),
                    f"searcher, seed {settings.get('seed')}",
                ),
                (str(training.get("validation", "unknown")), "meta-validation episodes each"),
                (str(training.get("iterations", "unknown")), "meta-iterations each"),
            ]
        ),
        chips(genes),
        declared(study),
    ]
    varied = sum(any(mark in text for mark in (" | ", " to ", "expression")) for _, text in genes)
    start = f"{varied} genes, searched together" if varied else "Searched"
    what = f"{start} on {task.get('name', 'a task')}: {aims}"
    return Section("searched", "What was searched", what, body)


def declared(study: Mapping[str, Any]) -> Html:
    """Return task, training and versions of a study.json, to be opened."""
    task, training = study.get("task") or {}, study.get("training") or {}
    return folded(
        "task, training, versions",
        table(["", ""], [*_flat("task", task), *_flat("training", training)]),
        table(["", ""], _flat("", study.get("versions") or {})),
        paragraph(f"Study file {study.get('file')}, sha256 {study.get('file_sha256')}"),
    )


def _leaves(space: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and range of each gene of a space that describes itself."""
    if not isinstance(space, Mapping) or not space:
        yield path or "genome", cut(json.dumps(space), MOST_LETTERS)
        return
    kind, inner = next(iter(space.items()))
    if kind == "struct" and isinstance(inner, Mapping):
        for name, field in inner.items():
            yield from _leaves(field, f"{path}.{name}" if path else str(name))
    elif kind == "list":
        yield f"{path}.length", f"{space.get('min')} to {space.get('max')}"
        yield from _leaves(inner, f"{path}[]")
    elif kind in ("int", "float") and isinstance(inner, list) and len(inner) == 2:
        step = f", step {space['step']}" if space.get("step", 1) != 1 else ""
        yield path, f"{inner[0]} to {inner[1]}{step}{', logarithmic' if space.get('log') else ''}"
    elif kind == "choice" and isinstance(inner, list):
        branches = space.get("branches")
        branches = branches if isinstance(branches, Mapping) else {}
        yield (
            path,
            cut(" | ".join([brief(value) for value in inner] + list(branches)), MOST_LETTERS),
        )
        for name, branch in branches.items():
            yield from _leaves(branch, f"{path}.{name}")
    elif kind == "tree" and isinstance(inner, list):
        words = [str(word[0]) for word in inner if isinstance(word, list) and word]
        yield path, cut(f"an expression of {', '.join(words)}", MOST_LETTERS)
    else:
        yield path, cut(json.dumps(space), MOST_LETTERS)


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            line
            for key, inner in value.items()
            for line in _flat(f"{path}.{key}" if path else str(key), inner)
        ]
    return [(path, cut(value, MOST_LETTERS))]
