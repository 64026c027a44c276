"""No output is made by two runs at once, though they be different jobs: each run claims its outputs in OUTDIR.

On a file system, a claim is a lock on one byte of a file that all jobs share, at an offset hashed from the output's
name: any number of claims takes one open file, and the kernel lets go of all of them when the process dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.storage import Place, storage_error

_OFFSETS = (1 << 62) - 1  # of file offsets, which have 63 bits
Claim = Callable[[str], bool]


@contextlib.contextmanager
def claiming(path: Place) -> Iterator[Claim]:
    """Yield a function that claims an output by its name, and says whether no other run has; until the block ends.

    On a store there are no such locks, and nothing is refused. Raises StorageError where the file cannot be opened.
    """
    if not isinstance(path, Path):
        yield lambda _name: True
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise storage_error(path, e) from e
    try:
        yield lambda name: _lock(handle, _offset(name))
    finally:
        os.close(handle)


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") & _OFFSETS


def _lock(handle: int, offset: int) -> bool:
    """Whether the byte is ours; also where the file system knows no locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except OSError as e:
        return e.errno not in (errno.EACCES, errno.EAGAIN)
    return True
