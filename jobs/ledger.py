"""The job folder: what was planned, what is finished, and the proof of it. Resume, audit and "already done" read it.

OUTDIR/.reelcolor/<job>/
    plan.json                       every reel, segment and setting of the command
    lock                            held by the run that works on it
    reels/<reel>/segments/<n>.json  one record a finished segment, written after its media file
    reels/<reel>/segments/<n>.seg   that media file; removed once the reel is done
    reels/<reel>/announced.json     the output that is about to appear
    reels/<reel>/done.json          the finished reel: output, hash, summaries of its segments
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, StorageError
from pipeline.frames import Segment, SegmentFile
from pipeline.storage import sha256_file, storage_error, write_bytes

FOLDER = ".reelcolor"


@dataclass(frozen=True)
class Record:
    """A finished segment.

    `identity` hashes all that the segment's content depends on but the engine; `engine` is the colorizer's key, `notes`
    which others failed before it. `file.path` is the media file's name in the segments folder.
    """

    identity: str
    engine: str
    segment: Segment
    file: SegmentFile
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: bytes) -> Record:
        """Raises ValueError where the text is not a whole record."""
        try:
            data = json.loads(text)
            entry = data["file"]
            tuples = {"pts": tuple(map(int, entry["pts"])), "warnings": tuple(entry["warnings"])}
            made = SegmentFile(**(entry | tuples))
            segment, notes = Segment(**data["segment"]), tuple(map(str, data["notes"]))
            return cls(data["identity"], data["engine"], segment, made, data["settings"], notes)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as e:
            raise ValueError(f"not a segment record: {e}") from e


@dataclass(frozen=True)
class Done:
    """A finished reel. `output` is a path below OUTDIR; `files` are relative to it, and ["."] where it is one file.

    `sha256` and `bytes` are over these files' contents and names, as `output_digest` has it.
    """

    input: str
    output: str
    files: tuple[str, ...]
    sha256: str
    bytes: int
    frames: int
    seconds: float
    identity: str
    engine: str
    finished: str  # UTC, ISO 8601
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # parts of the source that could not be coloured: bad members of an archive
    plan: Mapping[str, Any] = field(default_factory=dict)
    segments: tuple[Mapping[str, Any], ...] = ()


class ReelLedger:
    """The records of one reel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments = folder / "segments"

    def media(self, index: int) -> Path:
        """Where segment `index`'s media file lies."""
        return self.segments / f"{index:06d}.seg"

    def write_record(self, record: Record) -> None:
        """Make a finished segment count; raises StorageError."""
        write_json(self._record(record.segment.index), record)

    def read_record(self, segment: Segment, identity: str) -> Record | str | None:
        """The segment's record if its file is still what it says; else why it must be redone; None if never made."""
        path = self._record(segment.index)
        try:
            record = Record.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return "its ledger record cannot be read"
        if record.identity != identity or record.segment != segment:
            return "it was made from another source or with other settings"
        if record.file.frames != len(record.file.pts):
            return "its ledger record contradicts itself"
        return record if self._intact(record) else "its file is missing or damaged"

    def _intact(self, record: Record) -> bool:
        media = self.media(record.segment.index)
        try:
            return media.stat().st_size == record.file.bytes and sha256_file(media) == record.file.sha256
        except (OSError, InputError, StorageError):
            return False

    def announce(self, output: str) -> None:
        """Note that `output` is about to appear, lest a crash right after makes it look like someone else's."""
        write_json(self._announced, output)

    def announced(self) -> str | None:
        """The output that was about to appear when the last run ended."""
        try:
            return str(json.loads(self._announced.read_bytes()))
        except (OSError, ValueError):
            return None

    def write_done(self, done: Done) -> None:
        """Make the finished reel count, then remove its segments' media; raises StorageError."""
        write_json(self.folder / "done.json", done)
        self._announced.unlink(missing_ok=True)
        self.remove_media()

    def read_done(self) -> Done | None:
        """The finished reel's record; None where there is none that can be read."""
        try:
            data = json.loads((self.folder / "done.json").read_bytes())
            return Done(**(data | {name: tuple(data[name]) for name in ("files", "warnings", "problems", "segments")}))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def forget(self) -> None:
        """Take back that the reel, or any part of it, is finished."""
        (self.folder / "done.json").unlink(missing_ok=True)
        for record in self.segments.glob("*.json"):
            record.unlink(missing_ok=True)
        self.remove_media()

    def sweep(self, targets: Iterable[Path]) -> None:
        """Remove what a killed run was in the middle of writing: segments, and announced outputs' temporary files."""
        for part in self.segments.glob(".*.part*"):
            part.unlink(missing_ok=True)
        if self.announced() is None:
            return
        for folder in {path.parent for path in targets}:
            names = {f".{path.name[:80]}." for path in targets if path.parent == folder}
            for part in folder.glob(".*.part*"):
                if any(part.name.startswith(name) for name in names):
                    part.unlink(missing_ok=True)

    def remove_media(self) -> None:
        """Remove the segments' media files, half-written ones included; the records stay."""
        for path in [*self.segments.glob("*.seg"), *self.segments.glob(".*.part*")]:
            path.unlink(missing_ok=True)

    @property
    def _announced(self) -> Path:
        return self.folder / "announced.json"

    def _record(self, index: int) -> Path:
        return self.segments / f"{index:06d}.json"


class Job:
    """The job folder of one command; the same command finds it again."""

    def __init__(self, outdir: Path, job_id: str) -> None:
        self.outdir = outdir
        self.folder = outdir / FOLDER / job_id
        self.interrupted = False  # whether the run before this one was killed

    def reel(self, reel_id: str) -> ReelLedger:
        """The ledger of one reel."""
        return ReelLedger(self.folder / "reels" / reel_id)

    def finished(self, reel_id: str) -> tuple[ReelLedger, Done] | None:
        """The reel's ledger where this job, or another into the same OUTDIR, has finished it."""
        for folder in [self.folder, *sorted(self.outdir.glob(f"{FOLDER}/*/"))]:
            ledger = ReelLedger(folder / "reels" / reel_id)
            done = ledger.read_done()
            if done is not None:
                return ledger, done
        return None

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Raises StorageError."""
        write_json(self.folder / "plan.json", plan)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job; the kernel lets go of it when the process dies, however it dies.

        Raises StorageError while another run holds it.
        """
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise storage_error(path, e) from e
        try:
            self._take(handle)
            try:
                yield
            finally:
                os.truncate(handle, 0)
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StorageError(
                f"{self.outdir}: another run is working on this job (process {holder}); wait for it"
            ) from e
        self.interrupted = bool(holder)
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def output_digest(output: Path, files: tuple[str, ...]) -> tuple[str, int]:
    """(hex SHA-256, bytes) of a finished output: a file, or these files below a folder, by name and content.

    Raises InputError or StorageError where a file is gone or cannot be read.
    """
    if files == (".",):
        return sha256_file(output), output.stat().st_size
    digest = hashlib.sha256()
    total = 0
    for name in files:
        path = output / name
        digest.update(f"{name.encode('utf-8', 'surrogateescape').hex()} {sha256_file(path)}\n".encode())
        total += path.stat().st_size
    return digest.hexdigest(), total


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass or plain value as JSON, atomically; raises StorageError."""
    write_bytes(path, (json.dumps(plain(value), indent=1) + "\n").encode("ascii"))


def plain(value: Any) -> Any:
    """Dataclasses, paths, fractions and tuples as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
