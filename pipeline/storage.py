"""Files by path or URL through fsspec: open, list, hash, and replace atomically."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from pipeline.errors import InputError, StorageError

_CHUNK = 1 << 20


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine's file system."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path behind a local url."""
    return Path(url.removeprefix("file://"))


def open_input(url: str) -> IO[bytes]:
    """Open for seekable binary reading; raises InputError where there is nothing to read."""
    try:
        return local_path(url).open("rb") if is_local(url) else fsspec.open(url, "rb").open()
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file") from e
    except IsADirectoryError as e:
        raise InputError(f"{url}: is a folder, expected a file") from e
    except (ImportError, ValueError) as e:
        raise StorageError(f"{url}: cannot be read: {e}; install what it names, or copy the file here") from e
    except OSError as e:
        raise StorageError(f"{url}: cannot be read: {e.strerror or e}") from e


def storage_error(url: str | Path, e: OSError) -> StorageError:
    """An OSError while writing, as one line that says what to do."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{url}: no space left; free some and run the same command again to resume")
    return StorageError(f"{url}: cannot be written: {e.strerror or e}")


@contextmanager
def replacing(path: str | Path, suffix: str = ".part") -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success fsync and rename it over `path`, on failure remove it.

    A reader of `path` sees the old content or the whole new content, also across a crash (POSIX rename(2)).
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=suffix, dir=target.parent)
        os.close(handle)
    except OSError as e:
        raise storage_error(target, e) from e
    temporary = Path(name)
    try:
        yield temporary
        publish(temporary, target)
    except OSError as e:
        raise storage_error(target, e) from e
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, target: Path) -> None:
    """Flush `temporary` to disk and rename it to `target`, with the permissions a plain open() would have given."""
    with temporary.open("rb+") as f:
        os.fsync(f.fileno())
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole small file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's content, read in chunks."""
    digest = hashlib.sha256()
    with open_input(str(path)) as f:
        while chunk := f.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(url: str) -> dict[str, Any]:
    """What tells a changed source from an unchanged one without reading it all: size and hash of both ends."""
    with open_input(url) as f:
        head = f.read(_CHUNK)
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - _CHUNK))
        return {"bytes": size, "sha256_ends": hashlib.sha256(head + f.read(_CHUNK)).hexdigest()}
