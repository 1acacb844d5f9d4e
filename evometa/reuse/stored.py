"""A finished run, with the study that made it at hand again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evometa.errors import StoreError
from evometa.evaluate import Evaluator
from evometa.launch import (
    Data,
    Settings,
    check_same,
    describe,
    is_comparison,
    stored_study,
)
from evometa.records import Evaluation
from evometa.store import Place, evaluations, read_search
from evometa.study_file import StudyFile


@dataclass(frozen=True)
class StoredRun:
    """A run, and its study with the data loaded.

    Attributes:
        place: the run directory.
        kept: study.json.
        settings: what the search was started with.
        file: the study; its file has been run.
        table: the run's table.
    """

    place: Place
    kept: Mapping[str, Any]
    settings: Settings
    file: StudyFile
    table: pa.Table

    @property
    def is_comparison(self) -> bool:
        """Whether it compares given designs, and has searched nothing."""
        return is_comparison(self.kept)

    def evaluation(self, candidate_id: str, rung: int | None = None) -> Evaluation:
        """Return what is stored of a candidate with its own seed, by default at its highest rung.

        Raises:
            StoreError: if the run has no such candidate, or not at this rung.
        """
        mine = pc.equal(self.table["candidate_id"], candidate_id)
        rows = self.table.filter(pc.and_(mine, pc.equal(self.table["repeat"], 0)))
        if not len(rows):
            raise StoreError(
                f"{self.place} has no candidate {candidate_id!r}; see: evometa top {self.place}"
            )
        found = {each.candidate.rung: each for each in evaluations(rows)}
        if rung is None:
            rung = max(found)
        if rung not in found:
            raise StoreError(
                f"{candidate_id} was evaluated at the rungs {', '.join(map(str, sorted(found)))}, "
                f"not at {rung}"
            )
        return found[rung]

    def evaluator(self, device: str | None = None) -> Evaluator:
        """Return what evaluated the candidates of the run."""
        settings = self.settings
        return Evaluator(self.file.study, settings.seed, device or settings.device, settings.plans)


def read_run(run: Place, data: Path | str | None = None) -> StoredRun:
    """Read a run, and run the study file that it keeps.

    Args:
        run: the run directory.
        data: where the task's data is now; default where it was.

    Raises:
        StoreError: if there is no run.
        StudyError: if the study or its data is not what it was.
        TaskError: if its data is missing.
    """
    kept, table = read_search(run)
    settings, file = stored_study(kept, run, None if data is None else Data(str(data)))
    check_same(kept, describe(file, settings))
    return StoredRun(run, kept, settings, file, table)
