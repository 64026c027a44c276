"""Local room for what is on its way to a store, and for trials; what a killed process leaves, the next one removes."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

_PREFIX = "reelcolor-scratch-"
_LOCK = "lock"


@contextmanager
def scratch_file(suffix: str = "") -> Iterator[Path]:
    """A new empty file in the folder for temporary files ($TMPDIR), removed at the end."""
    handle, name = tempfile.mkstemp(suffix=suffix, dir=_folder(os.getpid()))
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """As `scratch_file`, an empty folder."""
    with tempfile.TemporaryDirectory(dir=_folder(os.getpid())) as folder:
        yield Path(folder)


def sweep() -> None:
    """Remove what processes have left that are gone."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_left(left)


@lru_cache(maxsize=1)
def _folder(_process: int) -> Path:
    """This process's own folder, held by a lock that goes with the process."""
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.is_dir():  # else another process has taken it for a dead one's, just now
            break
        os.close(handle)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_if_left(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(handle)
