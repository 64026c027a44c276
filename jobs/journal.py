"""run.json in the job folder: how the run stands, written every few seconds, so that anyone can tell without asking it.

It outlives the run and its machine. A run that is killed leaves "running" behind and falls silent.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from jobs.hands import Census
from jobs.records import write_json
from pipeline.errors import StorageError
from pipeline.storage import Place

HEARTBEAT = 5.0  # seconds
_LINES = 200  # of what the run said, the last
NAME = "run.json"


@dataclass
class Standing:
    """How far a run is. `reels` by what became of them, `segments` of those that were admitted; `stopped`: why."""

    reels: Counter[str] = field(default_factory=Counter)
    segments: int = 0
    segments_done: int = 0
    frames: int = 0
    frames_done: int = 0
    fps: float = 0.0
    census: Census = field(default_factory=Census)
    stopped: str = ""

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        flying = min(self.census.flying, self.segments - self.segments_done)
        left = self.segments - self.segments_done - flying - self.census.delayed
        segments = {"done": self.segments_done, "in_flight": flying, "delayed": self.census.delayed, "queued": left}
        return {
            "reels": dict(self.reels),
            "segments": segments | {"retries": self.census.retries, "doubled": self.census.doubled},
            "frames": {"done": self.frames_done, "of": self.frames, "fps": round(self.fps, 2)},
            "workers": {"ready": self.census.workers, "waiting": self.census.waiting},
            "stopped": self.stopped,
        }


class Journal:
    """Writes it. Storage that fails for a while costs heartbeats, not the run."""

    def __init__(self, folder: Place) -> None:
        self._place = folder / NAME
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._written = float("-inf")
        self._began = _now()

    def line(self, text: str) -> None:
        """Something that the run says."""
        self._lines.append(f"{_now()} {text}")

    def beat(self, standing: Standing, state: str = "running") -> None:
        """Write it if it is time, or if the state is another."""
        now = time.monotonic()
        if state == "running" and now - self._written < HEARTBEAT:
            return
        self._written = now
        who = {"host": socket.gethostname(), "process": os.getpid(), "began": self._began, "heard": _now()}
        job = {"submission": os.environ.get(SUBMISSION, "")}
        with contextlib.suppress(StorageError):
            write_json(self._place, {"state": state} | who | job | standing.document() | {"lines": list(self._lines)})


SUBMISSION = "REELCOLOR_SUBMISSION"  # environment variable: the name of this run among the cluster's jobs


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
