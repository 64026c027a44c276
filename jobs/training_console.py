"""What the user sees of a training run: a bar on a terminal, a line now and then otherwise; all of it on stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from jobs.text import clock, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from model.progress import Report

_LINE_SECONDS = 10.0  # between lines where there is no terminal


class TrainingConsole:
    """A context manager, so that the terminal is left as it was."""

    def __init__(self) -> None:
        from rich.console import Console

        self._rich = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        if self._rich.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(BarColumn(), TextColumn("{task.description}"), console=self._rich)
            self._bar = self._progress.add_task("reading pictures", total=None)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def note(self, line: str) -> None:
        """A line worth reading."""
        self._rich.print(printable(line), markup=False)

    def show(self, report: Report) -> None:
        """How far it has come; a measured loss is always worth a line."""
        if report.held_out is not None:
            self.note(f"step {report.step}: held-out loss {report.held_out:.4f}")
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, total=1.0, completed=report.progress, description=in_words(report))
        elif time.monotonic() - self._spoken >= _LINE_SECONDS:
            self._spoken = time.monotonic()
            self.note(in_words(report))


def in_words(report: Report) -> str:
    """Share done, step, loss, speed and time left."""
    return (
        f"{report.progress:4.0%}  step {report.step}  loss {report.smooth:.4f}  {report.speed:.0f} images/s  "
        f"{clock(report.remaining)} left"
    )
