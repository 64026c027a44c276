"""What a worker does: open the engine once, then colour segments and put finished reels together.

A task's outcome is a value, errors included: an exception that leaves a worker would be the death of the worker.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, cast

from jobs.fingerprints import fingerprint_of, stamp_of
from jobs.hearing import Say, heard
from jobs.ledger import ReelLedger, media_name
from jobs.records import Done, Record, output_digest
from jobs.reels import Reel
from jobs.text import log_everything, one_line
from pipeline.errors import EngineError, InputError, NoRoomError, ReelcolorError, StorageError
from pipeline.frames import Segment, SegmentFile
from pipeline.storage import Place, check_room, is_full, storage_error

if TYPE_CHECKING:
    from pipeline.infer import Colorizer

Opener = Callable[[], AbstractContextManager["Colorizer"]]
FailureKind = Literal["internal", "input", "storage", "engine", "recipe", "verification", "worker"]
IN_FLIGHT = 2  # tasks of a worker, one decodes and encodes while the other infers; also its engine's threads


@dataclass(frozen=True)
class Failure:
    """Why a task failed, in one line; `trace` is for --debug. `log`: when, where, in which line of source.

    `no_room`: because this worker's disk is full; another's may not be.
    """

    kind: FailureKind
    message: str
    trace: str = ""
    log: str = ""
    no_room: bool = False


Outcome = Record | Done | Failure


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

    `room`: bytes that the media file takes, roughly.
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
        replace = self.replace or ledger.announced() == self.reel.name  # by an attempt that was ended after it
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
            warnings=_distinct([*self.reel.warnings, *(w for f in files for w in f.warnings), *made.warnings]),
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


def _distinct(lines: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


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


def failure(e: Exception, what: str = "") -> Failure:
    """An exception as a value; `what` it is about is named where the exception does not."""
    kind, message = _told(e, what)
    full = isinstance(e, NoRoomError) or (isinstance(e, OSError) and is_full(e.errno))
    return Failure(kind, message, "".join(traceback.format_exception(e)), _log_line(e), full)


def _told(e: Exception, what: str) -> tuple[FailureKind, str]:
    if isinstance(e, ReelcolorError):
        return cast("FailureKind", e.kind), one_line(str(e))
    if isinstance(e, OSError):
        return "storage", one_line(str(storage_error(e.filename or "the output", e)))
    if isinstance(e, MemoryError):
        return "engine", "out of memory; use fewer --workers"
    about = f"{what}: " if what else ""
    return "internal", f"{about}internal error, {type(e).__name__}: {one_line(str(e))}; --debug shows where"


def _log_line(e: Exception) -> str:
    """When and where it happened: time, machine, process, line of source."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    frames = traceback.extract_tb(e.__traceback__)
    where = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno} " if frames else ""
    return f"{now} {socket.gethostname()} process {os.getpid()} {where}{type(e).__name__}: {one_line(str(e))}"


def as_error(found: Failure) -> ReelcolorError:
    """The failure as an exception; for what concerns the whole run."""
    return StorageError(found.message) if found.kind == "storage" else EngineError(found.message)
