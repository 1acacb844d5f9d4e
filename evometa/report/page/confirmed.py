"""What the winner is worth on meta-test, where that was measured."""

from __future__ import annotations

import pyarrow as pa

from evometa.report.page.document import Section, paragraph, table
from evometa.report.page.facts import number

MOST_ROWS = 50


def confirmation(confirmed: pa.Table | None) -> Section:
    """The confirmation, or plainly that there is none.

    Args:
        confirmed: `confirm.parquet` of the run, if there is one.
    """
    topic = "Confirmation"
    if confirmed is None:
        return Section(
            "confirmed",
            topic,
            "No confirmation on meta-test exists",
            [
                paragraph(
                    "Nothing in this report has touched meta-test. Until the best are trained "
                    "again with other seeds and tested there, the scores are optimistic."
                )
            ],
        )
    plain = [f for f in confirmed.schema if not pa.types.is_nested(f.type)]
    rows = confirmed.slice(0, MOST_ROWS).select([f.name for f in plain]).to_pylist()
    cells = [[number(v) if isinstance(v, float) else v for v in row.values()] for row in rows]
    return Section(
        "confirmed",
        topic,
        f"Confirmed on meta-test: {len(confirmed):,} trainings with other seeds",
        [table([f.name for f in plain], cells)],
    )
