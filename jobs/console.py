"""What the user sees while it works: a live display on a terminal, plain lines otherwise; all of it on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.results import Report, Result
from jobs.text import clock, named, printable

if TYPE_CHECKING:
    from rich.console import Console as Rich
    from rich.progress import Progress, TaskID

_LINE_SECONDS = 10.0  # between progress lines where there is no terminal
_SHOWN = 8  # reels shown at a time on a terminal


class Console:
    """Says what happens."""

    def __init__(self, debug: bool = False) -> None:
        from rich.console import Console as Rich

        self._rich: Rich = Rich(stderr=True, highlight=False, soft_wrap=True)
        self._debug = debug
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._done: dict[str, int] = {}
        self._sum = self._at_start = 0  # of frames done
        self._started = self._spoken = time.monotonic()

    def note(self, line: str) -> None:
        """A line worth reading."""
        self._rich.print(printable(line), markup=False)

    def trace(self, text: str) -> None:
        """Where an error came from, for --debug."""
        if self._debug and text:
            self._rich.print(text, markup=False)

    def planning(self, path: str, number: int, of: int) -> None:
        """A source, one of so many, is about to be read for the first time."""
        if self._debug or time.monotonic() - self._spoken >= _LINE_SECONDS:
            self._spoken = time.monotonic()
            self.note(f"reading {named(path)}, {number} of {of}")

    def sampling(self, path: str, number: int, of: int) -> None:
        """Shots of a source, one of so many, are about to be coloured."""
        self.note(f"measuring {named(path)}, {number} of {of}")

    def begin(self, reels: Sequence[tuple[str, str, int, int]]) -> None:
        """Work begins on these reels: (id, input, frames, frames done before)."""
        self._totals = {reel_id: frames for reel_id, _, frames, _ in reels}
        self._names = {reel_id: named(path.rpartition("/")[2] or path) for reel_id, path, _, _ in reels}
        self._done = {reel_id: done for reel_id, _, _, done in reels}
        self._sum = self._at_start = sum(self._done.values())
        self._started = self._spoken = time.monotonic()
        if self._rich.is_terminal and reels:
            self._progress = _bars(self._rich)
            self._progress.start()
            self._bars[""] = self._progress.add_task("total", total=sum(self._totals.values()), speed="")

    def start_clock(self) -> None:
        """The engine is open: speeds count from here."""
        self._started = self._spoken = time.monotonic()

    def advance(self, done: Mapping[str, int]) -> None:
        """Frames finished so far, by reel."""
        for reel_id, frames in done.items():
            self._count(reel_id, frames)
        if self._progress is not None:
            self._show(self._progress, done)
        elif time.monotonic() - self._spoken >= _LINE_SECONDS:
            self._spoken = time.monotonic()
            self.note(self._status())

    def finished(self, reel_id: str, result: Result | None) -> None:
        """A reel has ended, one way or the other. `result`: its input's; None where more of that is to come."""
        self._count(reel_id, self._totals.get(reel_id, 0))
        if self._progress is not None and reel_id in self._bars:
            self._progress.remove_task(self._bars.pop(reel_id))
        if result is not None:
            self.note(result_line(result))

    def end(self) -> None:
        """Work has ended."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._bars = {}

    def summary(self, report: Report) -> None:
        """A table of all results, where there is more than one; how far it came, where it was interrupted."""
        results = report.results
        if report.interrupted:
            done = sum(r.status != "failed" for r in results)
            self.note(f"interrupted, {done} of {len(results)} done; run the same command again to go on from here")
            return
        if len(results) < 2:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table("status", "input", "output", "frames", "fps", box=None, pad_edge=False)
        colours = {"done": "green", "skipped": "cyan", "failed": "red"}
        for r in results:
            cells = (r.input, r.output or "", str(r.frames or ""), f"{r.fps:.1f}" if r.fps else "")
            table.add_row(Text(r.status, colours[r.status]), *(Text(named(cell)) for cell in cells))
        self._rich.print(table)
        counts = {status: sum(r.status == status for r in results) for status in colours}
        self.note(", ".join(f"{n} {status}" for status, n in counts.items() if n))

    def _count(self, reel_id: str, frames: int) -> None:
        self._sum += frames - self._done.get(reel_id, 0)
        self._done[reel_id] = frames

    def _show(self, progress: Progress, changed: Mapping[str, int]) -> None:
        """Bring the bars up to date: one a reel under way, and the total."""
        for reel_id, done in changed.items():
            total = self._totals.get(reel_id, 0)
            if reel_id in self._bars:
                progress.update(self._bars[reel_id], completed=done)
            elif 0 < done < total and len(self._bars) <= _SHOWN:
                self._bars[reel_id] = progress.add_task(self._names[reel_id], total=total, completed=done, speed="")
        progress.update(self._bars[""], completed=self._sum, speed=f"{self._speed():.1f} fps")

    def _speed(self) -> float:
        """Frames a second since work began."""
        return (self._sum - self._at_start) / max(0.001, time.monotonic() - self._started)

    def _status(self) -> str:
        done, total, speed = self._sum, sum(self._totals.values()), self._speed()
        left = f", {clock((total - done) / speed)} left" if speed > 0 and total > done else ""
        return f"{done} of {total} frames, {speed:.1f} fps{left}"


def _bars(rich: Rich) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    speed = TextColumn("{task.fields[speed]}")
    columns = (name, BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    return Progress(*columns, console=rich, transient=True)


def result_line(result: Result) -> str:
    """A result in one line, warnings included."""
    if result.status == "failed":
        return f"failed: {named(str(result.error))}"
    warnings = "".join(f"\n  note: {named(w)}" for w in result.warnings)
    way = f"{named(result.input)} → {named(str(result.output))}"
    if result.status == "skipped":
        return f"already done: {way}"
    speed = f" at {result.fps:.1f} fps" if result.fps else ""
    return f"done: {way}, {result.frames} frames{speed}{warnings}"
