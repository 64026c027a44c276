"""A command from its arguments to its results: find, plan, survey what is there, colour what is not, assemble."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from jobs.apart import Apart
from jobs.console import Console
from jobs.drive import Drive
from jobs.hands import Census, Load
from jobs.inputs import Found, find_inputs
from jobs.ledger import Done, Job, Record, media_name
from jobs.plan import Planner, plan_all, settle_names
from jobs.reels import Reel
from jobs.request import Colouring, Request, default_colouring, job_of, sources_of
from jobs.results import Report, Result, finished
from jobs.survey import Before, State, look_back
from jobs.worker import AssembleTask, Failure, SegmentTask, Task, Worker, as_error
from pipeline.errors import EngineError
from pipeline.frames import Segment

_SMALL_PIXELS = 500_000_000  # to colour, below which starting Ray takes longer than it saves: 10 s of 1080p
_INTERRUPTED = "interrupted; run the same command again to go on from here"


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
            return run.report(interrupted=True)
        return run.report()


class Run:
    """One run over a job folder that it holds; listens to the drive."""

    def __init__(self, request: Request, job: Job, colouring: Colouring, console: Console) -> None:
        self._request, self._job, self._colouring, self._console = request, job, colouring, console
        self._planner = Planner(request.recipe, colouring.weights, job.outdir)
        self._settings = request.recipe.as_dict() | {"weights": colouring.weights}
        self._states: dict[str, State] = {}
        self._inputs: dict[str, str] = {}  # reel → input, in order
        self._results: dict[str, Result] = {}
        self._heard: set[str] = set()
        self._under_way: dict[str, None] = {}  # reels that were begun and have not ended
        self._engines: set[str] = set()  # keys

    def prepare(self, apart: Apart) -> None:
        """Find the inputs, plan them, and see what is there already."""
        found = find_inputs(self._request.inputs, self._job.outdir, self._request.recipe.fps is not None)
        self._inputs = {self._planner.reel_id(item): item.path for item in found.items}
        for path, reason in found.skipped:
            self._console.note(f"{path}: {reason}; left out")
        before = self._look_back(found)
        reels = self._plan(found, before, apart)
        entries = [b.done.plan for b in before.values() if b.done] + [reel.entry() for reel in reels]
        order = list(self._inputs)
        self._job.write_plan(self._document(sorted(entries, key=lambda entry: order.index(entry["id"]))))
        for reel in reels:
            self._admit(reel, before[reel.id])
        for path, reason in found.refused:
            self._inputs[path] = path
            self._finish(path, Result(path, None, "failed", error=f"{path}: {reason}"))

    def _look_back(self, found: Found) -> dict[str, Before]:
        """What earlier runs say, by reel; items that are done get their result here."""
        before: dict[str, Before] = {}
        for item in found.items:
            reel_id = self._planner.reel_id(item)
            before[reel_id] = look_back(self._job, self._planner, item, self._console.note)
            if done := before[reel_id].done:
                self._finish(reel_id, finished(done, self._job.outdir))
        return before

    def _plan(self, found: Found, before: Mapping[str, Before], apart: Apart) -> list[Reel]:
        """Plan what is not done; what cannot be done gets its result here."""
        todo = [item for item in found.items if before[self._planner.reel_id(item)].done is None]
        planned, unplanned = plan_all(self._planner, todo, apart, self._console.planning)
        earlier = [b.done for b in before.values() if b.done and planned]
        taken = {self._job.outdir / done.output / name: done.input for done in earlier for name in done.files}
        reels, misnamed = settle_names(planned, taken, sources_of(found.items))
        for refusal in (*unplanned, *misnamed):
            self._finish(refusal.reel_id, Result(refusal.input, refusal.output, "failed", error=refusal.error))
        return reels

    def _document(self, entries: list[Any]) -> dict[str, Any]:
        """plan.json: a function of input, recipe and weights."""
        recipe = self._request.recipe.as_dict()
        return {"version": version("reelcolor"), "recipe": recipe, "weights": self._colouring.weights, "reels": entries}

    def _admit(self, reel: Reel, before: Before) -> None:
        """Take the reel in, unless something is in its output's place that is not this job's own."""
        ledger = self._job.reel(reel.id)
        replace = self._request.overwrite or before.replaceable or ledger.announced() == reel.name
        there = reel.existing()
        if there is not None and not replace:
            error = f"{reel.input}: its output {there} exists; --overwrite replaces it"
            self._finish(reel.id, Result(reel.input, str(reel.output), "failed", error=error))
            return
        state = State(reel, ledger, replace)
        ledger.sweep(reel.targets())
        state.take_stock(self._console.note)
        self._states[reel.id] = state

    def work(self) -> None:
        """Colour what is missing and put the reels together, here or on workers."""
        missing = [(state, segment) for state in self._states.values() for segment in state.missing(state.engine)]
        pixels = sum(state.reel.pixels * segment.frames // max(1, state.reel.frames) for state, segment in missing)
        self._console.begin([(s.reel.id, s.reel.input, s.reel.frames, s.frames_done) for s in self._states.values()])
        try:
            # What has killed a run before is better tried where it kills a worker.
            if len(missing) <= 1 and pixels <= _SMALL_PIXELS and not (self._states and self._job.interrupted):
                self._work_here(engine=bool(missing))
            else:
                self._work_on_ray(max(1, len(missing)))
        except EngineError as e:
            self._console.note(f"stopped: {e}")
            for state in self._states.values():
                if not state.ended:
                    self._results[state.reel.id] = self._failed(state, str(e))
        finally:
            self._console.end()

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
        outcome = worker.perform(task, lambda: self.tick(worker.progress(), Census(1)))
        if isinstance(outcome, Failure):
            self.failed(task, outcome)
        else:
            for following in self.succeeded(task, outcome):
                self._perform(worker, following)

    def _work_on_ray(self, segments: int) -> None:
        from jobs.pool import default_workers, local_ray

        largest = max(state.reel.frame_pixels for state in self._states.values())
        workers = min(self._request.workers or default_workers(largest), segments)
        self._console.note(f"starting {workers} worker{'s' * (workers > 1)}")
        with local_ray(workers, self._request.debug) as pool:
            Drive(partial(pool.hire, self._colouring.open), lambda: workers, self).run()

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
            self._console.start_clock()
        self._engines.add(key)

    def tasks(self, reel_id: str, key: str) -> Iterator[Task]:
        """What is left of a reel for this engine; what others have made of it is dropped."""
        state = self._states[reel_id]
        state.keep_engine(key, self._console.note)
        return (self._segment_task(state, segment) for segment in state.missing(key))

    def _segment_task(self, state: State, segment: Segment) -> Task:
        part = state.reel.part(segment)
        media = media_name(segment.index)
        return SegmentTask(part, segment, state.ledger.folder, state.identity(segment), self._settings, media)

    def _assemble_task(self, state: State) -> Task:
        records = tuple(state.records[segment.index] for segment in state.reel.segments)
        seconds = time.monotonic() - state.started if state.started else 0.0
        return AssembleTask(state.reel, state.ledger.folder, records, self._provenance(), state.replace, seconds)

    def _provenance(self) -> dict[str, str]:
        """Tags of the output: what made it, with what."""
        weights = f"{self._request.recipe.model} {self._colouring.weights}"
        return {"colorized": f"reelcolor {version('reelcolor')}, model {weights}"}

    def started(self, task: Task) -> None:
        """A task is under way."""
        state = self._states[task.reel_id]
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
        return [self._assemble_task(state)] if state.whole and not state.ended else []

    def failed(self, task: Task, failure: Failure) -> None:
        """The reel fails, the others go on."""
        self._console.trace(failure.trace)
        state = self._states[task.reel_id]
        if not state.ended:
            self._end(state, self._failed(state, failure.message))

    def note(self, line: str) -> None:
        """Something worth a line."""
        self._console.note(line)

    def heard(self, line: str) -> None:
        """What an engine says, once."""
        if line not in self._heard:
            self._heard.add(line)
            self._console.note(line)

    def tick(self, written: Mapping[str, int], census: Census) -> None:
        """Show how far the reels are; raises StorageError once the job is another run's."""
        del census
        self._job.check()
        states = ((reel_id, self._states[reel_id]) for reel_id in self._under_way)
        self._console.advance({reel_id: state.frames_done + written.get(reel_id, 0) for reel_id, state in states})

    def _failed(self, state: State, message: str) -> Result:
        reel = state.reel
        error = message if reel.input in message else f"{reel.input}: {message}"
        seconds = round(time.monotonic() - state.started, 3) if state.started else 0.0
        return Result(reel.input, str(reel.output), "failed", 0, seconds, None, error, reel.warnings)

    def _end(self, state: State, result: Result) -> None:
        state.ended = True
        state.records.clear()
        self._under_way.pop(state.reel.id, None)
        self._finish(state.reel.id, result)

    def _finish(self, reel_id: str, result: Result) -> None:
        self._results[reel_id] = result
        self._console.finished(reel_id, result)

    def report(self, interrupted: bool = False) -> Report:
        """Results in the order of the inputs; what has none was interrupted."""
        lost = {
            key: Result(path, None, "failed", error=f"{path}: {_INTERRUPTED}") for key, path in self._inputs.items()
        }
        return Report(tuple((lost | self._results)[key] for key in self._inputs), interrupted)
