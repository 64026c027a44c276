"""A worker as the drive keeps it: what it has in flight, whether it may take more, whether it is needed any longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from jobs.failures import Failure
from jobs.hands import Hand
from jobs.tasks import Outcome, Task

_IDLE = 60.0  # seconds without anything to do, after which a worker is given back; others may take longer than expected


@dataclass(eq=False)
class Station:
    """A hand and what it has in flight. `key` is None until the engine is open."""

    hand: Hand
    opening: Future[str | Failure]
    idle_since: float
    key: str | None = None
    flights: dict[Future[Outcome], tuple[Task, float]] = field(default_factory=dict)  # task, when it was started
    alone: bool = False
    rests_until: float = float("-inf")


@dataclass(frozen=True)
class News:
    """A future of this station is done: a flight, or the opening."""

    station: Station
    flight: Future[Outcome] | None = None


def dispensable(stations: Iterable[Station], now: float) -> list[Station]:
    """Those that wait for something to do, or for a machine, so long that an autoscaler may have their nodes.

    One of each engine stays, for what has to be done a second time.
    """
    idle = [station for station in stations if not station.flights]
    left = Counter(station.key for station in idle)
    found = []
    for station in idle:
        if now - station.idle_since > _IDLE and (station.key is None or left[station.key] > 1):
            left[station.key] -= 1
            found.append(station)
    return found
