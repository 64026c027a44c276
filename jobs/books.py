"""What a run puts down about itself: results, failures with reasons, how far it is; on console and on storage."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from jobs.console import Console
from jobs.failures import Failure
from jobs.hands import Census
from jobs.journal import Journal, Standing
from jobs.ledger import Job
from jobs.metrics import Meters
from jobs.results import Report, Result, whole
from jobs.survey import State
from jobs.tasks import Task
from jobs.text import named
from pipeline.errors import StorageError

_INTERRUPTED = "interrupted; run the same command again to go on from here"


class Books:
    """Results by reel, and the run's standing. The reels that a huge folder was cut into make one result."""

    def __init__(self, job: Job, console: Console) -> None:
        self.console = console
        self.inputs: dict[str, str] = {}  # reel → input, in order; fill it by `expect`
        self._job = job
        self._journal = Journal(job.folder)
        self._results: dict[str, Result] = {}
        self._parts: dict[str, list[str]] = {}  # input → its reels
        self._open: Counter[str] = Counter()  # input → how many of these have no result yet
        self._unsettled = 0  # inputs that have none, or not all
        self._spans: dict[str, tuple[float, float]] = {}  # input → from when to when it was worked on
        self._standing = Standing()
        self._begun = time.monotonic()
        self._at_start = 0
        self._meters: Meters | None = None

    def expect(self, reel_id: str, path: str) -> None:
        """There will be a result of this reel, which is an input or a part of one."""
        if reel_id not in self.inputs:
            self.inputs[reel_id] = path
            self._parts.setdefault(path, []).append(reel_id)
            self._unsettled += not self._open[path]
            self._open[path] += 1

    def note(self, line: str) -> None:
        """Something worth a line."""
        self.console.note(named(line))
        self._journal.line(named(line))

    def stop(self, why: str) -> None:
        """Nothing more can be done in this run."""
        self.note(f"stopped: {why}")
        self._standing.stopped = why

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
        standing.reels["under way"] = under_way = len({self.inputs[reel_id] for reel_id in done})
        standing.reels["waiting"] = self._unsettled - under_way
        self._journal.beat(standing)
        if self._meters is not None:
            self._meters.show(standing)

    def finish(self, reel_id: str, result: Result, why: Failure | None = None, task: Task | None = None) -> None:
        """What became of a reel; a failure is kept with the reel, until it is made good."""
        self.console.finished(reel_id, self.result(reel_id, result))
        ledger = self._job.reel(reel_id)
        with contextlib.suppress(StorageError):  # a full disk has been reported once
            if result.status != "failed":
                ledger.forget_failed()
                return
            self._journal.line(named(f"failed: {result.error}"))
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            entry = {"input": result.input, "output": result.output, "segment": task.name if task else None}
            reason = why or Failure("storage", result.error or "")
            facts = {"class": reason.kind, "error": result.error, "log": reason.log or f"{when} {result.error}"}
            ledger.write_failed(entry | facts | {"trace": reason.trace, "when": when})

    def result(self, reel_id: str, result: Result) -> Result | None:
        """What became of a reel in this run, of which the ledger is not told. Its input's result, if that is whole."""
        path, now = self.inputs[reel_id], time.monotonic()
        new = reel_id not in self._results
        self._open[path] -= new
        self._unsettled -= new and not self._open[path]
        self._results[reel_id] = result
        begun, _ = self._spans.get(path, (now, now))
        self._spans[path] = min(begun, now - result.seconds), now
        if self._open[path]:
            return None
        found = self._whole(path)
        self._standing.reels[found.status] += 1
        return found

    def _whole(self, path: str) -> Result:
        """An input's result; what has none was interrupted."""
        lost = Result(path, None, "failed", error=f"{path}: {_INTERRUPTED}")
        begun, ended = self._spans.get(path, (0.0, 0.0))
        return whole([self._results.get(reel_id, lost) for reel_id in self._parts[path]], ended - begun)

    def close(self, interrupted: bool = False) -> Report:
        """Results in the order of the inputs."""
        report = Report(tuple(map(self._whole, self._parts)), interrupted)
        self._standing.reels["under way"] = 0
        self._standing.reels["waiting"] = self._unsettled
        self._standing.census = Census(retries=self._standing.census.retries, doubled=self._standing.census.doubled)
        state = "interrupted" if interrupted else "failed" if report.exit_code else "done"
        self._journal.beat(self._standing, state)
        return report
