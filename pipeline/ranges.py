"""Reading objects of a store by ranges, through a bounded cache of blocks that all readers of a process share."""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from pipeline.errors import InputError, StorageError
from pipeline.stores import StorePath, attempt

_BLOCK = 1 << 18  # bytes; what a look into the middle of a file costs
_AHEAD = 32  # blocks; what reading on from block to block comes to ask for at once
_CACHED = 256  # blocks in memory: 64 MiB
VERSION_KEYS = (
    "ETag",
    "etag",
    "version_id",
    "mtime",
    "LastModified",
    "updated",
    "created",
)  # tell versions apart


class _Blocks:
    """The blocks read last, whosever they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[Any, int], bytes] = OrderedDict()

    def get(self, signature: Any, number: int) -> bytes | None:
        with self._lock:
            block = self._blocks.get((signature, number))
            if block is not None:
                self._blocks.move_to_end((signature, number))
            return block

    def put(self, signature: Any, number: int, data: bytes) -> None:
        with self._lock:
            self._blocks[signature, number] = data
            while len(self._blocks) > _CACHED:
                self._blocks.popitem(last=False)


_blocks = _Blocks()


class StoredObject:
    """An object as it is now: its size, and a signature that another version of it would not have.

    Raises InputError where there is none, StorageError where the store does not answer.
    """

    def __init__(self, place: StorePath) -> None:
        try:
            info = place.info()
        except FileNotFoundError as e:
            bucket = ", nor such a bucket" if "bucket does not exist" in str(e) else ""
            raise InputError(f"{place}: no such file{bucket}") from e
        if info["type"] == "directory":
            raise InputError(f"{place}: is a folder, expected a file")
        if info.get("size") is None:
            raise StorageError(f"{place}: the server does not tell its size; copy the file here first")
        self.place, self.size = place, int(info["size"])
        self.signature = (place.url, self.size, *(str(info[key]) for key in VERSION_KEYS if key in info))

    def open(self, _mode: str = "rb") -> RangeFile:
        """A reader of its own, at the beginning."""
        return RangeFile(self)


class RangeFile(io.RawIOBase):
    """A seekable reader of an object; blocks that follow each other are fetched more and more at a time.

    `failure` is the first error of a read: FFmpeg takes one for the end of the file and does not always pass it on.
    """

    def __init__(self, source: StoredObject) -> None:
        super().__init__()
        self.source = source
        self._at = 0
        self._next, self._ahead = -1, 1
        self._hollow: Sequence[tuple[int, int]] = ()
        self.failure: StorageError | None = None

    @property
    def name(self) -> str:
        """The object's URL."""
        return self.source.place.url

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; reads nothing."""
        base = (0, self._at, self.source.size)[whence]
        if base + offset < 0:
            raise ValueError(f"expected a place inside the file, got {offset = }, {whence = }")
        self._at = base + offset
        return self._at

    def hollow(self, ranges: Sequence[tuple[int, int]]) -> None:
        """From now on, give zeros for these sorted (start, end) ranges instead of reading them."""
        self._hollow = ranges

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end; raises StorageError."""
        end = self.source.size if size is None or size < 0 else min(self.source.size, self._at + size)
        parts = []
        while self._at < end:
            part = self._part(end)
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def readall(self) -> bytes:
        """All that follows."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _part(self, end: int) -> bytes:
        """Some bytes from here on, up to `end`."""
        nearest = bisect_right(self._hollow, (self._at, self.source.size))
        if nearest and self._at < self._hollow[nearest - 1][1]:
            return bytes(min(end, self._hollow[nearest - 1][1]) - self._at)
        if nearest < len(self._hollow):
            end = min(end, self._hollow[nearest][0])
        number, skipped = divmod(self._at, _BLOCK)
        return self._block(number)[skipped : skipped + end - self._at]

    def _block(self, number: int) -> bytes:
        block = _blocks.get(self.source.signature, number)
        if block is not None:
            return block
        self._ahead = min(2 * self._ahead, _AHEAD) if number == self._next else 1
        self._next = number + self._ahead
        start = number * _BLOCK
        data = self._fetch(start, min(self.source.size, start + self._ahead * _BLOCK))
        for n in range(self._ahead):
            if part := data[n * _BLOCK : (n + 1) * _BLOCK]:
                _blocks.put(self.source.signature, number + n, part)
        return data[:_BLOCK]

    def _fetch(self, start: int, end: int) -> bytes:
        url = self.source.place.url

        def range_of(fs: Any, path: str) -> bytes:
            data: bytes = fs.cat_file(path, start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"{len(data)} of {end - start} bytes arrived")
            return data

        try:
            return attempt(url, "cannot be read", range_of)
        except FileNotFoundError as e:
            self.failure = StorageError(f"{url}: is gone while it is read; run the same command again")
            raise self.failure from e
        except StorageError as e:
            self.failure = e
            raise
