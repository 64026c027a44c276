"""What is still to be done, and who may do it next. Every question costs the same however much there is.

All segments of a reel come from one engine, so a reel belongs to the engine that began it, in this run or before. An
engine whose last worker is gone loses its reels to others, which begin them anew.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from jobs.hands import Load
from jobs.tasks import Task

T = TypeVar("T")
_ANY = ""  # the key of what no engine is needed for


class _Reel:
    """A reel that an engine has begun. `listed`: in its engine's queue; `dropped`: it has failed, or changed hands."""

    def __init__(self, reel_id: str, key: str, tasks: Iterator[Task]) -> None:
        self.reel_id, self.key = reel_id, key
        self.listed = self.dropped = False
        self.again: deque[Task] = deque()
        self._fresh = tasks
        self._next = next(tasks, None)

    def has_more(self) -> bool:
        """Whether there is something to take."""
        return not self.dropped and (bool(self.again) or self._next is not None)

    def take(self) -> Task:
        """The next task, of which there must be one."""
        if self.again:
            return self.again.popleft()
        task, self._next = self._next, next(self._fresh, None)
        assert task is not None
        return task


class Backlog:
    """The order: what was in flight when a worker died, what needs no engine, begun reels, those of longest tasks."""

    def __init__(
        self, loads: Iterable[Load], urgent: Iterable[Task], tasks: Callable[[str, str], Iterator[Task]]
    ) -> None:
        self._tasks = tasks
        self._urgent = deque(urgent)
        self._new: deque[str] = deque()
        self._before: defaultdict[str, deque[str]] = defaultdict(deque)  # engine of an earlier run → reels
        for load in sorted(loads, key=lambda load: -load.weight):
            (self._before[load.engine] if load.engine else self._new).append(load.reel_id)
        self._begun: defaultdict[str, deque[_Reel]] = defaultdict(deque)
        self._suspects: defaultdict[str, deque[tuple[_Reel | None, Task]]] = defaultdict(deque)
        self._last: defaultdict[str, deque[tuple[_Reel | None, Task]]] = defaultdict(deque)
        self._later: list[tuple[float, int, _Reel | None, Task]] = []
        self._number = 0
        self._reels: dict[str, _Reel] = {}
        self._failed: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anything is left to be handed out."""
        _prune(self._urgent, lambda task: task.reel_id not in self._failed)
        for reels in self._begun.values():
            _prune(reels, _Reel.has_more)
        for suspects in (*self._suspects.values(), *self._last.values()):
            _prune(suspects, self._stands)
        while self._later and not self._stands(self._later[0][2:]):
            heapq.heappop(self._later)
        queues = (self._before, self._begun, self._suspects, self._last)
        return bool(self._urgent or self._new or self._later) or any(any(q.values()) for q in queues)

    def take(self, key: str) -> Task | None:
        """The next task for a worker with this engine."""
        while self._urgent:
            task = self._urgent.popleft()
            if task.reel_id not in self._failed:
                return task
        while True:
            begun = self._begun[key]
            _prune(begun, _Reel.has_more)
            if begun:
                reel = begun[0]
                task = reel.take()
                if not reel.has_more():
                    begun.popleft().listed = False
                return task
            queue = self._before[key] or self._new
            if not queue:
                return None
            self._bind(queue.popleft(), key)

    def take_suspect(self, key: str, last: bool = False) -> Task | None:
        """The next task for a worker with this engine and nothing else to do; `last`: while none else has one."""
        waiting = self._last if last else self._suspects
        for suspects in (waiting[key], waiting[_ANY]):
            _prune(suspects, self._stands)
            if suspects:
                return suspects.popleft()[1]
        return None

    def inherit(self, key: str, spared: Callable[[str], bool]) -> bool:
        """Give the engine a reel of another that is not `spared`; whether there was one."""
        for other in {*self._begun, *self._before, *self._suspects, *self._last} - {_ANY, key}:
            _prune(self._begun[other], _Reel.has_more)
            suspects = next((s for s in (self._suspects[other], self._last[other]) if self._has_some(s)), None)
            if not (self._begun[other] or suspects or self._before[other]) or spared(other):
                continue
            if self._begun[other]:
                self._bind(self._begun[other].popleft().reel_id, key)
            elif suspects:
                self._bind(suspects.popleft()[1].reel_id, key)
            else:
                self._bind(self._before[other].popleft(), key)
            return True
        return False

    def follow(self, tasks: Iterable[Task]) -> None:
        """These have become possible: they are next."""
        self._urgent.extendleft(tasks)

    def again(self, task: Task) -> None:
        """This task once more, before the rest of its reel."""
        reel = self._reel(task)
        if reel is None:
            self._urgent.append(task)
            return
        reel.again.append(task)
        if reel.has_more() and not reel.listed:
            reel.listed = True
            self._begun[reel.key].appendleft(reel)

    def suspect(self, task: Task, last: bool = False) -> None:
        """This task once more, alone on its worker; `last`: and the only one that is tried so."""
        reel = self._reel(task)
        (self._last if last else self._suspects)[reel.key if reel is not None else _ANY].append((reel, task))

    def delay(self, task: Task, until: float) -> None:
        """This task once more, at that time."""
        self._number += 1
        heapq.heappush(self._later, (until, self._number, self._reel(task), task))

    def wake(self, now: float) -> None:
        """Put the delayed tasks whose time has come among the others."""
        while self._later and self._later[0][0] <= now:
            *_, reel, task = heapq.heappop(self._later)
            if self._stands((reel, task)):
                self.again(task)

    @property
    def has_last(self) -> bool:
        """Whether there are suspects that must be tried one at a time."""
        return any(self._last.values())

    def fail(self, reel_id: str) -> None:
        """Drop whatever is left of a reel."""
        self._failed.add(reel_id)
        if reel_id in self._reels:
            self._reels.pop(reel_id).dropped = True

    @property
    def delayed(self) -> int:
        """Tasks that wait for their time."""
        return len(self._later)

    @property
    def next_due(self) -> float | None:
        """When the first delayed task is to be tried again."""
        return self._later[0][0] if self._later else None

    def _reel(self, task: Task) -> _Reel | None:
        return self._reels.get(task.reel_id) if task.needs_engine else None

    def _stands(self, entry: tuple[_Reel | None, Task]) -> bool:
        """Whether a task that was put aside is still wanted: its reel has neither failed nor changed hands."""
        reel, task = entry
        return task.reel_id not in self._failed and not (reel is not None and reel.dropped)

    def _has_some(self, suspects: deque[tuple[_Reel | None, Task]]) -> bool:
        _prune(suspects, self._stands)
        return bool(suspects)

    def _bind(self, reel_id: str, key: str) -> None:
        if reel_id in self._reels:
            self._reels[reel_id].dropped = True
        self._reels[reel_id] = reel = _Reel(reel_id, key, self._tasks(reel_id, key))
        if reel.has_more():
            reel.listed = True
            self._begun[key].append(reel)


def _prune(queue: deque[T], wanted: Callable[[T], bool]) -> None:
    """Take away from the front what is not wanted any more."""
    while queue and not wanted(queue[0]):
        queue.popleft()
