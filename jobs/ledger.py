"""The job folder: what was planned, what is finished, and the proof of it. Resume, audit and "already done" read it.

OUTDIR/.reelcolor/<job>/            OUTDIR is a local folder or one on a store
    plan.json                       every reel, segment and setting of the command
    run.json                        how the run stands (journal.py)
    request.json                    what was asked for, of a job that was submitted to a cluster
    lock                            held by the run that works on it (lease.py)
    ../claims                       locked in parts by the runs that make an output (claims.py)
    reels/<reel>/segments/<n>.json  one record a finished segment, written after its media file
    reels/<reel>/segments/<n>*.seg  that media file; removed once the reel is done
    reels/<reel>/begun.json         what this machine chose where the recipe leaves it open: the encoder
    reels/<reel>/announced.json     the output that is about to appear
    reels/<reel>/failed.json        why it was left out: segment, error, its class, the line of log
    reels/<reel>/done.json          the finished reel: output, hash, summaries of its segments
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.claims import Claim, claiming
from jobs.lease import Hold, holding
from jobs.records import Done, Record, write_json
from pipeline.errors import InputError, StorageError
from pipeline.frames import Segment
from pipeline.storage import Place, files_below, hashed
from pipeline.stores import part_prefix

FOLDER = ".reelcolor"
FAILED = "failed.json"
_PART = ".*.part*"  # what is being written, as storage.replacing names it


class ReelLedger:
    """The records of one reel. `listed`: the names of all files there are, where a listing has told them."""

    def __init__(self, folder: Place, listed: frozenset[str] | None = None) -> None:
        self.folder = folder
        self.segments: Place = folder / "segments"
        self._listed = listed

    def media(self, name: str) -> Place:
        """Where a segment's media file of this name lies."""
        return self.segments / name

    def write_record(self, record: Record) -> None:
        """Make a finished segment count; raises StorageError."""
        write_json(self._record(record.segment.index), record)

    def read_record(self, segment: Segment, identity: str) -> Record | str | None:
        """The segment's record if its file is still what it says; else why it must be redone; None if never made."""
        path = self._record(segment.index)
        if self._is_absent(f"segments/{path.name}"):
            return None
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
        try:
            sha256, _ = hashed(self.media(record.file.path), record.file.bytes)
        except (InputError, StorageError):
            return False
        return sha256 == record.file.sha256

    def begin(self, encoder: str) -> None:
        """Note the encoder that was chosen for the reel, so that all its segments get the same; raises StorageError."""
        write_json(self._begun, encoder)

    def begun_with(self) -> str | None:
        """The encoder that an earlier run chose for the reel."""
        try:
            return str(json.loads(self._begun.read_bytes()))
        except (OSError, ValueError):
            return None

    def announce(self, output: str) -> None:
        """Note that `output` is about to appear, lest a crash right after makes it look like someone else's."""
        write_json(self._announced, output)

    def announced(self) -> str | None:
        """The output that was about to appear when the last run ended."""
        if self._is_absent(self._announced.name):
            return None
        try:
            return str(json.loads(self._announced.read_bytes()))
        except (OSError, ValueError):
            return None

    def retract(self) -> None:
        """Take back that an output is about to appear."""
        self._announced.unlink(missing_ok=True)

    def write_done(self, done: Done) -> None:
        """Make the finished reel count, then remove its segments' media; raises StorageError."""
        write_json(self.folder / "done.json", done)
        self.retract()
        self.remove_media()

    def read_done(self) -> Done | None:
        """The finished reel's record; None where there is none that can be read."""
        try:
            return Done.from_json((self.folder / "done.json").read_bytes())
        except (OSError, ValueError):
            return None

    def write_failed(self, entry: Mapping[str, Any]) -> None:
        """Say why the reel is left out; raises StorageError."""
        write_json(self.folder / FAILED, entry)

    def read_failed(self) -> dict[str, Any] | None:
        """Why the reel was left out; None where it was not."""
        if self._is_absent(FAILED):
            return None
        try:
            found = json.loads((self.folder / FAILED).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def forget_failed(self) -> None:
        """Take that back."""
        if not self._is_absent(FAILED):
            (self.folder / FAILED).unlink(missing_ok=True)

    def remove_strays(self, keep: Container[str]) -> None:
        """Remove the media files that no record names: attempts that were ended in the middle, or came second."""
        for path in [*self.segments.glob("*.seg"), *self._half_written()]:
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Take back that the reel, or any part of it, is finished."""
        (self.folder / "done.json").unlink(missing_ok=True)
        self._begun.unlink(missing_ok=True)
        for record in self.segments.glob("*.json"):
            record.unlink(missing_ok=True)
        self.remove_media()

    def abandon(self) -> None:
        """Remove the segments' media files, and the records of an unfinished reel, which are nothing without them."""
        for record in self.segments.glob("*.json") if self._is_absent("done.json") else ():
            record.unlink(missing_ok=True)
        self.remove_media()

    def sweep(self, targets: Iterable[Place]) -> None:
        """Remove what a killed run was in the middle of writing: segments, records, announced outputs."""
        for part in self._half_written():
            part.unlink(missing_ok=True)
        if self.announced() is None:
            return
        for folder in {path.parent for path in targets}:
            names = {part_prefix(path.name) for path in targets if path.parent == folder}
            for part in folder.glob(_PART):
                if any(part.name.startswith(name) for name in names):
                    part.unlink(missing_ok=True)

    def remove_media(self) -> None:
        """Remove the segments' media files, and whatever is half-written; the records stay."""
        for path in [*self.segments.glob("*.seg"), *self._half_written()]:
            path.unlink(missing_ok=True)

    def _half_written(self) -> list[Place]:
        """Temporary files of the reel. Records have some on a file system only."""
        records = self.folder.glob(_PART) if isinstance(self.folder, Path) else ()
        return [*self.segments.glob(_PART), *records]

    def remove_left_media(self) -> None:
        """Remove media files that were listed beside a finished reel, by a run killed right after its last record."""
        if any(name.startswith("segments/") and not name.endswith(".json") for name in self._listed or ()):
            self.remove_media()

    def _is_absent(self, name: str) -> bool:
        """Whether it is known, without asking, that there is no such file."""
        return self._listed is not None and name not in self._listed

    @property
    def _begun(self) -> Place:
        return self.folder / "begun.json"

    @property
    def _announced(self) -> Place:
        return self.folder / "announced.json"

    def _record(self, index: int) -> Place:
        return self.segments / f"{index:06d}.json"


class Job:
    """The job folder of one command; the same command finds it again.

    What lies in OUTDIR's job folders is listed once, when it is first asked for.
    """

    def __init__(self, outdir: Place, job_id: str) -> None:
        self.outdir = outdir
        self.folder: Place = outdir / FOLDER / job_id
        self.interrupted = False  # whether the run before this one was killed
        self._hold = Hold(interrupted=False)
        self.claim: Claim = lambda _output: False  # whether this run alone makes an output; while it holds the job

    def reel(self, reel_id: str) -> ReelLedger:
        """The ledger of one reel, as it was listed."""
        return self._ledger(self.folder.name, reel_id)

    def finished(self, reel_id: str) -> tuple[ReelLedger, Done] | None:
        """The reel's ledger where this job, or another into the same OUTDIR, has finished it."""
        jobs = [job for job, reels in self._listing.items() if "done.json" in reels.get(reel_id, ())]
        for job in sorted(jobs, key=lambda job: (job != self.folder.name, job)):
            ledger = self._ledger(job, reel_id)
            done = ledger.read_done()
            if done is not None:
                return ledger, done
        return None

    def sweep(self, reel: ReelLedger, output: str, targets: tuple[Place, ...]) -> None:
        """Remove what killed runs left half-written of an output, which this run has claimed.

        Other jobs that had announced it do not make it any more: what will be there is not theirs. Of a folder, to
        which others may add, that cannot be said; nor on a store, where nothing can be claimed.
        """
        reel.sweep(targets)
        claimed = isinstance(self.outdir, Path) and targets == (self.outdir / output,)
        for other in self._announcers.get(output, ()) if claimed else ():
            if other.folder != reel.folder:
                other.sweep(targets)
                other.retract()

    @cached_property
    def _announcers(self) -> dict[str, list[ReelLedger]]:
        """The reels of all jobs that were about to have an output, by its name."""
        found: dict[str, list[ReelLedger]] = {}
        for job, reels in self._listing.items():
            for reel in (reel for reel, names in reels.items() if "announced.json" in names):
                ledger = self._ledger(job, reel)
                found.setdefault(ledger.announced() or "", []).append(ledger)
        return found

    def _ledger(self, job: str, reel_id: str) -> ReelLedger:
        listed = self._listing.get(job, {}).get(reel_id, ())
        return ReelLedger(self.outdir / FOLDER / job / "reels" / reel_id, frozenset(listed))

    @cached_property
    def _listing(self) -> dict[str, dict[str, set[str]]]:
        """Job → reel → names of the files in the reel's folder."""
        found: dict[str, dict[str, set[str]]] = {}
        for name in files_below(self.outdir / FOLDER):
            job, _, rest = name.partition("/reels/")
            reel, _, file = rest.partition("/")
            if file:
                found.setdefault(job, {}).setdefault(reel, set()).add(file)
        return found

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Raises StorageError."""
        write_json(self.folder / "plan.json", plan)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job; it is let go of when the process dies, on a store some seconds later.

        Raises StorageError while another run holds it.
        """
        claims = claiming(self.outdir / FOLDER / "claims")
        with holding(self.folder / "lock", str(self.outdir)) as self._hold, claims as self.claim:
            self.interrupted = self._hold.interrupted
            if self.interrupted and isinstance(self.folder, Path):
                for part in self.folder.glob(_PART):
                    part.unlink(missing_ok=True)
            yield

    def check(self) -> None:
        """Raise StorageError where the job is no longer ours: on a store, after a long silence, another takes it."""
        self._hold.check()


def media_name(index: int, unique: bool = False) -> str:
    """Of segment `index`'s media file; where others may still be writing theirs, one that no other attempt has."""
    return f"{index:06d}-{secrets.token_hex(4)}.seg" if unique else f"{index:06d}.seg"
