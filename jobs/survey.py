"""What is there already: reels finished by an earlier run, segments of unfinished ones, files that are in the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.fingerprints import fingerprint_of
from jobs.inputs import Item
from jobs.ledger import Job, ReelLedger
from jobs.plan import Planner, short_hash
from jobs.records import Done, Record, only_gone, output_digest
from jobs.reels import Reel, first_file
from pipeline.errors import ReelcolorError
from pipeline.frames import Segment
from pipeline.storage import Place
from pipeline.version import VERSION

Note = Callable[[str], None]


@dataclass(frozen=True)
class Before:
    """What an earlier run says of an item. `replaceable`: what lies at the output's place is that run's own work."""

    done: Done | None = None
    replaceable: bool = False


def look_back(job: Job, planner: Planner, item: Item, note: Note) -> Before:
    """Whether the item is done: the source is the same, and the output is what was written then, to the last bit."""
    found = job.finished(planner.reel_id(item))
    if found is None:
        return Before()
    ledger, done = found
    intact = _intact(job.outdir, done)
    try:
        same = fingerprint_of(item) == done.plan.get("fingerprint")
    except ReelcolorError:
        return Before()  # planning will say what is wrong with the source
    if same and intact:
        ledger.remove_left_media()
        return Before(done=done)
    if not job.claim(first_file(done.output, done.files)):
        return Before()  # another run is making it anew; admitting it will say so
    note(f"{item.path}: {'its output is gone or changed' if same else 'changed since it was coloured'}; done again")
    ledger.forget()
    return Before(replaceable=intact or _only_gone(job.outdir, done))


def _intact(outdir: Place, done: Done) -> bool:
    try:
        found = output_digest(outdir / done.output, done.files)
        return (found.sha256, found.bytes) == (done.sha256, done.bytes)
    except ReelcolorError:
        return False


def _only_gone(outdir: Place, done: Done) -> bool:
    try:
        return only_gone(outdir / done.output, done)
    except ReelcolorError:
        return False


@dataclass
class State:
    """A reel on its way: which of its segments are finished, and how the run stands with it."""

    reel: Reel
    ledger: ReelLedger
    replace: bool  # whether what lies at the output's place may be written over
    records: dict[int, Record] = field(default_factory=dict)
    started: float | None = None  # time.monotonic()
    made: int = 0  # frames coloured in this run
    ended: bool = False
    repeated: bool = False  # some segment was begun more than once
    frames_done: int = 0  # of finished segments

    def identity(self, segment: Segment) -> str:
        """Hash of all that the segment's content depends on but the engine."""
        reel = self.reel
        cut = [segment.start, segment.end, segment.seek]
        parts = [json.dumps(dict(reel.fingerprint)), reel.stamp, json.dumps(cut), reel.settled]
        return short_hash(VERSION, reel.id, *parts)

    def take_stock(self, note: Note) -> None:
        """Find the segments that are finished and still what their records say; name the others."""
        for segment in self.reel.segments:
            found = self.ledger.read_record(segment, self.identity(segment))
            if isinstance(found, Record):
                self.add(found)
            elif found is not None:
                note(f"{self.reel.input}: {self.reel.span(segment)} is done again: {found}")

    def add(self, record: Record) -> None:
        """A segment is finished."""
        self.records[record.segment.index] = record
        self.frames_done += record.file.frames

    def keep_engine(self, key: str, note: Note) -> tuple[int, int]:
        """Drop what another engine made: a reel's segments all come from one. (segments, frames) dropped."""
        before = self.frames_done
        other = [index for index, record in self.records.items() if record.engine != key]
        for index in other:
            self.frames_done -= self.records.pop(index).file.frames
        if other:
            note(f"{self.reel.input}: {len(other)} segments are done again: they were made with another engine")
        return len(other), before - self.frames_done

    @property
    def engine(self) -> str:
        """The engine that has made the most of it; "" where none has."""
        made: Counter[str] = Counter()
        for record in self.records.values():
            made[record.engine] += record.file.frames
        return max(made, key=lambda key: made[key], default="")

    @property
    def coloured(self) -> bool:
        """Whether every segment is finished, by one engine."""
        return self.whole and len({record.engine for record in self.records.values()}) <= 1

    @property
    def whole(self) -> bool:
        """Whether every segment is finished."""
        return len(self.records) == len(self.reel.segments)

    def missing(self, key: str) -> list[Segment]:
        """Segments still to be coloured by this engine, the longest first."""
        records = self.records
        left = [s for s in self.reel.segments if s.index not in records or records[s.index].engine != key]
        return sorted(left, key=lambda segment: -segment.frames)
