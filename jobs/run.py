"""A command from its arguments to its results: find, plan, survey what is there, colour what is not, assemble."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.apart import Apart
from jobs.books import Books
from jobs.console import Console
from jobs.drive import Drive
from jobs.estimate import typical
from jobs.failures import Failure, as_error
from jobs.hands import Census, Load
from jobs.hardware import check_hwaccel
from jobs.inputs import Found, Item, find_inputs
from jobs.ledger import Job, media_name
from jobs.plan import Planner, plan_all, settle_names, short_hash
from jobs.records import Done, Record
from jobs.reels import Reel
from jobs.request import Colouring, Request, default_colouring, job_of, sources_of
from jobs.results import Report, Result, finished
from jobs.shares import Shares, memory_of
from jobs.survey import Before, State, look_back
from jobs.tasks import AssembleTask, SegmentTask, Task
from jobs.worker import Worker
from pipeline.errors import EngineError, StorageError
from pipeline.frames import Segment
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.cluster import Cluster

_SMALL_PIXELS = 500_000_000  # to colour, below which starting Ray takes longer than it saves: 10 s of 1080p


def colorize(request: Request, console: Console, colouring: Colouring | None = None) -> Report:
    """Colour everything the request names; what fails does not hold up the rest.

    Raises EngineError, StorageError or RecipeError where nothing can be done at all.
    """
    with Apart(request.debug) as apart:
        return _colorize(request, console, apart, colouring or default_colouring(request.recipe))


def _colorize(request: Request, console: Console, apart: Apart, colouring: Colouring) -> Report:
    job = job_of(request, colouring)
    with job.locked():
        run = Run(request, job, colouring, console)
        try:
            run.prepare(apart)
            run.work()
        except KeyboardInterrupt:
            run.tidy()
            return run.books.close(interrupted=True)
        return run.books.close()


class Run:
    """One run over a job folder that it holds; listens to the drive."""

    def __init__(self, request: Request, job: Job, colouring: Colouring, console: Console) -> None:
        self._request, self._job, self._colouring = request, job, colouring
        self.books = Books(job, console)
        self._planner = Planner(request.recipe, colouring.weights, job.outdir, job.folder)
        self._settings = request.recipe.as_dict() | {"weights": colouring.weights}
        self._states: dict[str, State] = {}
        self._heard: set[str] = set()
        self._under_way: dict[str, None] = {}  # reels that were begun and have not ended
        self._engines: set[str] = set()  # keys

    def prepare(self, apart: Apart) -> None:
        """Find the inputs, plan them, and see what is there already."""
        found = find_inputs(self._request.inputs, self._job.outdir, self._request.recipe.fps is not None)
        for item in found.items:
            self.books.expect(self._planner.reel_id(item), item.path)
        for path, reason in found.skipped:
            self.note(f"{path}: {reason}; left out")
        check_hwaccel(self._request.recipe, apart, self.note)
        before = self._look_back(found)
        reels = self._plan(found, before, apart)
        entries = [b.done.plan for b in before.values() if b.done] + [reel.entry() for reel in reels]
        order = {reel_id: place for place, reel_id in enumerate(self.books.inputs)}
        self._job.write_plan(self._document(sorted(entries, key=lambda entry: order[entry["id"]])))
        for reel in reels:
            self._admit(reel, before[reel.id])
        for path, reason in found.refused:
            reel_id = short_hash(path)
            self.books.expect(reel_id, path)
            result = Result(path, None, "failed", error=f"{path}: {reason}")
            self.books.finish(reel_id, result, Failure("input", reason))

    def _look_back(self, found: Found) -> dict[str, Before]:
        """What earlier runs say, by reel; items that are done get their result here."""
        before: dict[str, Before] = {}
        for item in found.items:
            reel_id = self._planner.reel_id(item)
            before[reel_id] = look_back(self._job, self._planner, item, self.note)
            if done := before[reel_id].done:
                self.books.finish(reel_id, finished(done, self._job.outdir))
        return before

    def _left_out(self, item: Item) -> bool:
        """Whether the reel is not to be done in this run, because it has failed before, or because it has not."""
        reel_id = self._planner.reel_id(item)
        if self._request.only == "all":
            return False
        failed = self._job.reel(reel_id).read_failed()
        if (failed is not None) == (self._request.only == "failed"):
            return False
        error = str(failed["error"]) if failed else f"{item.path}: not done yet, nor failed; resume does it"
        self.books.result(reel_id, Result(item.path, None, "failed", error=error))
        return True

    def _plan(self, found: Found, before: Mapping[str, Before], apart: Apart) -> list[Reel]:
        """Plan what is not done; what cannot be done gets its result here."""
        todo = [item for item in found.items if before[self._planner.reel_id(item)].done is None]
        todo = [item for item in todo if not self._left_out(item)]
        planned, unplanned = plan_all(self._planner, todo, apart, self.books.console.planning)
        earlier = [b.done for b in before.values() if b.done and planned]
        taken = {self._job.outdir / done.output / name: done.input for done in earlier for name in done.files}
        reels, misnamed = settle_names(planned, taken, sources_of(found.items))
        for refusal in (*unplanned, *misnamed):
            result = Result(refusal.input, refusal.output, "failed", error=refusal.error)
            self.books.finish(refusal.reel_id, result, refusal.failure or Failure("input", refusal.error))
        return reels

    def _document(self, entries: list[Any]) -> dict[str, Any]:
        """plan.json: a function of input, recipe and weights."""
        recipe = self._request.recipe.as_dict()
        return {"version": VERSION, "recipe": recipe, "weights": self._colouring.weights, "reels": entries}

    def _admit(self, reel: Reel, before: Before) -> None:
        """Take the reel in, unless another run makes its output, or something else is in that place."""
        ledger = self._job.reel(reel.id)
        if not self._job.claim(reel.first_file):
            error = f"{reel.input}: another run is making {reel.output}; wait for it, then run the same command again"
            self.books.finish(reel.id, Result(reel.input, str(reel.output), "failed", error=error))
            return
        replace = self._request.overwrite or before.replaceable or ledger.announced() == reel.name
        there = reel.existing()
        if there is not None and not replace:
            error = f"{reel.input}: its output {there} exists; --overwrite replaces it"
            self.books.finish(reel.id, Result(reel.input, str(reel.output), "failed", error=error))
            return
        state = State(reel, ledger, replace)
        self._job.sweep(ledger, reel.name, reel.targets())
        if self._request.recipe.hwaccel == "auto" and reel.settled:
            ledger.begin(reel.settled)
        state.take_stock(self.note)
        self._states[reel.id] = state

    def work(self) -> None:
        """Colour what is missing and put the reels together, here or on workers."""
        missing = [(state, segment) for state in self._states.values() for segment in state.missing(state.engine)]
        pixels = sum(state.reel.pixels * segment.frames // max(1, state.reel.frames) for state, segment in missing)
        small = len(missing) <= 1 and pixels <= _SMALL_PIXELS
        # What has killed a run before is better tried where it kills a worker.
        here = small and not (self._states and (self._job.interrupted or self._request.shares))
        self.books.begin(self._states.values())
        try:
            if here:
                self._work_here(engine=bool(missing))
            elif self._request.shares:
                self._work_on_cluster(self._request.shares)
            else:
                self._work_on_ray(max(1, len(missing)))
        except EngineError as e:
            self.books.stop(str(e))
            for state in self._states.values():
                if not state.ended:
                    self.books.result(state.reel.id, self._failed(state, str(e)))
        finally:
            self.books.console.end()

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
            self.books.measure()
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
            self.books.start_clock()
        self._engines.add(key)

    def tasks(self, reel_id: str, key: str) -> Iterator[Task]:
        """What is left of a reel for this engine; what others have made of it is dropped."""
        state = self._states[reel_id]
        self.books.dropped(*state.keep_engine(key, self.note))
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
        self.books.segment(result.file.frames)
        return [self._assemble_task(state)] if state.whole and not state.ended else []

    def failed(self, task: Task, failure: Failure) -> None:
        """The reel fails, the others go on."""
        self.books.console.trace(failure.trace)
        state = self._states[task.reel_id]
        if not state.ended:
            self._end(state, self._failed(state, failure.message), failure, task)

    def note(self, line: str) -> None:
        """Something worth a line."""
        self.books.note(line)

    def heard(self, line: str) -> None:
        """What an engine says, once."""
        if line not in self._heard:
            self._heard.add(line)
            self.note(line)

    def tick(self, written: Mapping[str, int], census: Census) -> None:
        """Show how far the reels are; raises StorageError once the job is another run's."""
        self._job.check()
        states = ((reel_id, self._states[reel_id]) for reel_id in self._under_way)
        self.books.tick({reel_id: state.frames_done + written.get(reel_id, 0) for reel_id, state in states}, census)

    def _failed(self, state: State, message: str) -> Result:
        reel = state.reel
        error = message if reel.input in message else f"{reel.input}: {message}"
        seconds = round(time.monotonic() - state.started, 3) if state.started else 0.0
        return Result(reel.input, str(reel.output), "failed", 0, seconds, None, error, reel.warnings)

    def _end(self, state: State, result: Result, why: Failure | None = None, task: Task | None = None) -> None:
        state.ended = True
        state.records.clear()
        self._under_way.pop(state.reel.id, None)
        self.books.finish(state.reel.id, result, why, task)

    def tidy(self) -> None:
        """Remove what workers that were stopped have half written."""
        for reel_id in self._under_way:
            state = self._states[reel_id]
            with contextlib.suppress(StorageError):
                state.ledger.sweep(state.reel.targets())
                state.ledger.remove_strays({record.file.path for record in state.records.values()})
