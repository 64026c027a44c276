"""The drive against hands that do as they are told: order, retries, deaths of workers, and who is blamed for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobs.drive import Drive, WorkerDied
from jobs.worker import Failure
from pipeline.errors import EngineError

Act = Callable[["FakeTask"], Any]


@dataclass(frozen=True)
class FakeTask:
    reel_id: str
    index: int
    needs_engine: bool = True

    @property
    def key(self) -> str:
        return f"{self.reel_id}/{self.index}"

    @property
    def name(self) -> str:
        return self.key

    def run(self, colorizer: Any, progress: Any) -> Any:
        raise NotImplementedError


@dataclass
class World:
    """All hands, the tasks they were given, and which tasks are deadly."""

    deadly: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)  # deadly the first time only
    outcomes: dict[str, list[Any]] = field(default_factory=dict)
    openings: list[Any] = field(default_factory=list)
    attempts: list[tuple[str, ...]] = field(default_factory=list)  # what was in flight whenever something landed
    hands: list[FakeHand] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # that the engines have to say

    def hire(self) -> FakeHand:
        self.hands.append(FakeHand(self))
        return self.hands[-1]


class FakeHand:
    """Finishes everything in flight whenever it has been asked for progress, as time passes for a real one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flights: dict[Future[Any], FakeTask] = {}
        self.closed = False
        self.most = 0

    def open(self) -> Future[Any]:
        future: Future[Any] = Future()
        result = self.world.openings.pop(0) if self.world.openings else "key"
        (future.set_exception if isinstance(result, Exception) else future.set_result)(result)
        return future

    def submit(self, task: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.flights[future] = task
        self.most = max(self.most, len(self.flights))
        return future

    def progress(self) -> Mapping[str, int]:
        names = tuple(task.key for task in self.flights.values())
        flights, self.flights = self.flights, {}
        if names:
            self.world.attempts.append(names)
        killed = [name for name in names if name in self.world.deadly | self.world.once]
        self.world.once -= set(names)
        for future, task in flights.items():
            if killed:
                future.set_exception(WorkerDied("killed"))
            else:
                queued = self.world.outcomes.get(task.key)
                future.set_result(queued.pop(0) if queued else "made")
        return {}

    def said(self) -> list[str]:
        lines, self.world.lines = self.world.lines, []
        return lines

    def close(self) -> None:
        self.closed = True


class Heard:
    """A listener that remembers."""

    def __init__(self, tasks: Iterable[FakeTask]) -> None:
        self.tasks = list(tasks)
        self.made: list[str] = []
        self.failures: dict[str, Failure] = {}
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.follow: dict[str, FakeTask] = {}

    def ready(self, key: str) -> Iterable[Any]:
        assert key == "key"
        return self.tasks

    def started(self, task: Any) -> None:
        pass

    def succeeded(self, task: Any, result: Any) -> Iterable[Any]:
        assert result == "made"
        self.made.append(task.key)
        return [self.follow[task.key]] if task.key in self.follow else []

    def failed(self, task: Any, failure: Failure) -> None:
        assert task.reel_id not in self.failures
        self.failures[task.reel_id] = failure

    def note(self, line: str) -> None:
        self.notes.append(line)

    def heard(self, line: str) -> None:
        self.lines.append(line)

    def tick(self, written: Mapping[str, int]) -> None:
        pass


def drive(world: World, tasks: Iterable[FakeTask], workers: int = 1) -> Heard:
    heard = Heard(tasks)
    Drive(world.hire, workers, heard).run()
    assert all(hand.closed for hand in world.hands)
    return heard


def reel(name: str, count: int) -> list[FakeTask]:
    return [FakeTask(name, i) for i in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_everything_is_done_once(workers: int) -> None:
    world = World()
    heard = drive(world, [*reel("a", 7), *reel("b", 4)], workers)
    assert sorted(heard.made) == sorted(t.key for t in [*reel("a", 7), *reel("b", 4)])
    assert all(hand.most <= 2 for hand in world.hands)
    assert not heard.failures


def test_what_an_engine_says_is_passed_on() -> None:
    assert drive(World(lines=["compiling", "compiling"]), reel("a", 1)).lines == ["compiling", "compiling"]


def test_what_becomes_possible_goes_first() -> None:
    heard = Heard([*reel("a", 1), *reel("b", 6)])
    heard.follow["a/0"] = FakeTask("a", 99)
    world = World()
    Drive(world.hire, 1, heard).run()
    assert heard.made.index("a/99") == 2


def test_a_deadly_segment_costs_its_reel_and_nothing_else() -> None:
    world = World(deadly={"b/1"})
    heard = drive(world, [*reel("a", 3), *reel("b", 4), *reel("c", 3)], 2)
    assert {key for key in heard.made if key[0] in "ac"} == {t.key for t in [*reel("a", 3), *reel("c", 3)]}
    assert list(heard.failures) == ["b"]
    assert heard.failures["b"].kind == "worker"
    assert "b/1 ends the worker that does it (killed), twice" in heard.failures["b"].message
    assert sum("b/1" in names for names in world.attempts) == 2


def test_suspects_are_tried_alone() -> None:
    world = World(deadly={"a/1"})
    drive(world, [*reel("a", 2), *reel("b", 2)])
    deaths = [names for names in world.attempts if "a/1" in names]
    assert deaths == [("a/0", "a/1"), ("a/1",)]
    assert ("a/0",) in world.attempts


def test_one_death_is_forgiven() -> None:
    world = World(once={"a/0"})
    heard = drive(world, reel("a", 3))
    assert sorted(heard.made) == ["a/0", "a/1", "a/2"]
    assert not heard.failures
    assert "a worker died (killed) during a/0, a/1; another takes over" in heard.notes


@pytest.mark.parametrize("kind", ["internal", "storage"])
def test_what_may_pass_is_tried_twice(kind: Any) -> None:
    failure = Failure(kind, "disk full")
    heard = drive(World(outcomes={"a/0": [failure]}), reel("a", 2))
    assert sorted(heard.made) == ["a/0", "a/1"]
    heard = drive(World(outcomes={"a/0": [failure, failure]}), reel("a", 2))
    assert heard.failures == {"a": failure}


@pytest.mark.parametrize("kind", ["input", "engine", "verification"])
def test_what_will_not_pass_is_tried_once(kind: Any) -> None:
    world = World(outcomes={"a/0": [Failure(kind, "no")]})
    heard = drive(world, [*reel("a", 9), *reel("b", 1)])
    assert list(heard.failures) == ["a"]
    assert heard.made.count("b/0") == 1
    assert len(heard.made) < 5, "the rest of a failed reel is dropped"


def test_one_engine_error_not_one_a_segment() -> None:
    world = World(openings=[Failure("engine", "weights are damaged")] * 2)
    heard = Heard(reel("a", 5))
    with pytest.raises(EngineError, match="weights are damaged"):
        Drive(world.hire, 2, heard).run()
    assert all(hand.closed for hand in world.hands)
    assert not heard.failures


def test_workers_that_die_at_birth_are_not_started_for_ever() -> None:
    world = World(openings=[WorkerDied("out of memory")] * 50)
    with pytest.raises(EngineError, match=r"workers die while they open the engine: out of memory"):
        Drive(world.hire, 2, Heard(reel("a", 5))).run()
    assert len(world.hands) < 6


def test_one_worker_that_cannot_open_is_done_without() -> None:
    world = World(openings=["key", Failure("engine", "no memory")])
    heard = drive(world, reel("a", 4), 2)
    assert len(heard.made) == 4
    assert heard.notes == ["one worker less: no memory"]


def test_interruption_closes_every_worker() -> None:
    world = World()

    class Impatient(Heard):
        def tick(self, written: Mapping[str, int]) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Drive(world.hire, 3, Impatient(reel("a", 9))).run()
    assert all(hand.closed for hand in world.hands)
