"""What does a run mean? Rankings with intervals, one candidate's story, and a progress line.

Everything here reads tables and plain data; nothing is run from the run directory.
"""

from evometa.report.progress import Progress
from evometa.report.ranking import Ranked, front, lineage, operator_counts, rank
from evometa.report.show import (
    find,
    print_candidate,
    print_failures,
    print_operators,
    print_rungs,
    print_top,
)
from evometa.report.standing import agreements, full_rung, standing, summary_of, tied

__all__ = [
    "Progress",
    "Ranked",
    "agreements",
    "find",
    "front",
    "full_rung",
    "lineage",
    "operator_counts",
    "print_candidate",
    "print_failures",
    "print_operators",
    "print_rungs",
    "print_top",
    "rank",
    "standing",
    "summary_of",
    "tied",
]
