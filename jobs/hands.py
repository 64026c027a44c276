"""What the drive speaks with: hands that work, the listener that knows what there is to do, the inbox for news."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from jobs.failures import Failure
from jobs.records import Done, Record
from jobs.tasks import Outcome, Task
from jobs.worker import Pulse


class WorkerDied(Exception):  # noqa: N818  (an event, not an error of this process)
    """The process of a worker is gone; the message says how, as far as is known.

    `with_node`: its whole machine is, which says nothing of what it was doing. `of_memory`: it was ended because its
    machine had too little.
    """

    def __init__(self, how: str, with_node: bool = False, of_memory: bool = False) -> None:
        super().__init__(how)
        self.with_node, self.of_memory = with_node, of_memory


class Hand(Protocol):
    """A worker, as seen from here. Futures raise WorkerDied when its process dies."""

    def open(self) -> Future[str | Failure]:
        """Open the engine; its key."""
        ...

    def submit(self, task: Task) -> Future[Outcome]:
        """Start a task."""
        ...

    def progress(self) -> Pulse:
        """How it stands, as last heard."""
        ...

    def said(self) -> Iterable[str]:
        """What its engine has said, as last heard; each line once."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


@dataclass(frozen=True)
class Load:
    """A reel with something to colour: the weight of its longest task, and the engine that coloured a part of it."""

    reel_id: str
    weight: int
    engine: str = ""  # none has


@dataclass(frozen=True)
class Census:
    """How the drive stands. `waiting`: workers that have no machine yet, or open their engine."""

    workers: int = 0
    waiting: int = 0
    flying: int = 0
    delayed: int = 0  # tasks that wait before they are tried again
    retries: int = 0
    doubled: int = 0  # tasks that were given to a second worker because the first took long
    batch: int = 0  # pictures that the engines take at a time, the least of all workers; 0: not known


class Listener(Protocol):
    """Hears of what happens, and says what follows from it."""

    def begin(self) -> tuple[Iterable[Load], Iterable[Task]]:
        """What there is to colour, and the tasks that need no engine."""
        ...

    def opened(self, key: str) -> None:
        """A worker's engine is open."""
        ...

    def tasks(self, reel_id: str, key: str) -> Iterator[Task]:
        """The reel is to be coloured by this engine, and by no other: its tasks, the longest first.

        Asked again, with another key, where the workers of the first are gone.
        """
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

    def tick(self, written: Mapping[str, int], census: Census) -> None:
        """Time has passed; frames written so far by the tasks under way, by reel."""
        ...


class Inbox:
    """Where futures that are done are put, by whichever thread, and what time it is."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def now(self) -> float:
        """Seconds."""
        return time.monotonic()

    def watch(self, future: Future[Any], news: Any) -> None:
        """Have `news` arrive when the future is done."""
        future.add_done_callback(lambda _: self._queue.put(news))

    def take(self, timeout: float) -> list[Any]:
        """All news; waits for the first `timeout` seconds at most."""
        news: list[Any] = []
        try:
            news.append(self._queue.get(timeout=max(0.0, timeout)))
            while True:
                news.append(self._queue.get_nowait())
        except queue.Empty:
            return news
