"""Where what can be made or fetched again is kept."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from functools import cache
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.storage import half_written, write_bytes

_ABANDONED = 3600.0  # seconds after which a file that is being written is taken for one whose writer was killed
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/reelcolor, by default ~/.cache/reelcolor: exported graphs and fetched model packages.

    Raises StorageError where neither is set, as for a container's user without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "reelcolor"
    except RuntimeError as e:
        raise StorageError("there is no home folder to keep a cache in; set XDG_CACHE_HOME to a folder") from e


def read_cached(path: Path) -> bytes:
    """A file's content; raises FileNotFoundError also where there is no folder, OSError for what is no file."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    try:
        return path.read_bytes()
    except NotADirectoryError as e:
        raise FileNotFoundError(errno.ENOENT, e.strerror, str(path)) from e


def write_cached(path: Path, data: bytes) -> None:
    """Write a file atomically; where that cannot be, say so, once for the whole folder, and go on."""
    _sweep(path)
    try:
        write_bytes(path, data)
    except StorageError as e:
        reason = e.__cause__.strerror if isinstance(e.__cause__, OSError) else e
        where = path if path.is_dir() else cache_folder()
        _say(f"{where}: cannot be written: {reason}; what would be kept there is made anew each time")


@cache
def _say(line: str) -> None:
    _log.warning("%s", line)


def _sweep(path: Path) -> None:
    """Remove what writers of a file have left that were killed meanwhile."""
    with contextlib.suppress(OSError):
        for part in half_written(path):
            if part.stat().st_mtime < time.time() - _ABANDONED:
                part.unlink()
