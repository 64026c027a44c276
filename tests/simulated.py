"""Workers in simulated time: they finish when they are told to, as fast as the drive can ask; no test waits."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.drive import Drive
from jobs.failures import Failure
from jobs.hands import Census, Inbox, Load, WorkerDied
from jobs.worker import Pulse


@dataclass(frozen=True)
class FakeTask:
    reel_id: str
    index: int
    needs_engine: bool = True
    weight: int = 1
    attempt: int = 0

    @property
    def key(self) -> str:
        return f"{self.reel_id}/{self.index}"

    @property
    def name(self) -> str:
        return self.key

    def again(self) -> FakeTask:
        return replace(self, attempt=self.attempt + 1)

    def run(self, colorizer: Any, progress: Any) -> Any:
        raise NotImplementedError


class SimulatedTime(Inbox):
    """An inbox whose clock stands still while the drive works and leaps to what happens next when it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._number = 0
        self._coming: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> float:
        return self._now

    def at(self, when: float, happen: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._coming, (when, self._number, happen))

    def take(self, timeout: float) -> list[Any]:
        news = super().take(0.0)
        end = self._now + timeout
        while not news:
            if not self._coming or self._coming[0][0] > end:
                self._now = end
                return []
            self._now, _, happen = heapq.heappop(self._coming)
            happen()
            news = super().take(0.0)
        return news


@dataclass
class World:
    """All hands, the tasks they were given, and what is to happen to whom."""

    deadly: set[str] = field(default_factory=set)
    hungry: set[str] = field(default_factory=set)  # take all memory there is
    once: set[str] = field(default_factory=set)  # deadly the first time only
    outcomes: dict[str, list[Any]] = field(default_factory=dict)
    full: set[int] = field(default_factory=set)  # hands whose disk is full
    openings: list[Any] = field(default_factory=list)  # of the hands in turn; then "key" for all others
    seconds: Callable[[FakeTask, FakeHand], float] = lambda task, hand: 1.0  # noqa: ARG005
    time: SimulatedTime = field(default_factory=SimulatedTime)
    hands: list[FakeHand] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # that the engines have to say
    attempts: list[tuple[str, ...]] = field(default_factory=list)  # what a worker had in flight when something landed
    sent: list[tuple[float, FakeTask, FakeHand]] = field(default_factory=list)

    def newest(self) -> FakeHand:
        """The one at work that was given something last, which is whom Ray ends where memory runs out."""
        return next(hand for _, _, hand in reversed(self.sent) if hand.flights)

    def hire(self) -> FakeHand:
        self.hands.append(FakeHand(self, len(self.hands)))
        return self.hands[-1]


class FakeHand:
    """A worker: dies of a deadly task with everything it has in flight; else a task has the outcome that is planned."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.flights: dict[Future[Any], FakeTask] = {}
        self.closed = False
        self.most = 0
        self.batch = 16 >> number  # as if each had run out of memory once more than the one before

    def open(self) -> Future[Any]:
        future: Future[Any] = Future()
        result = self.world.openings.pop(0) if self.world.openings else "key"
        when, what = result if isinstance(result, tuple) else (0.0, result)
        end = future.set_exception if isinstance(what, Exception) else future.set_result
        self.world.time.at(self.world.time.now() + when, lambda: end(what))
        return future

    def submit(self, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.flights[future] = task
        self.most = max(self.most, len(self.flights))
        now = self.world.time.now()
        self.world.sent.append((now, task, self))
        self.world.time.at(now + self.world.seconds(task, self), lambda: self._end(future, task))
        return future

    def _end(self, future: Future[Any], task: FakeTask) -> None:
        if self.closed:
            return
        self.world.attempts.append(tuple(other.key for other in self.flights.values()))
        if task.key in self.world.deadly | self.world.once:
            self.world.once.discard(task.key)
            self.die()
            return
        if task.key in self.world.hungry:
            self.world.newest().die(of_memory=True)
            self.world.time.at(self.world.time.now() + 0.1, lambda: self._end(future, task))  # if it was another
            return
        del self.flights[future]
        if self.number in self.world.full:
            future.set_result(Failure("storage", "no space left", no_room=True))
            return
        planned = self.world.outcomes.get(task.key)
        future.set_result(planned.pop(0) if planned else "made")

    def die(self, with_node: bool = False, of_memory: bool = False) -> None:
        flights, self.flights, self.closed = self.flights, {}, True
        for future in flights:
            future.set_exception(WorkerDied("no memory" if of_memory else "killed", with_node, of_memory))

    def progress(self) -> Pulse:
        return Pulse({task.reel_id: 1 for task in self.flights.values()}, self.batch)

    def said(self) -> list[str]:
        lines, self.world.lines = self.world.lines, []
        return lines

    def close(self) -> None:
        self.closed = True


class Heard:
    """A listener that remembers. Tasks of a reel that have been made by another engine are asked for again."""

    def __init__(self, tasks: Iterable[FakeTask], engines: Mapping[str, str] | None = None) -> None:
        self.reels: dict[str, list[FakeTask]] = {}
        for task in tasks:
            self.reels.setdefault(task.reel_id, []).append(task)
        self.engines = dict(engines or {})  # of an earlier run
        self.bound: list[tuple[str, str]] = []
        self.made: list[str] = []
        self.makers: dict[str, str] = {}  # task → engine its reel belonged to
        self.failures: dict[str, Failure] = {}
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.follow: dict[str, FakeTask] = {}
        self.census = Census()

    def begin(self) -> tuple[list[Load], list[Any]]:
        loads = [
            Load(reel_id, max(task.weight for task in tasks), self.engines.get(reel_id, ""))
            for reel_id, tasks in self.reels.items()
        ]
        return loads, []

    def opened(self, key: str) -> None:
        pass

    def tasks(self, reel_id: str, key: str) -> Iterator[Any]:
        self.bound.append((reel_id, key))
        self.engines[reel_id] = key
        return (task for task in self.reels[reel_id] if self.makers.get(task.key) != key)

    def started(self, task: Any) -> None:
        pass

    def succeeded(self, task: Any, result: Any) -> Iterable[Any]:
        assert result == "made"
        self.made.append(task.key)
        self.makers[task.key] = self.engines[task.reel_id]
        return [self.follow[task.key]] if task.key in self.follow else []

    def failed(self, task: Any, failure: Failure) -> None:
        assert task.reel_id not in self.failures
        self.failures[task.reel_id] = failure

    def note(self, line: str) -> None:
        self.notes.append(line)

    def heard(self, line: str) -> None:
        self.lines.append(line)

    def tick(self, _written: Mapping[str, int], census: Census) -> None:
        self.census = census


def drive(world: World, heard: Heard, workers: int | Callable[[], int] = 1) -> Heard:
    """Run it; every hand is closed afterwards, however it went."""
    wanted = workers if callable(workers) else lambda: workers
    try:
        Drive(world.hire, wanted, heard, world.time).run()
    finally:
        assert all(hand.closed for hand in world.hands)
    return heard


def reel(name: str, count: int, weight: int = 1) -> list[FakeTask]:
    return [FakeTask(name, i, weight=weight) for i in range(count)]
