"""A command from its arguments to its results: prepare its reels, colour what is missing of them, assemble."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from jobs.apart import Apart
from jobs.books import Books
from jobs.console import Console
from jobs.drive import Drive
from jobs.estimate import typical
from jobs.failures import Failure, as_error
from jobs.hands import Census, Load
from jobs.ledger import Job, media_name
from jobs.preparation import prepare
from jobs.records import Done, Record
from jobs.request import Colouring, Request, default_colouring, job_of
from jobs.results import Report, Result, finished
from jobs.shares import Shares, memory_of
from jobs.survey import State
from jobs.tasks import AssembleTask, SegmentTask, Task
from jobs.worker import Worker
from pipeline.errors import EngineError, StorageError
from pipeline.frames import Segment
from pipeline.scratch import sweep
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.cluster import Cluster

_SMALL_PIXELS = 500_000_000  # to colour, below which starting Ray takes longer than it saves: 10 s of 1080p


def colorize(request: Request, console: Console, colouring: Colouring | None = None) -> Report:
    """Colour everything the request names; what fails does not hold up the rest.

    Raises EngineError, StorageError or RecipeError where nothing can be done at all.
    """
    sweep()
    with Apart(request.debug) as apart:
        return _colorize(request, console, apart, colouring or default_colouring(request.recipe))


def _colorize(request: Request, console: Console, apart: Apart, colouring: Colouring) -> Report:
    job = job_of(request, colouring)
    with job.locked():
        books = Books(job, console)
        run = Run(request, job, colouring, books)
        try:
            run.work(prepare(request, job, colouring.weights, books, apart))
        except KeyboardInterrupt:
            run.tidy()
            return books.close(interrupted=True)
        return books.close()


class Run:
    """One run over a job folder that it holds; listens to the drive."""

    def __init__(self, request: Request, job: Job, colouring: Colouring, books: Books) -> None:
        self._request, self._job, self._colouring, self._books = request, job, colouring, books
        self._settings = request.recipe.as_dict() | {"weights": colouring.weights}
        self._states: dict[str, State] = {}
        self._heard: set[str] = set()
        self._under_way: dict[str, None] = {}  # reels that were begun and have not ended
        self._engines: set[str] = set()  # keys

    def work(self, states: Iterable[State]) -> None:
        """Colour what is missing of the reels and put them together, here or on workers."""
        self._states = {state.reel.id: state for state in states}
        missing = [(state, segment) for state in self._states.values() for segment in state.missing(state.engine)]
        pixels = sum(state.reel.pixels * segment.frames // max(1, state.reel.frames) for state, segment in missing)
        small = len(missing) <= 1 and pixels <= _SMALL_PIXELS
        # What has killed a run before is better tried where it kills a worker.
        here = small and not (self._states and (self._job.interrupted or self._request.shares))
        self._books.begin(self._states.values())
        try:
            if here:
                self._work_here(engine=bool(missing))
            elif self._request.shares:
                self._work_on_cluster(self._request.shares)
            else:
                self._work_on_ray(max(1, len(missing)))
        except EngineError as e:
            self._books.stop(str(e))
            for state in self._states.values():
                if not state.ended:
                    self._books.result(state.reel.id, self._failed(state, str(e)))
        finally:
            self._books.console.end()

    def _work_here(self, engine: bool) -> None:
        """In this process, one task after the other."""
        worker = Worker(self._colouring.open, say=self.heard)
        try:
            key = worker.open() if engine else ""
            if isinstance(key, Failure):
                raise as_error(key)
            self.opened(key)
            loads, urgent = self.begin()
            for tasks in (iter(urgent), *(self.tasks(load.reel_id, key) for load in loads)):
                for task in tasks:
                    self._perform(worker, task)
        finally:
            worker.close()

    def _perform(self, worker: Worker, task: Task) -> None:
        """A task, and what it makes possible; nothing where its reel has failed."""
        if self._states[task.reel_id].ended:
            return
        self.started(task)
        outcome = worker.perform(task, lambda: self.tick(worker.progress().written, Census(1)))
        if isinstance(outcome, Failure):
            self.failed(task, outcome)
        else:
            for following in self.succeeded(task, outcome):
                self._perform(worker, following)

    def _work_on_ray(self, segments: int) -> None:
        from jobs.pool import default_workers, local_ray

        largest = max(state.reel.frame_pixels for state in self._states.values())
        workers = min(self._request.workers or default_workers(largest), segments)
        self.note(f"starting {workers} worker{'s' * (workers > 1)}")
        with local_ray(workers, self._request.debug) as pool:
            Drive(partial(pool.hire, self._colouring.open), lambda: workers, self).run()

    def _work_on_cluster(self, shares: Shares) -> None:
        from jobs.cluster import cluster_ray

        largest = max(state.reel.frame_pixels for state in self._states.values())
        shares = dataclasses.replace(shares, memory=memory_of(largest))
        with cluster_ray(shares, self.note, self._request.debug) as cluster:
            self._books.measure()
            Drive(partial(cluster.hire, self._colouring.open), partial(self._wanted, cluster), self).run()
        for state in self._states.values():
            if state.ended and state.repeated:  # a second attempt may have come in after the reel was done
                state.ledger.remove_media()

    def _wanted(self, cluster: Cluster) -> int:
        """Workers that there is something for: what one engine has made of a reel may have to be made by another."""
        left = [len(state.reel.segments) for state in self._states.values() if not state.ended]
        return min(cluster.wanted(), max(1, sum(left)))

    def begin(self) -> tuple[list[Load], list[Task]]:
        """The reels to colour, and those that need putting together only."""
        states = self._states.values()
        loads = [self._load(state) for state in states if not state.coloured]
        return loads, [self._assemble_task(state) for state in states if state.coloured]

    def _load(self, state: State) -> Load:
        longest = max(segment.frames for segment in state.missing(state.engine))
        return Load(state.reel.id, longest * state.reel.frame_pixels, state.engine)

    def opened(self, key: str) -> None:
        """An engine is open: speeds count from the first."""
        if not self._engines:
            self._books.start_clock()
        self._engines.add(key)

    def tasks(self, reel_id: str, key: str) -> Iterator[Task]:
        """What is left of a reel for this engine; what others have made of it is dropped."""
        state = self._states[reel_id]
        self._books.dropped(*state.keep_engine(key, self.note))
        return (self._segment_task(state, segment) for segment in state.missing(key))

    def _segment_task(self, state: State, segment: Segment) -> Task:
        part = state.reel.part(segment)
        media = media_name(segment.index, unique=self._request.shares is not None)
        room = round(typical(state.reel).bytes.low * segment.frames / max(1, state.reel.frames))
        return SegmentTask(part, segment, state.ledger.folder, state.identity(segment), self._settings, media, room)

    def _assemble_task(self, state: State) -> Task:
        records = tuple(state.records[segment.index] for segment in state.reel.segments)
        seconds = time.monotonic() - state.started if state.started else 0.0
        return AssembleTask(state.reel, state.ledger.folder, records, self._provenance(), state.replace, seconds)

    def _provenance(self) -> dict[str, str]:
        """Tags of the output: what made it, with what."""
        weights = f"{self._request.recipe.model} {self._colouring.weights}"
        return {"colorized": f"reelcolor {VERSION}, model {weights}"}

    def started(self, task: Task) -> None:
        """A task is under way."""
        state = self._states[task.reel_id]
        state.repeated = state.repeated or (isinstance(task, SegmentTask) and task.repeated)
        if state.started is None:
            state.started = time.monotonic()
            self._under_way[task.reel_id] = None

    def succeeded(self, task: Task, result: Record | Done) -> Iterable[Task]:
        """Note a finished segment, or a finished reel."""
        state = self._states[task.reel_id]
        if isinstance(result, Done):
            seconds = time.monotonic() - (state.started or time.monotonic())
            self._end(state, finished(result, self._job.outdir, seconds, state.made))
            return []
        for line in result.notes:
            self.heard(line)
        state.add(result)
        state.made += result.file.frames
        self._books.segment(result.file.frames)
        return [self._assemble_task(state)] if state.whole and not state.ended else []

    def failed(self, task: Task, failure: Failure) -> None:
        """The reel fails, the others go on."""
        self._books.console.trace(failure.trace)
        state = self._states[task.reel_id]
        if not state.ended:
            self._end(state, self._failed(state, failure.message), failure, task)

    def note(self, line: str) -> None:
        """Something worth a line."""
        self._books.note(line)

    def heard(self, line: str) -> None:
        """What an engine says, once."""
        if line not in self._heard:
            self._heard.add(line)
            self.note(line)

    def tick(self, written: Mapping[str, int], census: Census) -> None:
        """Show how far the reels are; raises StorageError once the job is another run's."""
        self._job.check()
        under_way = {reel_id: self._states[reel_id] for reel_id in self._under_way}
        # What a worker has written may be in finished segments by the time that it is told.
        done = {
            reel_id: min(state.reel.frames, state.frames_done + written.get(reel_id, 0))
            for reel_id, state in under_way.items()
        }
        self._books.tick(done, census)

    def _failed(self, state: State, message: str) -> Result:
        reel = state.reel
        error = message if reel.input in message else f"{reel.input}: {message}"
        seconds = round(time.monotonic() - state.started, 3) if state.started else 0.0
        return Result(reel.input, str(reel.output), "failed", 0, seconds, None, error, reel.warnings)

    def _end(self, state: State, result: Result, why: Failure | None = None, task: Task | None = None) -> None:
        state.ended = True
        state.records.clear()
        self._under_way.pop(state.reel.id, None)
        self._books.finish(state.reel.id, result, why, task)

    def tidy(self) -> None:
        """Remove what workers that were stopped have half written."""
        for reel_id in self._under_way:
            state = self._states[reel_id]
            with contextlib.suppress(StorageError):
                state.ledger.sweep(state.reel.targets())
                state.ledger.remove_strays({record.file.path for record in state.records.values()})
