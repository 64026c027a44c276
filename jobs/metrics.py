"""What Ray's dashboard and Prometheus are told of a run, beside what Ray tells of itself."""

from __future__ import annotations

from typing import Any, Protocol

from jobs.journal import Standing

GAUGES = {
    "reelcolor_frames_per_second": "Frames coloured a second since the engines were opened.",
    "reelcolor_segments": "Segments by state: done, in_flight, delayed, queued.",
    "reelcolor_reels": "Reels by state: done, skipped, failed, under way, waiting.",
    "reelcolor_queue_depth": "Segments that no worker has been given yet.",
    "reelcolor_engine_batch": "Pictures an engine takes at a time, least of all workers; halved as memory runs out.",
    "reelcolor_workers": "Workers by state: ready, waiting.",
}
COUNTERS = {
    "reelcolor_frames_total": "Frames coloured.",
    "reelcolor_retries_total": "Tasks tried again.",
    "reelcolor_doubled_total": "Tasks given to a second worker because the first took long.",
}


class _Kinds(Protocol):
    """The module that makes metrics: ray.util.metrics, or a test's."""

    Gauge: Any
    Counter: Any


class Meters:
    """The metrics of one job, labelled with its name."""

    def __init__(self, job: str, kinds: _Kinds | None = None) -> None:
        if kinds is None:
            from ray.util import metrics

            kinds = metrics
        self._labels = {"job": job}
        self._gauges = {name: kinds.Gauge(name, text, tag_keys=("job", "state")) for name, text in GAUGES.items()}
        self._counters = {name: kinds.Counter(name, text, tag_keys=("job",)) for name, text in COUNTERS.items()}
        self._counted = dict.fromkeys(COUNTERS, 0)

    def show(self, standing: Standing) -> None:
        """Bring them up to date."""
        document = standing.document()
        self._set("reelcolor_frames_per_second", standing.fps)
        self._set("reelcolor_queue_depth", document["segments"]["queued"])
        self._set("reelcolor_engine_batch", standing.census.batch)
        for state in ("done", "in_flight", "delayed", "queued"):
            self._set("reelcolor_segments", document["segments"][state], state)
        for state, count in document["reels"].items():
            self._set("reelcolor_reels", count, state)
        for state, count in document["workers"].items():
            self._set("reelcolor_workers", count, state)
        census = standing.census
        for name, total in zip(COUNTERS, (standing.frames_done, census.retries, census.doubled), strict=True):
            if total > self._counted[name]:
                self._counters[name].inc(total - self._counted[name], tags=self._labels)
                self._counted[name] = total

    def _set(self, name: str, value: float, state: str = "") -> None:
        self._gauges[name].set(value, tags=self._labels | {"state": state})
