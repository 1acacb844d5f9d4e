"""What was compared, where designs were given and nothing was searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from evometa.report.page.document import LONGEST_LABEL, Section, code, cut, folded
from evometa.report.page.searched import declared
from evometa.report.rules import describe_rule

KIND = "comparison"
"""The `kind` of such a run in its study.json."""


def compared(study: Mapping[str, Any], table: pa.Table | None) -> Section:
    """The designs with their genomes, and how they were trained.

    Args:
        study: study.json.
        table: `confirm.parquet` of the run, if there is one.
    """
    names = set() if table is None else set(table["name"].to_pylist())
    designs = {n: genome for n, genome in study.get("baselines", {}).items() if n in names}
    body = [
        folded(
            f"{cut(name, LONGEST_LABEL)}: {describe_rule(genome) or 'genome'}",
            code(json.dumps(genome, indent=1)),
        )
        for name, genome in designs.items()
    ]
    task = (study.get("task") or {}).get("name", "a task")
    what = f"{len(designs)} designs on {task}, given by the study; nothing was searched"
    return Section("compared", "What was compared", what, [*body, declared(study)])
