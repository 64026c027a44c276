"""What tells a changed source from an unchanged one, without reading all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from jobs.inputs import Item
from pipeline.errors import InputError
from pipeline.ranges import VERSION_KEYS, StoredObject
from pipeline.storage import fingerprint, is_local, local_path, open_input
from pipeline.stores import StorePath

_READ_BY_ALL = 0o444
_HEAD = 1 << 16  # bytes of each image of a folder


def fingerprint_of(item: Item) -> dict[str, Any]:
    """Of a file by its size and both ends; of a scan by its files' names, sizes and beginnings.

    Of a folder of images by what its listing says: names, sizes, times of change, and which may not be read; not one is
    opened. A picture rewritten with the same size and time passes for the same, one that was only touched for another.
    Raises InputError or StorageError where a file is gone or cannot be read.
    """
    if item.kind == "scan":
        from pipeline.scans import scan_files, scan_source

        return _of_files(scan_files(scan_source(item.path, Fraction(1))))
    if item.files and not is_local(item.path):
        return _of_objects(StorePath(item.path).files(), item.files)
    if item.files:
        return _of_listing(local_path(item.path), item.files)
    return fingerprint(item.path)


def stamp_of(item: Item) -> str:
    """When a source was last written, which tells of a change that its fingerprint does not show, or of none at all.

    It decides what may be in one output together, not whether an output is still that of its source: a copy of a
    source, brought back from elsewhere, is as good. Raises InputError or StorageError where a file is gone.
    """
    if item.kind == "scan":
        from pipeline.scans import scan_files, scan_source

        return _times(scan_files(scan_source(item.path, Fraction(1))))
    if item.files:  # their fingerprint says so
        return ""
    return _times([local_path(item.path)]) if is_local(item.path) else str(StoredObject(StorePath(item.path)).signature)


def _times(paths: Iterable[Path]) -> str:
    """A hash of these files' times of change."""
    try:
        times = [path.stat().st_mtime_ns for path in paths]
    except OSError as e:
        raise InputError(f"{e.filename}: cannot be read: {e.strerror}") from e
    return hashlib.sha256(str(times).encode()).hexdigest()


def _of_listing(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    digest = hashlib.sha256()
    total = 0
    root = os.fspath(folder)
    for name in names:
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116  (a million of them)
        except OSError as e:
            raise InputError(f"{root}/{name}: cannot be read: {e.strerror}") from e
        total += status.st_size
        open_to_all = status.st_mode & _READ_BY_ALL == _READ_BY_ALL  # as nearly all are, who need not be asked about
        closed = "" if open_to_all or os.access(f"{root}/{name}", os.R_OK) else " closed"
        digest.update(f"{os.fsencode(name).hex()} {status.st_size} {status.st_mtime_ns}{closed}\n".encode())
    return {"bytes": total, "sha256_listing": digest.hexdigest()}


def _of_objects(listed: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Of objects on a store by what one listing says of them: size, and entity tag or time."""
    lines = [(name, *(str(listed.get(name, {}).get(key)) for key in ("size", *VERSION_KEYS))) for name in names]
    total = sum(int(listed[name]["size"]) for name in names if name in listed)
    return {"bytes": total, "sha256_listing": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}


def _of_files(paths: Iterable[Path]) -> dict[str, Any]:
    digest = hashlib.sha256()
    total = 0
    for path in paths:
        with open_input(str(path)) as f:
            head = f.read(_HEAD)
            size = f.seek(0, os.SEEK_END)
        total += size
        digest.update(f"{os.fsencode(path.name).hex()} {size} {hashlib.sha256(head).hexdigest()}\n".encode())
    return {"bytes": total, "sha256_heads": digest.hexdigest()}
