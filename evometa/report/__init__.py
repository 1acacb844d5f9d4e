"""What does a run mean? Rankings with intervals, one candidate's story, and a progress line.

Everything here reads tables and plain data; nothing is run from the run directory.
"""

from evometa.report.progress import Progress
from evometa.report.ranking import Ranked, front, lineage, rank
from evometa.report.show import print_candidate, print_failures, print_top

__all__ = [
    "Progress",
    "Ranked",
    "front",
    "lineage",
    "print_candidate",
    "print_failures",
    "print_top",
    "rank",
]
