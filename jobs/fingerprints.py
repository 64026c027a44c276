"""What tells a changed source from an unchanged one, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from jobs.inputs import Item
from pipeline.storage import fingerprint, local_path, open_input

_HEAD = 1 << 16  # bytes of each image of a folder


def fingerprint_of(item: Item) -> dict[str, Any]:
    """Of a file by its size and both ends; of many files by their names, sizes and beginnings.

    Raises InputError or StorageError where a file is gone or cannot be read.
    """
    if item.kind == "scan":
        from pipeline.scans import scan_files, scan_source

        return _of_files(scan_files(scan_source(item.path, Fraction(1))))
    if item.files:
        return _of_files(local_path(item.path) / name for name in item.files)
    return fingerprint(item.path)


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
