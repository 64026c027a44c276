"""What a worker is: it opens the engine once, then does tasks with it.

A task's outcome is a value, errors included: an exception that leaves a worker would be the death of the worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.failures import Failure, failure
from jobs.hearing import Say, heard
from jobs.tasks import Outcome, Task
from jobs.text import log_everything

if TYPE_CHECKING:
    from pipeline.infer import Colorizer

Opener = Callable[[], AbstractContextManager["Colorizer"]]
IN_FLIGHT = 2  # tasks of a worker, one decodes and encodes while the other infers; also its engine's threads


@dataclass(frozen=True)
class Pulse:
    """A worker at work: frames written so far by the tasks under way, by reel; pictures its engine takes at a time."""

    written: Mapping[str, int] = field(default_factory=dict)
    batch: int = 0  # at most, less after memory has run out; 0: it does not say, or is not open


class Worker:
    """Holds one engine for any number of tasks, several of them at a time from several threads.

    What the engine says goes to `say`, or is kept until it is asked for.
    """

    def __init__(self, opener: Opener, debug: bool = False, say: Say | None = None) -> None:
        if debug:
            log_everything()
        self._opener = opener
        self._lines: deque[str] = deque()
        self._say = say or self._lines.append
        self._stack = ExitStack()
        self._colorizer: Colorizer | None = None
        self._written: dict[str, int] = {}

    def open(self) -> str | Failure:
        """Open the engine; its key."""
        try:
            self._stack.enter_context(heard(self._say))
            self._colorizer = self._stack.enter_context(self._opener())
        except Exception as e:  # the boundary of the process: what went wrong becomes a value
            return failure(e)
        return self._colorizer.key

    def perform(self, task: Task, told: Callable[[], None] = lambda: None) -> Outcome:
        """Do one task; `told` is called whenever there is progress."""
        self._written[task.key] = 0

        def progress(frames: int) -> None:
            self._written[task.key] += frames
            told()

        try:
            return task.run(self._colorizer, progress)
        except Exception as e:  # as above
            return failure(e)
        finally:
            del self._written[task.key]

    def progress(self) -> Pulse:
        """How it stands."""
        totals: dict[str, int] = {}
        for key, frames in list(self._written.items()):
            reel = key.partition("/")[0]
            totals[reel] = totals.get(reel, 0) + frames
        return Pulse(totals, getattr(self._colorizer, "batch", 0))

    def said(self) -> list[str]:
        """What the engine has said since this was last asked."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

    def close(self) -> None:
        """Close the engine."""
        self._stack.close()
