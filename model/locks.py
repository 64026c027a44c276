"""One process at a time, on one machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage import storage_error


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Alone with a file, by a .lock beside it that goes with the process that holds it. Raises StorageError."""
    path = target.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as e:
        raise storage_error(path, e) from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
