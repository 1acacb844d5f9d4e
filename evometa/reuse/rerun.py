"""Evaluate a stored candidate again, and say whether the same comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from evometa.errors import EvometaError
from evometa.records import Evaluation, Status, mean_interval
from evometa.reuse.stored import StoredRun
from evometa.store import versions

EQUAL, WITHIN, DIFFERENT = "equal", "within the interval", "different"


@dataclass(frozen=True, slots=True)
class Repetition:
    """What became of an evaluation when it was repeated.

    Attributes:
        before: as stored.
        now: as repeated.
        verdict: `"equal"`, all scores to the last bit; `"within the interval"`, the mean of the
            differences on the same episodes is within the 95% interval of the stored score; or
            `"different"`.
        largest: largest difference of an episode's score.
        mean: mean difference.
        interval: half-width of the 95% interval of the stored score.
        changed: what is not as it was: versions, device.
    """

    before: Evaluation
    now: Evaluation
    verdict: str
    largest: float
    mean: float
    interval: float
    changed: dict[str, tuple[str, str]]


def rerun(run: StoredRun, candidate_id: str, *, device: str | None = None) -> Repetition:
    """Evaluate a candidate again from its genome and seed, at the highest rung that it reached.

    Args:
        run: the run.
        candidate_id: of the candidate.
        device: default the one that the run asked for.

    Raises:
        StoreError: if there is no such candidate.
        EvometaError: if its result was copied from an equal one.
    """
    before = run.evaluation(candidate_id)
    if before.copied_from:
        raise EvometaError(
            f"{candidate_id} has the result of {before.copied_from}, its equal; run that one again"
        )
    now = run.evaluator(device)([before.candidate])[0]
    old, new = before.scores, now.scores
    if (before.status, len(old)) != (now.status, len(new)):
        verdict, largest, mean = DIFFERENT, float("inf"), float("inf")
    else:
        gaps = [b - a for a, b in zip(old, new, strict=True)]
        largest = max(map(abs, gaps), default=0.0)
        mean = sum(gaps) / max(len(gaps), 1)
        close = abs(mean) <= mean_interval(old)[1]
        same = largest == 0 and (now.status != Status.OK or now.steps == before.steps)
        verdict = EQUAL if same else WITHIN if close else DIFFERENT
    half = mean_interval(old)[1]
    return Repetition(before, now, verdict, largest, mean, half, _changed(run, before, now))


def _changed(run: StoredRun, before: Evaluation, now: Evaluation) -> dict[str, tuple[str, str]]:
    """Return what may explain a difference: name to what it was, and what it is."""
    then: Mapping[str, Any] = run.kept.get("versions", {})
    metadata = run.table.schema.metadata or {}
    origins = json.loads(metadata.get(b"evometa.provenance", b"[]"))
    if origins:  # that of the parts is younger than study.json's where a run was resumed
        then = origins[-1].get("versions", then)
    here = versions()
    pairs = {name: (str(then[name]), here[name]) for name in ("torch", "evometa") if name in then}
    pairs["device"] = (before.device, now.device)
    pairs["plan"] = (before.plan, now.plan)
    packs = pc.sum(pc.equal(run.table["signature"], before.signature)).as_py()
    if run.settings.pack > 1 and packs > 1:
        pairs["pack"] = (f"up to {run.settings.pack} candidates", "1 candidate")
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
