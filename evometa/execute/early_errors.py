"""Stops a search whose first candidates all fail in the same way."""

from __future__ import annotations

from evometa.errors import StudyError
from evometa.records import Evaluation, Status, canonical_json

SAME = 3


class EarlyErrors:
    """Watches the first evaluations of a search; three equal errors are the study's, not theirs.

    The first candidate that does not end in an error disarms it, whatever comes later.
    """

    def __init__(self) -> None:
        self._armed = True
        self._reason, self._count = "", 0

    def found(self, evaluation: Evaluation) -> None:
        """Take notice of a stored evaluation.

        Stored errors do not count: what caused them may have been mended since.
        """
        if evaluation.status is not Status.ERROR:
            self._armed = False

    def recorded(self, evaluation: Evaluation) -> None:
        """Take notice of a new evaluation, already stored.

        Raises:
            StudyError: if it is the third in a row that ends in the same error.
        """
        self.found(evaluation)
        if not self._armed or evaluation.copied_from:
            return
        reason = _reason(evaluation.error)
        self._count = self._count + 1 if reason == self._reason else 1
        self._reason = reason
        if self._count == SAME:
            raise StudyError(
                f"the first {SAME} candidates end in the same error, so the search stops instead "
                f"of spending its budget on it. Mend the study file and start again. The last "
                f"genome was {canonical_json(evaluation.candidate.genome)}, and its error:\n"
                f"{evaluation.error.rstrip()}"
            )


def _reason(error: str) -> str:
    """Return the last line of a traceback: the exception and its message."""
    lines = error.strip().splitlines()
    return lines[-1].strip() if lines else ""
