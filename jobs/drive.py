"""Tasks onto workers: order, retries, and what to do when a worker dies.

A worker's death is blamed on the tasks it had in flight. These are run again one at a time, so that the innocent finish
and the guilty one is known; a task that was in flight at two deaths, at the second alone, is given up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, Protocol

from jobs.ledger import Done, Record
from jobs.worker import IN_FLIGHT, TRANSIENT, Failure, Outcome, Task
from pipeline.errors import EngineError

TICK = 0.25  # seconds between progress reports
_OPENINGS = 3  # deaths of workers while they open the engine, after which no more are started


class WorkerDied(Exception):  # noqa: N818  (an event, not an error of this process)
    """The process of a worker is gone; the message says how, as far as is known."""


class Hand(Protocol):
    """A worker, as seen from here. Futures raise WorkerDied when its process dies."""

    def open(self) -> Future[str | Failure]:
        """Open the engine; its key."""
        ...

    def submit(self, task: Task) -> Future[Outcome]:
        """Start a task."""
        ...

    def progress(self) -> Mapping[str, int]:
        """Frames written so far by the tasks under way, by reel; as last heard."""
        ...

    def said(self) -> Iterable[str]:
        """What its engine has said, as last heard; each line once."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


class Listener(Protocol):
    """Hears of what happens, and says what follows from it."""

    def ready(self, key: str) -> Iterable[Task]:
        """The first engine is open: the tasks to do."""
        ...

    def started(self, task: Task) -> None:
        """A worker has been given a task."""
        ...

    def succeeded(self, task: Task, result: Record | Done) -> Iterable[Task]:
        """A task is done: the tasks that it makes possible, to be done next."""
        ...

    def failed(self, task: Task, failure: Failure) -> None:
        """A task has failed for good; the other tasks of its reel are dropped."""
        ...

    def note(self, line: str) -> None:
        """Something worth a line."""
        ...

    def heard(self, line: str) -> None:
        """An engine says something; others may say the same."""
        ...

    def tick(self, written: Mapping[str, int]) -> None:
        """Time has passed; frames written so far by the tasks under way, by reel."""
        ...


@dataclass
class _Station:
    """A hand and what it has in flight."""

    hand: Hand
    opening: Future[str | Failure] | None
    flights: dict[Future[Outcome], Task] = field(default_factory=dict)
    alone: bool = False


class Drive:
    """Runs tasks on `count` workers that `hire` starts, until none is left."""

    def __init__(self, hire: Callable[[], Hand], count: int, listener: Listener, in_flight: int = IN_FLIGHT) -> None:
        self._hire, self._count, self._listener, self._in_flight = hire, count, listener, in_flight
        self._stations: list[_Station] = []
        self._queue: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._deaths: Counter[str] = Counter()
        self._retried: set[str] = set()
        self._failed: set[str] = set()  # reels
        self._key: str | None = None
        self._stillborn = 0

    def run(self) -> None:
        """Do all tasks. Raises EngineError where no worker can open the engine."""
        try:
            for _ in range(self._count):
                self._start()
            while self._key is None or self._queue or self._suspects or self._flying():
                awaited: list[Future[Any]] = [s.opening for s in self._stations if s.opening is not None]
                wait([*awaited, *self._flying()], timeout=TICK, return_when=FIRST_COMPLETED)
                for station in list(self._stations):
                    self._attend(station)
                self._dispatch()
                self._listener.tick(self._written())
                self._pass_on()
        finally:
            for station in self._stations:
                station.hand.close()

    def _start(self) -> None:
        hand = self._hire()
        self._stations.append(_Station(hand, hand.open()))

    def _flying(self) -> list[Future[Outcome]]:
        return [future for station in self._stations for future in station.flights]

    def _written(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for station in self._stations:
            total.update(station.hand.progress())
        return total

    def _pass_on(self) -> None:
        for station in self._stations:
            for line in station.hand.said():
                self._listener.heard(line)

    def _attend(self, station: _Station) -> None:
        """Take in what has happened at one station."""
        try:
            if station.opening is not None and station.opening.done():
                key = station.opening.result()
                station.opening = None
                self._opened(station, key)
            for future in [f for f in station.flights if f.done()]:
                outcome = future.result()
                self._landed(station.flights.pop(future), outcome)
        except WorkerDied as e:
            self._died(station, str(e))
            return
        station.alone = station.alone and bool(station.flights)

    def _opened(self, station: _Station, key: str | Failure) -> None:
        if isinstance(key, Failure) or self._key not in (None, key):
            reason = key.message if isinstance(key, Failure) else f"engine {key} differs from {self._key}"
            self._dismiss(station, reason)
        elif self._key is None:
            self._key = key
            self._queue.extend(self._listener.ready(key))

    def _dismiss(self, station: _Station, reason: str) -> None:
        """Do without this worker."""
        self._stations.remove(station)
        station.hand.close()
        if self._key is None or not self._stations:
            raise EngineError(reason)
        self._listener.note(f"one worker less: {reason}")

    def _landed(self, task: Task, outcome: Outcome) -> None:
        if not isinstance(outcome, Failure):
            self._queue.extendleft(self._listener.succeeded(task, outcome))
        elif task.reel_id in self._failed:
            return
        elif outcome.kind in TRANSIENT and task.key not in self._retried:
            self._retried.add(task.key)
            self._queue.append(task)
            self._listener.note(f"{task.name} is tried again: {outcome.message}")
        else:
            self._give_up(task, outcome)

    def _give_up(self, task: Task, outcome: Failure) -> None:
        self._failed.add(task.reel_id)
        for queue in (self._queue, self._suspects):
            kept = [t for t in queue if t.reel_id != task.reel_id]
            queue.clear()
            queue.extend(kept)
        self._listener.failed(task, outcome)

    def _died(self, station: _Station, how: str) -> None:
        """Blame the tasks in flight, and start another worker."""
        self._stations.remove(station)
        station.hand.close()
        suspects = [task for task in station.flights.values() if task.reel_id not in self._failed]
        for task in suspects:
            self._deaths[task.key] += 1
            if self._deaths[task.key] > 1 and len(suspects) == 1:
                message = f"{task.name} ends the worker that does it ({how}), twice now; the reel is left out"
                self._give_up(task, Failure("worker", message))
            else:
                self._suspects.append(task)
        if station.opening is not None:
            self._stillborn += 1
            if self._stillborn >= _OPENINGS:
                if self._key is None or not self._stations:
                    raise EngineError(f"workers die while they open the engine: {how}; try fewer --workers")
                return
        elif suspects:
            names = ", ".join(task.name for task in suspects)
            self._listener.note(f"a worker died ({how}) during {names}; another takes over")
        self._start()

    def _dispatch(self) -> None:
        """Give the free workers something to do: suspects alone, everything else where there is most room."""
        ready = [s for s in self._stations if s.opening is None and not s.alone]
        for station in ready:
            if self._suspects and not station.flights:
                station.alone = True
                self._send(station, self._suspects.popleft())
        while self._queue:
            free = [s for s in ready if not s.alone and len(s.flights) < self._in_flight]
            if not free:
                return
            self._send(min(free, key=lambda s: len(s.flights)), self._queue.popleft())

    def _send(self, station: _Station, task: Task) -> None:
        self._listener.started(task)
        try:
            station.flights[station.hand.submit(task)] = task
        except WorkerDied as e:
            failed: Future[Outcome] = Future()
            failed.set_exception(e)
            station.flights[failed] = task
