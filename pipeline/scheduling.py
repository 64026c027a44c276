"""What encoders do to the processors' schedule, undone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def ordinary_threads() -> Iterator[None]:
    """Leaves this thread, and those that begin within, with the scheduling policy that this one had.

    Run by root, as in most containers, SVT-AV1 makes the thread that opens it and all of its own real-time ones
    (SCHED_FIFO, priority 99). They, and whatever that thread starts later, then hold the processors against every other
    program: two OpenMP threads that wait for a third by spinning never let it run.
    """
    if not hasattr(os, "sched_getscheduler"):  # no Linux
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended meanwhile
                if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                    os.sched_setscheduler(int(thread.name), policy, priority)
