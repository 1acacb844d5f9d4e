"""What a person sees while a search runs."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from evometa.records import Evaluation, Objectives, Status, losses, mean_interval

PLAIN_SECONDS = 10.0  # between lines where the output is not a terminal


class Progress:
    """Shows what is done, best so far, rate, time left and failures by name.

    On a terminal a live line; elsewhere a plain line every ten seconds.

    Args:
        console: where to print.
        objectives: the study's; the first is shown.
        total: candidates in all.
        workers: how many work at once.
    """

    def __init__(self, console: Console, objectives: Objectives, total: int, workers: int) -> None:
        self._console, self._objectives, self._total = console, objectives, total
        self._workers = workers
        self._done = self._fresh = self._again = 0
        self._best: Evaluation | None = None
        self._failures: Counter[str] = Counter()
        self._started = self._last_line = time.monotonic()
        self._bar = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("search", total=total, text="starting the workers")

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    @property
    def text(self) -> str:
        """The line without its bar: best, rate, time left, failures."""
        parts = [self._best_text(), self._rate_text(), f"{self._workers} workers"]
        parts += [f"{self._again} promoted"] if self._again else []
        parts += [f"{count} {name}" for name, count in sorted(self._failures.items())]
        return "  ".join(part for part in parts if part)

    def recorded(self, evaluation: Evaluation) -> None:
        """Count an evaluation. Those found in the table do not count towards the rate."""
        if evaluation.candidate.rung:
            self._again += 1
        else:
            self._done += 1
        if evaluation.started_at >= time.time() - (time.monotonic() - self._started):
            self._fresh += not evaluation.candidate.rung
        if evaluation.status is not Status.OK:
            self._failures[evaluation.status.value] += 1
        elif self._best is None or self._place(evaluation) < self._place(self._best):
            self._best = evaluation
        self._bar.update(self._task, completed=self._done, text=self.text)

    def tick(self) -> None:
        """Print a plain line now and then where there is no terminal."""
        now = time.monotonic()
        if self._console.is_terminal or now - self._last_line < PLAIN_SECONDS:
            return
        self._last_line = now
        self._console.print(f"{self._done}/{self._total}  {self.text}", highlight=False)

    def _place(self, evaluation: Evaluation) -> tuple[int, float]:
        return -evaluation.candidate.rung, losses(evaluation, self._objectives)[0]

    def _best_text(self) -> str:
        if self._best is None:
            return ""
        name = next(iter(self._objectives))
        half = mean_interval(self._best.scores)[1]
        return (
            f"best {name} {self._best.metrics[name]:.4g} ± {half:.2g} ({self._best.candidate.id})"
        )

    def _rate_text(self) -> str:
        if not self._fresh:
            return ""
        rate = self._fresh / (time.monotonic() - self._started)
        left = max(0, self._total - self._done) / rate
        return f"{rate * 60:.3g}/min  {left // 60:.0f}:{left % 60:02.0f} left"
