"""What there is for a worker to do: colour a segment, put a reel's segments together."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from jobs.failures import Failure
from jobs.fingerprints import fingerprint_of, stamp_of
from jobs.ledger import ReelLedger, media_name
from jobs.records import Done, Record, output_digest
from jobs.reels import Reel
from pipeline.errors import EngineError, InputError, StorageError
from pipeline.frames import Segment, SegmentFile
from pipeline.storage import Place, check_room

if TYPE_CHECKING:
    from pipeline.infer import Colorizer

Outcome = Record | Done | Failure

_OF_PICTURES = re.compile(r"(\d+) ((?:\w+ )?pictures .*)")  # a warning that counts some


class Task(Protocol):
    """One thing for a worker to do."""

    @property
    def reel_id(self) -> str:
        """The reel it is for."""
        ...

    @property
    def key(self) -> str:
        """Unlike any other task's."""
        ...

    @property
    def name(self) -> str:
        """What it is, for a message."""
        ...

    @property
    def needs_engine(self) -> bool:
        """Whether it colours anything."""
        ...

    @property
    def weight(self) -> int:
        """How long it takes, in a unit that is the same for all."""
        ...

    def again(self) -> Self:
        """The same once more; what is left of an earlier attempt, or still at it, does not meet this one."""
        ...

    def run(self, colorizer: Colorizer | None, progress: Callable[[int], None]) -> Record | Done:
        """Do it; raises ReelcolorError."""
        ...


@dataclass(frozen=True)
class SegmentTask:
    """Colour one segment: its media file, `media` in the segments folder, then its ledger record.

    `room`: bytes that the media file takes at least, as far as is known.
    """

    reel: Reel
    segment: Segment
    folder: Place
    identity: str
    settings: Mapping[str, Any]
    media: str
    room: int = 0
    repeated: bool = False
    needs_engine: bool = field(default=True, init=False)

    @property
    def reel_id(self) -> str:  # noqa: D102
        return self.reel.id

    @property
    def key(self) -> str:  # noqa: D102
        return f"{self.reel.id}/{self.segment.index}"

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self.reel.input}: {self.reel.span(self.segment)}"

    @property
    def weight(self) -> int:  # noqa: D102
        return max(1, self.segment.frames * self.reel.frame_pixels)

    def again(self) -> Self:  # noqa: D102
        return dataclasses.replace(self, media=media_name(self.segment.index, unique=True), repeated=True)

    def run(self, colorizer: Colorizer | None, progress: Callable[[int], None]) -> Record:  # noqa: D102
        if colorizer is None:
            raise EngineError(f"{self.reel.input}: no engine is open to colour {self.name} with")
        ledger = ReelLedger(self.folder)
        check_room(self.folder, self.room)
        media = ledger.media(self.media)
        made = self.reel.colorize(self.segment, colorizer, media, progress)
        made = dataclasses.replace(made, path=media.name)
        record = Record(self.identity, colorizer.key, self.segment, made, self.settings, colorizer.notes)
        ledger.write_record(record)
        return record


@dataclass(frozen=True)
class AssembleTask:
    """Put a reel's finished segments together, prove the result, and write down that it is done."""

    reel: Reel
    folder: Place
    records: tuple[Record, ...]
    provenance: Mapping[str, str]
    replace: bool  # whether something may be at the output's place
    seconds: float  # spent on the reel before
    needs_engine: bool = field(default=False, init=False)

    @property
    def reel_id(self) -> str:  # noqa: D102
        return self.reel.id

    @property
    def key(self) -> str:  # noqa: D102
        return f"{self.reel.id}/assemble"

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self.reel.input}: putting the output together"

    @property
    def weight(self) -> int:  # noqa: D102
        return 1

    def again(self) -> Self:  # noqa: D102
        return self

    def run(self, _colorizer: Colorizer | None, _progress: Callable[[int], None]) -> Done:  # noqa: D102
        ledger = ReelLedger(self.folder)
        check_room(self.reel.output.parent, sum(record.file.bytes for record in self.records))
        begun = ledger.announced() == self.reel.name  # by an attempt that was ended after it
        if begun:
            ledger.sweep(self.reel.targets())
        replace = self.replace or begun
        if not replace and (there := self.reel.existing()):
            raise self._occupied(str(there))
        item = self.reel.item
        if (fingerprint_of(item), stamp_of(item)) != (self.reel.fingerprint, self.reel.stamp):
            raise InputError(f"{self.reel.input}: changed while it was coloured; run the same command again")
        ledger.announce(self.reel.name)
        files = [dataclasses.replace(r.file, path=str(ledger.media(r.file.path))) for r in self.records]
        try:
            made = self.reel.assemble(files, self.provenance, replace)
        except FileExistsError as e:
            ledger.retract()
            raise self._occupied(e.filename) from e
        digest = made.digest or output_digest(self.reel.output, made.files)
        done = Done(
            input=self.reel.input,
            output=self.reel.name,
            files=made.files,
            sha256=digest.sha256,
            bytes=digest.bytes,
            frames=made.frames,
            seconds=self.seconds,
            identity=self.records[0].identity if self.records else "",
            engine=self.records[0].engine if self.records else "",
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            warnings=_distinct([*self.reel.warnings, *_added_up(w for f in files for w in f.warnings), *made.warnings]),
            problems=made.problems,
            plan=self.reel.entry(),
            segments=tuple(summary(r.file, r.segment) for r in self.records),
            digests=digest.each,
        )
        ledger.write_done(done)
        return done

    def _occupied(self, there: str) -> StorageError:
        """Something has come to be in the output's place."""
        return StorageError(f"{there}: appeared while {self.reel.input} was coloured; move it, or pass --overwrite")


def summary(file: SegmentFile, segment: Segment) -> dict[str, Any]:
    """A segment in the record of its reel: everything but its timestamps."""
    facts = {f.name: getattr(file, f.name) for f in dataclasses.fields(file) if f.name not in ("path", "pts")}
    return {"index": segment.index} | facts


def _added_up(lines: Iterable[str]) -> list[str]:
    """Segments' warnings, each once; what they say of so many pictures, of all of theirs together.

    A picture is in one segment, whereas a damaged packet or stretch of the file may be met by several.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        found = _OF_PICTURES.fullmatch(line)
        counts[found[2] if found else line] += int(found[1]) if found else 0
    return [f"{count} {what}" if count else what for what, count in counts.items()]


def _distinct(lines: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))
