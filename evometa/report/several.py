"""Several runs as one: what they found, ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import EvometaError
from evometa.records import canonical_json
from evometa.report.ranking import EPISODES
from evometa.report.standing import full_rung


def joined(
    runs: Sequence[str], studies: Sequence[Mapping[str, Any]], table: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Return a study and a table in which the candidates of several runs stand side by side.

    Candidates are named `RUN/ID`. The column `episodes` says on which episodes one was scored, so
    that nothing is paired which does not belong together.

    Args:
        runs: their names.
        studies: study.json of each.
        table: as `load` returns it for all of them, with the column `run`.

    Raises:
        EvometaError: if they differ in objectives or in what is measured.
    """
    first = studies[0]
    for name, study in zip(runs, studies, strict=True):
        for key in ("objectives", "metrics"):
            if study[key] != first[key]:
                raise EvometaError(
                    f"runs that are compared must have the same {key}, but {runs[0]} has "
                    f"{first[key]} and {name} has {study[key]}"
                )
    parts = []
    tops = [full_rung(study) for study in studies]
    start, full = 0, max(tops)
    for name, study in zip(runs, studies, strict=True):
        part = table.filter(pc.equal(table["run"], name))
        part = _renamed(part, name, start, full - full_rung(study))
        episodes = pa.repeat(pa.scalar(_episodes(study, name)), len(part))
        part = part.append_column(EPISODES, episodes)
        start += 1 + (pc.max(part["number"]).as_py() or 0)
        parts.append(part)
    limits = [text for study in studies for text in study.get("constraints", ())]
    levels = studies[tops.index(full)].get("levels")
    study = {**first, "constraints": list(dict.fromkeys(limits))}
    return ({**study, "levels": levels} if levels else study), pa.concat_tables(parts)


def _renamed(part: pa.Table, run: str, start: int, up: int) -> pa.Table:
    """Return rows with names and numbers that no other run has, and rungs counted from the top."""
    ids = pa.array([f"{run}/{each}" for each in part["candidate_id"].to_pylist()], pa.string())
    changes = {
        "candidate_id": ids,
        "number": pc.add(part["number"], start),
        "rung": pc.cast(pc.add(part["rung"], up), pa.int32()),
    }
    for name, values in changes.items():
        part = part.set_column(part.schema.get_field_index(name), name, values)
    return part


def _episodes(study: Mapping[str, Any], run: str) -> str:
    """Return a text that is equal for runs with the same common episodes, scored in one way.

    Of a run that does not say how, it is its own.
    """
    training, settings = study.get("training", {}), study.get("settings", {})
    how = [study.get("task"), settings.get("seed")]
    how += [training.get("validation"), training.get("norm")]
    return canonical_json([*how, run] if None in how else how)
