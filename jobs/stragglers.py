"""Which task takes much longer than others of its weight: one that a second worker may do as well, speculatively."""

from __future__ import annotations

from collections.abc import Iterable

from jobs.tasks import Task

_SLOW = 2.0  # times longer than its weight lets expect, that a task takes before it is given to a second worker
_SLOW_SECONDS = 10.0  # and at least so long


class Pace:
    """How long the tasks of each engine take for their weight."""

    def __init__(self) -> None:
        self._done: dict[str, tuple[float, int]] = {}  # engine → seconds and weight of what it has done

    def measure(self, key: str, task: Task, seconds: float) -> None:
        """A worker with this engine has done the task in so long."""
        if task.needs_engine:
            before, weight = self._done.get(key, (0.0, 0))
            self._done[key] = before + seconds, weight + task.weight

    def straggler(self, key: str, flights: Iterable[tuple[Task, float]], now: float) -> Task | None:
        """Of tasks in flight with this engine, and when each was begun, the one that is overdue the longest, if any."""
        seconds, weight = self._done.get(key, (0.0, 0))
        if not weight:
            return None
        worst, excess = None, 0.0
        for task, begun in flights:
            expected = max(_SLOW_SECONDS, _SLOW * seconds / weight * task.weight)
            if task.needs_engine and now - begun - expected > excess:
                worst, excess = task, now - begun - expected
        return worst
