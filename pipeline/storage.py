"""Files by path or URL: open, hash, and replace atomically. A `Place` is a Path, or a StorePath with a Path's methods.

The few things that are done differently here and on a store are done in this file, and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pipeline.errors import InputError, NoRoomError, StorageError, UnreadableError
from pipeline.ranges import StoredObject
from pipeline.scratch import scratch_file
from pipeline.stores import StorePath, part_prefix

Place = Path | StorePath

_CHUNK = 1 << 20
_FREE_SOME = "free some and run the same command again to resume"


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine's file system."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path behind a local url."""
    return Path(url.removeprefix("file://"))


def is_folder(path: str | Path) -> bool:
    """Whether a folder is to be seen there; Path.is_dir raises where a name is too long, or may not be asked for."""
    return os.path.isdir(path)  # noqa: PTH112


def absence(path: Path) -> str:
    """Why nothing is found under a name."""
    try:
        path.lstat()
    except OSError as e:
        if not isinstance(e, FileNotFoundError):
            return f"cannot be read: {e.strerror}"
    except ValueError:  # a NUL, from a list
        pass
    return "no such file or folder"


def place(url: str | Place) -> Place:
    """A path or URL as a Place; raises StorageError where the URL holds credentials."""
    if not isinstance(url, str):
        return url
    return local_path(url) if is_local(url) else StorePath(url)


def open_input(url: str) -> IO[bytes]:
    """Open for seekable binary reading; raises InputError where there is nothing to read.

    What may not be read, or cannot be later, as on a disk with bad sectors, is an UnreadableError.
    """
    try:
        where = readable(url)
        if not isinstance(where, Path):
            return cast(IO[bytes], where.open("rb"))
        mode = where.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # some of these wait for ever, some never end
            raise InputError(f"{url}: is a pipe or device, expected a file; save the stream to a file first")
        return io.BufferedReader(_LocalFile(where))
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file") from e
    except IsADirectoryError as e:
        raise InputError(f"{url}: is a folder, expected a file") from e
    except PermissionError as e:
        raise UnreadableError(f"{url}: cannot be read: {e.strerror}") from e
    except OSError as e:
        raise StorageError(f"{url}: cannot be read: {e.strerror or e}") from e


class _LocalFile(io.FileIO):
    """A file whose errors of reading name it."""

    def readinto(self, buffer: Any) -> int | None:
        with self._named():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._named():
            return super().readall()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise UnreadableError(f"{self.name}: cannot be read: {e.strerror or e}") from e


def readable(url: str | Place) -> Path | StoredObject:
    """What can be opened any number of times, while a store is asked for the object's size but once."""
    where = place(url)
    return where if isinstance(where, Path) else StoredObject(where)


def storage_error(url: str | Place, e: OSError) -> StorageError:
    """An OSError while writing, as one line that says what to do."""
    if is_full(e.errno):
        return NoRoomError(f"{url}: no space left; {_FREE_SOME}")
    return StorageError(f"{url}: cannot be written: {e.strerror or e}")


def is_full(code: int | None) -> bool:
    """Whether an error's code says that there is no room left."""
    return code in (errno.ENOSPC, errno.EDQUOT)


def half_written(path: Path) -> Iterator[Path]:
    """What `replacing` has begun for a local path and not ended: it is being written, or its writer was killed."""
    return path.parent.glob(f"{glob.escape(part_prefix(path.name))}*.part")


@contextmanager
def replacing(path: str | Place, suffix: str = ".part", *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary local file; on success it becomes `path`, on failure it is removed.

    A reader of `path` sees the old content or the whole new content, also across a crash: the file lies beside a local
    path, is flushed and renamed (POSIX rename(2)); for a store it lies in scratch and is uploaded. Raises
    FileExistsError where there is a `path` by then that is not to be replaced, StorageError for what else goes wrong.
    """
    target = place(path)
    if isinstance(target, StorePath):
        with scratch_file(suffix) as temporary:
            yield temporary
            if not replace and target.exists():
                raise FileExistsError(errno.EEXIST, "exists", str(target))
            target.upload(temporary)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=part_prefix(target.name), suffix=suffix, dir=target.parent)
        os.close(handle)
    except OSError as e:
        raise storage_error(target, e) from e
    temporary = Path(name)
    try:
        yield temporary
        publish(temporary, target, replace)
    except FileExistsError:
        raise
    except OSError as e:
        raise storage_error(target, e) from e
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def local_file(path: Place) -> Iterator[Path]:
    """Yield where to write a file whose record will say whether it is whole: `path` itself, for a store in scratch."""
    if isinstance(path, StorePath):
        with replacing(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path


def check_folder(path: Path) -> None:
    """Raise StorageError where there is no folder to write into and none can be made, as far as that is to be seen."""
    there = next(filter(os.path.lexists, (path, *path.parents)))
    if not is_folder(there):
        what = "is a broken link" if there.is_symlink() else "is a file"
        raise StorageError(f"{there}: {what}, expected an output folder; choose another with -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{there}: cannot be written to; change its permissions, or choose another folder with -o")


def make_folder(path: Path) -> None:
    """Make a folder, unless it exists, and try whether files can be written there; raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise storage_error(path, e) from e


def publish(temporary: Path, target: Path, replace: bool = True) -> None:
    """Flush `temporary` to disk and rename it to `target`, with the permissions a plain open() would have given.

    Raises FileExistsError where there is a target that is not to be replaced.
    """
    with temporary.open("rb+") as f:
        os.fsync(f.fileno())
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    if replace:
        temporary.replace(target)
    else:
        _rename_to_new(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Rename, and raise FileExistsError rather than replace; at one stroke where the file system has hard links."""
    try:
        target.hardlink_to(temporary)
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        temporary.replace(target)
    else:
        temporary.unlink()


def write_bytes(path: str | Place, data: bytes) -> None:
    """Write a whole small file atomically."""
    target = place(path)
    if isinstance(target, StorePath):
        target.write_bytes(data)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(data)


def files_below(folder: Place) -> Iterator[str]:
    """The names, from `folder` on, of all files in it and below it; none where there is no such folder."""
    if isinstance(folder, StorePath):
        yield from folder.files()
        return
    for here, _, names in os.walk(folder):
        yield from (Path(here, name).relative_to(folder).as_posix() for name in names)


def sizes_below(folder: Place, wanted: Callable[[str], bool]) -> dict[str, int]:
    """Name → bytes, of the files that `files_below` names and that are wanted; raises StorageError."""
    if isinstance(folder, StorePath):
        return {name: int(info.get("size") or 0) for name, info in folder.files().items() if wanted(name)}
    sizes = {}
    for name in filter(wanted, files_below(folder)):
        with contextlib.suppress(FileNotFoundError):  # a run may be finishing it
            sizes[name] = (folder / name).lstat().st_size
    return sizes


def first_existing(paths: Sequence[Place]) -> Place | None:
    """The first of these that is there; of many on a store, in one listing of the folder they have in common."""
    if len(paths) > 1 and isinstance(paths[0], StorePath):
        common = os.path.commonprefix([str(path) for path in paths])  # noqa: RUF071  (cut back to whole names next)
        root = StorePath(common.rpartition("/")[0])
        there = {str(root / name) for name in root.files()}
        return next((path for path in paths if str(path) in there), None)
    return next((p for p in paths if (os.path.lexists(p) if isinstance(p, Path) else p.exists())), None)


def free_bytes(folder: Place) -> int:
    """Room for what is to be written into a folder: on its disk, or for a store in scratch, which it passes through."""
    where = folder if isinstance(folder, Path) else Path(tempfile.gettempdir())
    return shutil.disk_usage(next(filter(is_folder, (where, *where.parents)))).free


def check_room(folder: Place, needed: int) -> None:
    """Raise NoRoomError where so many bytes that are about to be written into a folder would fill the disk."""
    if (free := free_bytes(folder)) < needed:
        where = folder if isinstance(folder, Path) else tempfile.gettempdir()
        room = f"{free / 1e6:.3g} MB are free, about {needed / 1e6:.3g} are needed next"
        raise NoRoomError(f"{where}: no space left for more, {room}; {_FREE_SOME}")


def sha256_file(path: str | Place) -> str:
    """Hex SHA-256 of a file's content, read in chunks."""
    return hashed(path)[0]


def hashed(path: str | Place, expected: int | None = None) -> tuple[str, int]:
    """(hex SHA-256, bytes) of a file's content; the hash is "" where it does not have the `expected` size."""
    digest = hashlib.sha256()
    with open_input(str(path)) as f:
        size = f.seek(0, os.SEEK_END)
        if expected not in (None, size):
            return "", size
        f.seek(0)
        while chunk := f.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest(), size


def fingerprint(url: str) -> dict[str, Any]:
    """What tells a changed source from an unchanged one without reading it all: size and hash of both ends."""
    with open_input(url) as f:
        head = f.read(_CHUNK)
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - _CHUNK))
        return {"bytes": size, "sha256_ends": hashlib.sha256(head + f.read(_CHUNK)).hexdigest()}
