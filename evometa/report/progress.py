"""What a person sees while a search runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from evometa.records import Counts, Evaluation, Objectives, Status, losses, mean_interval

PLAIN_SECONDS = 10.0  # between lines where the output is not a terminal


class Progress:
    """Shows what is done, rate, time left, best so far, failures by name, and the workers.

    On a terminal a few live lines; elsewhere a plain line every ten seconds. Neither who breaks a
    constraint nor a further seed is ever the best.

    Args:
        console: where to print.
        objectives: the study's; the first is shown.
        total: candidates in all.
        counts: returns the state of the workers.
    """

    def __init__(
        self,
        console: Console,
        objectives: Objectives,
        total: int,
        counts: Callable[[], Counts],
        scored: str = "",
    ) -> None:
        self._console, self._objectives, self._total = console, objectives, total
        self._look, self._counts, self._scored = counts, counts(), scored
        self._done = self._fresh = self._again = 0
        self._device_seconds = 0.0
        self._best: Evaluation | None = None
        self._infeasible = False
        self._failures: Counter[str] = Counter()
        self._started = self._last_line = time.monotonic()
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self._task = self._bar.add_task("search", total=total, text=self._rate_text())
        self._below = Text()
        self._live = Live(console=console, get_renderable=self._view, transient=True)
        self._lively = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Progress:
        if self._lively:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    @property
    def text(self) -> str:
        """All of it in one line."""
        return "  ".join([f"{self._done}/{self._total}", self._rate_text(), *self._lines()])

    def found(self, evaluation: Evaluation) -> None:
        """Count an evaluation of an earlier session, which says nothing about the rate."""
        if evaluation.candidate.is_new:
            self._done += 1
        else:
            self._again += 1
        self._device_seconds += evaluation.seconds
        if evaluation.status is not Status.OK:
            self._failures[evaluation.status.value] += 1
        elif evaluation.violation:
            self._infeasible = True
        elif evaluation.candidate.repeat:
            pass
        elif self._best is None or self._place(evaluation) < self._place(self._best):
            self._best = evaluation

    def recorded(self, evaluation: Evaluation) -> None:
        """Count a new evaluation."""
        self._fresh += evaluation.candidate.is_new
        self.found(evaluation)

    def tick(self) -> None:
        """Look at the workers; print a plain line now and then where there is no terminal."""
        self._counts = self._look()
        if self._lively:
            self._bar.update(self._task, completed=self._done, text=self._rate_text())
            self._below = Text("\n".join(self._lines()), no_wrap=True, overflow="ellipsis")
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(self.text, highlight=False, soft_wrap=True)

    def _view(self) -> Group:
        """Return what is shown; called by another thread, so it looks at nothing that changes."""
        return Group(self._bar.get_renderable(), self._below)

    def _lines(self) -> list[str]:
        counts = self._counts
        starting = f", {counts.starting} starting" if counts.starting else ""
        lines = [
            self._best_text() + (f"  {self._again} promoted" if self._again else ""),
            f"workers: {counts.busy} busy of {counts.alive}{starting}  "
            f"{counts.utilisation:.0%} used  {self._device_seconds:,.0f} device-seconds",
            f"failed: {_listed(self._failures)}" if self._failures else "",
            f"workers lost: {_listed(counts.failures)}" if counts.lost else "",
        ]
        return [line for line in lines if line]

    def _place(self, evaluation: Evaluation) -> tuple[int, float]:
        return -evaluation.candidate.rung, losses(evaluation, self._objectives)[0]

    def _best_text(self) -> str:
        if self._best is None:
            return "none keeps the constraints yet" if self._infeasible else ""
        name = next(iter(self._objectives))
        half = self._best.interval or mean_interval(self._best.scores)[1]
        interval = f" ± {half:.2g}" if name == self._scored else ""  # of the kept scores alone
        best = self._best.metrics[name]
        return f"best {name} {best:.4g}{interval} ({self._best.candidate.id})"

    def _rate_text(self) -> str:
        if not self._fresh:
            return "no result yet"
        rate = self._fresh / (time.monotonic() - self._started)
        left = max(0, self._total - self._done) / rate
        return f"{rate * 60:.3g}/min  {left // 60:.0f}:{left % 60:02.0f} left"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
