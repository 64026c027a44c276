"""A worker in a process of its own, on this machine or another: one Ray actor."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from jobs.failures import Failure
from jobs.hands import WorkerDied
from jobs.tasks import Outcome, Task
from jobs.text import one_line
from jobs.worker import IN_FLIGHT, Opener, Pulse, Worker

# What Ray's memory monitor says of the node whose worker it has ended.
_MEMORY = re.compile(r"Memory on the node \(IP: (?P<node>[^,]+),.*?\) was (?P<used>\S+) used / (?P<limit>\S+) limit")
_LONGEST = 300  # characters of what Ray says


class RayHand:
    """One actor. It is never restarted by Ray: who died, and during what, is for the drive to know.

    `options` are what it asks of its machine; `check` raises where Ray itself is gone; `explain` may know more of a
    death than Ray does.
    """

    def __init__(
        self,
        check: Callable[[], None],
        opener: Opener,
        debug: bool,
        options: Mapping[str, Any],
        explain: Callable[[WorkerDied], WorkerDied] = lambda death: death,
    ) -> None:
        import ray

        self._check, self._explain = check, explain
        groups = {"tasks": IN_FLIGHT, "progress": 1}  # threads
        asked: dict[str, Any] = {"concurrency_groups": groups, "max_restarts": 0, **options}
        self._actor: Any = ray.remote(**asked)(Worker).remote(opener, debug)
        self._asked: Future[Pulse] | None = None
        self._pulse = Pulse()
        self._listening: Future[list[str]] | None = None
        self.closed = False

    def open(self) -> Future[str | Failure]:
        """As `Hand` has it, and so the others."""
        return _future(self._actor.open.options(concurrency_group="tasks").remote(), self._explain)

    def submit(self, task: Task) -> Future[Outcome]:  # noqa: D102
        return _future(self._actor.perform.options(concurrency_group="tasks").remote(task), self._explain)

    def progress(self) -> Pulse:  # noqa: D102
        self._check()
        if self._asked is not None and self._asked.done():
            self._pulse = Pulse() if self._asked.exception() else self._asked.result()
            self._asked = None
        if self._asked is None:
            self._asked = _future(self._actor.progress.options(concurrency_group="progress").remote(), self._explain)
        return self._pulse

    def said(self) -> list[str]:  # noqa: D102
        lines: list[str] = []
        if self._listening is not None and self._listening.done():
            lines = [] if self._listening.exception() else self._listening.result()
            self._listening = None
        if self._listening is None:
            self._listening = _future(self._actor.said.options(concurrency_group="progress").remote(), self._explain)
        return lines

    def close(self) -> None:  # noqa: D102
        import ray

        self.closed = True
        ray.kill(self._actor)


def _future(reference: Any, explain: Callable[[WorkerDied], WorkerDied]) -> Future[Any]:
    """Ray's promise as Python's; whatever keeps it from being kept as WorkerDied, as such a worker is of no use."""
    mine: Future[Any] = Future()

    def pass_on(theirs: Future[Any]) -> None:
        error = theirs.exception()
        if error is None:
            mine.set_result(theirs.result())
        else:
            mine.set_exception(explain(death(error)))

    reference.future().add_done_callback(pass_on)
    return mine


def death(error: BaseException) -> WorkerDied:
    """The cause of a worker's death, out of Ray's many lines on it; a signal is all the same to Ray."""
    from ray import exceptions

    text = str(error).strip()
    if isinstance(error, exceptions.OutOfMemoryError):
        found = _MEMORY.search(text)
        where = f": {found['used']} of {found['limit']} were used on {found['node']}" if found else ""
        return WorkerDied(f"out of memory{where}", of_memory=True)
    if "creation task" in text:
        return WorkerDied(text.splitlines()[-1])
    if "not schedulable" in text or "its node has died" in text or isinstance(error, exceptions.NodeDiedError):
        return WorkerDied("its machine is gone", with_node=True)
    if isinstance(error, exceptions.RayActorError | exceptions.WorkerCrashedError):
        return WorkerDied("killed or crashed")
    return WorkerDied(f"{type(error).__name__}: {one_line(text)[:_LONGEST]}")
