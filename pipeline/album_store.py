"""The segment file of an album: finished images under their ordinals, and what became of each; an uncompressed tar."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, cast

from pipeline.errors import VerificationError
from pipeline.storage import readable, storage_error

_REPORT = "report.json"


@dataclass(frozen=True)
class MemberResult:
    """What became of one image: coloured, kept (it was in colour already) or failed.

    sizes: (width, height) of every page; bytes: of the finished file; both only where it was coloured.
    """

    ordinal: int
    state: Literal["coloured", "kept", "failed"]
    error: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    bytes: int = 0
    notes: tuple[str, ...] = ()


class StoreWriter:
    """Writes a segment file; a context manager. Nothing in the file depends on the time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._writing():
            self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self.results: list[MemberResult] = []

    def add(self, result: MemberResult, data: bytes = b"") -> None:
        """Note a result, with the finished file where there is one."""
        self.results.append(result)
        if result.state == "coloured":
            self._put(str(result.ordinal), data)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._put(_REPORT, json.dumps([asdict(result) for result in self.results]).encode())
        finally:
            with self._writing():
                self._tar.close()

    def _put(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        with self._writing():
            self._tar.addfile(info, BytesIO(data))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise storage_error(self._path, e) from e


class StoreReader:
    """Reads a segment file by ordinal. VerificationError where it is not whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        self._source = readable(path)
        try:
            with self._source.open("rb") as f, tarfile.open(fileobj=cast(IO[bytes], f), mode="r:") as tar:
                for info in tar:
                    self._places[info.name] = (info.offset_data, info.size)
            report = json.loads(self._read(_REPORT))
        except (tarfile.TarError, KeyError, ValueError) as e:
            raise VerificationError(f"{path}: segment file is damaged; run the same command again to redo it") from e
        self.results = tuple(
            MemberResult(**{**entry, "sizes": tuple(map(tuple, entry["sizes"])), "notes": tuple(entry["notes"])})
            for entry in report
        )

    def data(self, result: MemberResult) -> bytes:
        """The finished file of a coloured member."""
        return self._read(str(result.ordinal))

    def _read(self, name: str) -> bytes:
        offset, size = self._places[name]
        with self._source.open("rb") as f:
            f.seek(offset)
            return f.read(size)
