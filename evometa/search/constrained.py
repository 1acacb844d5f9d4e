"""Constraints for searchers that know of none."""

from __future__ import annotations

from collections.abc import Sequence

from evometa.limits import Limit, dominated
from evometa.records import Candidate, Evaluation, Objectives
from evometa.search.protocol import Searcher


class Constrained:
    """Tells a searcher that candidates which break limits are worse than all others.

    Args:
        searcher: proposes.
        limits: on metrics.
        objectives: name to direction.
    """

    def __init__(self, searcher: Searcher, limits: Sequence[Limit], objectives: Objectives) -> None:
        self._searcher, self._limits, self._objectives = searcher, limits, objectives

    def ask(self, n: int) -> list[Candidate]:
        """Return what the searcher proposes."""
        return self._searcher.ask(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Tell the searcher."""
        self._searcher.tell(
            [dominated(each, self._limits, self._objectives) for each in evaluations]
        )
