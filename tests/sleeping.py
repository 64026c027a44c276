"""A task that sleeps, and the engine it does without; for real workers of which nothing but the time counts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colorizers import Tinter

os.environ["PYTHONPATH"] = os.pathsep.join(  # so that workers find this module
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@contextmanager
def nothing() -> Iterator[Tinter]:
    yield Tinter()


@dataclass(frozen=True)
class SleepTask:
    reel_id: str
    index: int
    seconds: float
    weight: int = 1
    needs_engine: bool = True

    @property
    def key(self) -> str:
        return f"{self.reel_id}/{self.index}"

    @property
    def name(self) -> str:
        return self.key

    def again(self) -> SleepTask:
        return self

    def run(self, _colorizer: Any, _progress: Any) -> Any:
        time.sleep(self.seconds)
        return "made"
