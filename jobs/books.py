"""What a run puts down about itself: results, failures with reasons, how far it is; on console and on storage."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterable, Mapping

from jobs.console import Console
from jobs.hands import Census
from jobs.journal import Journal, Standing
from jobs.ledger import Job
from jobs.metrics import Meters
from jobs.results import Report, Result
from jobs.survey import State
from jobs.worker import Failure, Task
from pipeline.errors import StorageError

_INTERRUPTED = "interrupted; run the same command again to go on from here"


class Books:
    """Results by reel, and the run's standing."""

    def __init__(self, job: Job, console: Console) -> None:
        self.console = console
        self.inputs: dict[str, str] = {}  # reel → input, in order
        self._job = job
        self._journal = Journal(job.folder)
        self._results: dict[str, Result] = {}
        self._standing = Standing()
        self._begun = time.monotonic()
        self._at_start = 0
        self._meters: Meters | None = None

    def note(self, line: str) -> None:
        """Something worth a line."""
        self.console.note(line)
        self._journal.line(line)

    def measure(self) -> None:
        """Have Ray's metrics told, too."""
        self._meters = Meters(self._job.folder.name)

    def begin(self, reels: Iterable[State]) -> None:
        """Work begins on these."""
        states = list(reels)
        standing = self._standing
        standing.segments = sum(len(state.reel.segments) for state in states)
        standing.segments_done = sum(len(state.records) for state in states)
        standing.frames = sum(state.reel.frames for state in states)
        standing.frames_done = self._at_start = sum(state.frames_done for state in states)
        self.console.begin([(s.reel.id, s.reel.input, s.reel.frames, s.frames_done) for s in states])
        self._begun = time.monotonic()

    def start_clock(self) -> None:
        """Speeds count from here."""
        self._begun = time.monotonic()
        self.console.start_clock()

    def segment(self, frames: int) -> None:
        """One more is finished."""
        self._standing.segments_done += 1
        self._standing.frames_done += frames

    def dropped(self, segments: int, frames: int) -> None:
        """So many are to be done again."""
        self._standing.segments_done -= segments
        self._standing.frames_done -= frames

    def tick(self, done: Mapping[str, int], census: Census) -> None:
        """Time has passed: frames done of the reels under way."""
        self.console.advance(done)
        standing = self._standing
        standing.census = census
        standing.fps = (standing.frames_done - self._at_start) / max(0.001, time.monotonic() - self._begun)
        standing.reels["under way"] = len(done)
        standing.reels["waiting"] = len(self.inputs) - len(self._results) - len(done)
        self._journal.beat(standing)
        if self._meters is not None:
            self._meters.show(standing)

    def finish(self, reel_id: str, result: Result, why: Failure | None = None, task: Task | None = None) -> None:
        """What became of a reel; a failure is kept with the reel, until it is made good."""
        self._results[reel_id] = result
        self._standing.reels[result.status] += 1
        self.console.finished(reel_id, result)
        ledger = self._job.reel(reel_id)
        with contextlib.suppress(StorageError):  # a full disk has been reported once
            if result.status != "failed":
                ledger.forget_failed()
                return
            self._journal.line(f"failed: {result.error}")
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            entry = {"input": result.input, "output": result.output, "segment": task.name if task else None}
            reason = why or Failure("storage", result.error or "")
            facts = {"class": reason.kind, "error": result.error, "log": reason.log or f"{when} {result.error}"}
            ledger.write_failed(entry | facts | {"trace": reason.trace, "when": when})

    def result(self, reel_id: str, result: Result) -> None:
        """What became of a reel in this run, of which the ledger is not told."""
        self._results[reel_id] = result
        self._standing.reels[result.status] += 1

    def close(self, interrupted: bool = False) -> Report:
        """Results in the order of the inputs; what has none was interrupted."""
        lost = {key: Result(path, None, "failed", error=f"{path}: {_INTERRUPTED}") for key, path in self.inputs.items()}
        report = Report(tuple((lost | self._results)[key] for key in self.inputs), interrupted)
        self._standing.reels["under way"] = 0
        self._standing.reels["waiting"] = len(self.inputs) - len(self._results)
        self._standing.census = Census(retries=self._standing.census.retries, doubled=self._standing.census.doubled)
        state = "interrupted" if interrupted else "failed" if report.exit_code else "done"
        self._journal.beat(self._standing, state)
        return report
