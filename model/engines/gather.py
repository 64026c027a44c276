"""Pictures of several callers in one batch: whoever finds no batch open begins one, and runs it for all who join."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]
Start = Callable[[], AbstractContextManager[Callable[[Pictures], Pictures]]]


@dataclass(eq=False)
class _Batch:
    """What has come together so far. result: what became of it, once `done`; an error where it failed."""

    parts: list[Pictures] = field(default_factory=list)
    count: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    result: Pictures | Exception = field(default_factory=lambda: RuntimeError("the caller that ran it was interrupted"))


@dataclass(frozen=True)
class _Share:
    """Pictures [start, end) of a batch are a caller's; `leads` says whether it runs the batch."""

    batch: _Batch
    start: int
    end: int
    leads: bool


class Gatherer:
    """Fills batches from all threads that call at about the same time.

    A batch leaves when it is full, or `window` seconds after it was begun and once there is somewhere to run it, so
    that those who call while all lanes are busy share the next one.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._changed = threading.Condition()
        self._open: dict[Hashable, _Batch] = {}

    def run(self, kind: Hashable, size: int, pictures: Pictures, start: Start) -> Pictures:
        """The results (N, ...) of a caller's pictures (N, ...), N at least 1.

        kind: what may share a batch of at most `size`. start: enters once a batch can be run, and says how; until then
        others may join. What goes wrong is raised for all who share that batch.
        """
        shares = self._place(kind, size, pictures)
        for share in shares:
            if share.leads:
                self._lead(kind, size, share.batch, start)
        found = []
        for share in shares:
            share.batch.done.wait()
            if isinstance(share.batch.result, Exception):
                raise share.batch.result
            found.append(share.batch.result[share.start : share.end])
        return np.concatenate(found)

    def _place(self, kind: Hashable, size: int, pictures: Pictures) -> list[_Share]:
        """Join the batch that is open, and begin others for what it has no room for."""
        shares: list[_Share] = []
        with self._changed:
            while len(pictures):
                batch = self._open.get(kind)
                leads = batch is None
                if batch is None:
                    batch = self._open[kind] = _Batch()
                part, pictures = pictures[: size - batch.count], pictures[size - batch.count :]
                shares.append(_Share(batch, batch.count, batch.count + len(part), leads))
                batch.parts.append(part)
                batch.count += len(part)
                if batch.count == size:
                    del self._open[kind]
            self._changed.notify_all()
        return shares

    def _lead(self, kind: Hashable, size: int, batch: _Batch, start: Start) -> None:
        """Wait for others, close the batch, run it."""
        until = time.monotonic() + self._window
        with self._changed:
            self._changed.wait_for(lambda: batch.count == size, max(0.0, until - time.monotonic()))
        try:
            with start() as run:
                self._close(kind, batch)
                batch.result = run(np.concatenate(batch.parts))
        except Exception as e:  # it is everybody's
            batch.result = e
        finally:
            self._close(kind, batch)
            batch.parts.clear()
            batch.done.set()

    def _close(self, kind: Hashable, batch: _Batch) -> None:
        with self._changed:
            if self._open.get(kind) is batch:
                del self._open[kind]
