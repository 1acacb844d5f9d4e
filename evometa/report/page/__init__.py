"""A run as one HTML file that opens from disk and fetches nothing.

`render` is all: each other file makes sections from `Facts`, and `document` puts them on the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

import evometa
from evometa.report.page.compared import KIND, compared
from evometa.report.page.confirmed import confirmation
from evometa.report.page.costs import failures, time_spent
from evometa.report.page.descent import descent
from evometa.report.page.document import page
from evometa.report.page.facts import Facts
from evometa.report.page.fronts import pareto
from evometa.report.page.influence import influence
from evometa.report.page.progress import progress
from evometa.report.page.rungs import agreement
from evometa.report.page.searched import searched
from evometa.report.page.training import curves, difficulty
from evometa.report.page.won import lead, won

__all__ = ["render"]


def render(
    name: str,
    study: Mapping[str, Any],
    table: pa.Table,
    *,
    confirmed: pa.Table | None = None,
    live: bool = False,
) -> str:
    """Return the report of a run as HTML; all text of the run is escaped.

    Args:
        name: of the run.
        study: study.json.
        table: the run's table, several rungs of a candidate included.
        confirmed: the run's confirmation on meta-test, if there is one.
        live: the search still runs, so the page loads itself again.

    Raises:
        EvometaError: if study.json or the table lack what a report needs.
    """
    if study.get("kind") == KIND:
        return _comparison(name, study, confirmed)
    facts = Facts.of(name, study, table)
    with np.errstate(all="ignore"):  # the square of a huge loss is an infinity, and shown as one
        return _rendered(facts, confirmed, live=live)


def _rendered(facts: Facts, confirmed: pa.Table | None, *, live: bool) -> str:
    tested = confirmation(confirmed, facts.study)
    sections = [
        searched(facts),
        won(facts),
        tested,
        progress(facts),
        pareto(facts),
        *influence(facts),
        agreement(facts),
        descent(facts),
        curves(facts),
        difficulty(facts),
        failures(facts),
        time_spent(facts),
    ]
    summary = f"{lead(facts)} {tested.finding}."
    return page(facts.name, summary, sections, foot=_foot(), live=live)


def _comparison(name: str, study: Mapping[str, Any], confirmed: pa.Table | None) -> str:
    """Return the page of a run that compares given designs."""
    tested = confirmation(confirmed, study)
    sections = [tested, compared(study, confirmed)]
    return page(name, f"{tested.finding}.", sections, foot=_foot(), live=False)


def _foot() -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"Made by evometa {evometa.__version__} on {now}. Nothing of the run was executed."
