"""What the ledger says: of a finished segment, of a finished reel; and how that becomes JSON."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InputError
from pipeline.frames import Segment, SegmentFile
from pipeline.storage import Place, hashed, write_bytes

_SHORT = 16  # hexadecimal digits that tell one of many files from what others put in its place


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

    `sha256`, `bytes` and `digests` are over these files' contents and names, as `output_digest` has it.
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
    digests: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: builtins.bytes) -> Done:
        """Raises ValueError where the text is not a whole record."""
        try:
            data = json.loads(text)
            tuples = ("files", "warnings", "problems", "segments", "digests")
            return cls(**(data | {name: tuple(data[name]) for name in tuples if name in data}))
        except (KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"not a reel's record: {e}") from e


@dataclass(frozen=True)
class Digest:
    """Hex SHA-256 and bytes of a finished output; of a folder, also the first digits of each file's own hash."""

    sha256: str
    bytes: int
    each: tuple[str, ...] = ()


def output_digest(output: Place, files: tuple[str, ...]) -> Digest:
    """Of a finished output: a file, or these files below a folder, by name and content.

    Raises InputError or StorageError where a file is gone or cannot be read.
    """
    if files == (".",):
        return Digest(*hashed(output))
    digest = hashlib.sha256()
    each = []
    total = 0
    for name in files:
        sha256, size = hashed(output / name)
        digest.update(f"{name.encode('utf-8', 'surrogateescape').hex()} {sha256}\n".encode())
        each.append(sha256[:_SHORT])
        total += size
    return Digest(digest.hexdigest(), total, tuple(each))


def only_gone(output: Place, done: Done) -> bool:
    """Whether what is left of a finished output is as it was written; raises StorageError where that cannot be read."""
    for name, sha256 in zip(done.files, done.digests or [""] * len(done.files), strict=True):
        try:
            if hashed(output / name)[0][:_SHORT] != sha256:
                return False
        except InputError:  # it is gone
            continue
    return True


def write_json(path: Place, value: Any) -> None:
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
