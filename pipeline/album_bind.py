"""An album's finished images and its source, bound into an album of the same kind."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from pipeline import tars, zips
from pipeline.album_store import MemberResult, StoreReader
from pipeline.archives import list_members, read_members
from pipeline.errors import InputError, UnreadableError, VerificationError
from pipeline.frames import SegmentFile
from pipeline.images import open_image
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.member_names import printable
from pipeline.members import Album, Member
from pipeline.storage import Place, is_local, local_path, open_input, replacing
from pipeline.tar_members import open_tar
from pipeline.zip_writer import ZipWriter

_CHUNK = 1 << 20


@dataclass(frozen=True)
class MemberError:
    """A member that is not coloured, and why; its bytes came back unchanged unless `left_out`. Name "": the archive."""

    name: str
    reason: str
    left_out: bool = False

    def __str__(self) -> str:
        """One line for the user."""
        return f"{self.name}: {self.reason}" if self.name else self.reason


@dataclass(frozen=True)
class AssembledAlbum:
    """What was written: numbers of members by what became of them, and bytes in all."""

    coloured: int
    kept: int  # in colour already, byte for byte as they were
    copied: int  # not images, or not to be read
    bytes: int
    errors: tuple[MemberError, ...] = ()
    warnings: tuple[str, ...] = ()


def assemble_album(
    album: Album,
    segments: Sequence[SegmentFile],
    destination: Place,
    limits: Limits = DEFAULT_LIMITS,
    *,
    replace: bool = True,
) -> AssembledAlbum:
    """Write the album with its coloured members to `destination`: a file, or a folder for a folder.

    A file appears under its name only when it is whole and its members were counted and measured again. Raises
    FileExistsError where there is one by then that is not to be replaced, VerificationError where a segment is missing
    or damaged, or what was written is not what was meant.
    """
    finished = _Finished([StoreReader(segment.path) for segment in segments])
    if missing := [member for member in album.members if member.colourable and member.ordinal not in finished.results]:
        raise VerificationError(f"{album.url}: {len(missing)} images have no result yet, first {missing[0].name}")
    if all(member.left_out for member in album.members):
        reason = album.members[0].problem if album.members else "; ".join(album.errors) or "it is empty"
        raise InputError(f"{album.url}: holds no member that can be passed on: {reason}")
    unreadable: list[MemberError] = []
    if album.kind == "folder":
        size, unreadable = _write_folder(album, finished, destination, limits, replace)
    else:
        with replacing(destination, replace=replace) as temporary:
            if album.kind == "image":
                _write_image(album, finished, temporary)
            elif album.kind == "zip":
                unreadable = _write_zip(album, finished, temporary)
            else:
                _write_tar(album, finished, temporary, limits)
            _check_written(album, finished, temporary, limits, {error.name for error in unreadable})
            size = temporary.stat().st_size
    return _summary(album, finished.results, unreadable, size)


class _Finished:
    """The finished images of all segments by ordinal."""

    def __init__(self, stores: list[StoreReader]) -> None:
        self.results = {result.ordinal: result for store in stores for result in store.results}
        self._stores = {result.ordinal: store for store in stores for result in store.results}

    def get(self, ordinal: int) -> bytes | None:
        result = self.results.get(ordinal)
        return self._stores[ordinal].data(result) if result and result.state == "coloured" else None


def _write_image(album: Album, finished: _Finished, path: Path) -> None:
    data = finished.get(0)
    if data is None:
        _copy_file(album.url, path)
    else:
        path.write_bytes(data)


def _write_zip(album: Album, finished: _Finished, path: Path) -> list[MemberError]:
    errors = []
    with open_input(album.url) as source, path.open("wb") as f:
        directory = zips.find_directory(source)
        writer = ZipWriter(f, directory.comment)
        for member, entry in zip(album.members, zips.read_directory(source, directory), strict=False):
            if printable(entry.text) != member.name:
                raise InputError(f"{album.url}: changed while it was worked on; run the command again")
            if member.left_out:
                continue
            try:
                zips.data_start(source, entry)
            except InputError as e:
                errors.append(MemberError(member.name, str(e), left_out=True))
                continue
            data = finished.get(member.ordinal)
            if data is None:
                writer.copy(source, entry)
            else:
                writer.add(source, entry, data)
        writer.close()
    return errors


def _write_tar(album: Album, finished: _Finished, path: Path, limits: Limits) -> None:
    with open_input(album.url) as source, _compressing(album, path) as out:
        reader = open_tar(source, album.kind, limits)
        written = 0
        for member, entry in zip(album.members, tars.read_entries(reader), strict=False):
            if printable(entry.name.decode("utf-8", "backslashreplace")) != member.name:
                raise InputError(f"{album.url}: changed while it was worked on; run the command again")
            if member.left_out:
                continue
            data = finished.get(member.ordinal)
            if data is None:
                written += out.write(entry.header)
                left = entry.size + entry.padding
                while left and (chunk := reader.read(min(left, _CHUNK))):
                    written += out.write(chunk)
                    left -= len(chunk)
            else:
                written += out.write(tars.with_size(entry, len(data)))
                written += out.write(data + bytes(-len(data) % tars.BLOCK))
        written += out.write(bytes(2 * tars.BLOCK))
        out.write(bytes(-written % tars.RECORD))


@contextmanager
def _compressing(album: Album, path: Path) -> Iterator[IO[bytes]]:
    """A file that compresses as the source did; the time in a gzip header is the source's."""
    with path.open("wb") as f:
        if album.kind == "tar.gz":
            with open_input(album.url) as source:
                mtime = int.from_bytes(source.read(8)[4:], "little")
            with gzip.GzipFile("", "wb", 6, f, mtime) as out:
                yield cast(IO[bytes], out)
        elif album.kind in ("tar.bz2", "tar.xz"):
            with closing(bz2.BZ2File(f, "wb") if album.kind == "tar.bz2" else lzma.LZMAFile(f, "wb")) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield f


def _write_folder(
    album: Album, finished: _Finished, destination: Place, limits: Limits, replace: bool
) -> tuple[int, list[MemberError]]:
    """(bytes written, what could not be copied)."""
    size, unreadable = 0, list[MemberError]()
    for member in album.members:
        if member.left_out:
            continue
        try:
            with replacing(destination / member.name, replace=replace) as temporary:
                _write_member(album, finished, member, temporary, limits)
                size += temporary.stat().st_size
        except UnreadableError as e:
            reason = str(e).removeprefix(f"{local_path(album.url) / member.name}: ")
            unreadable.append(MemberError(printable(member.name), reason, left_out=True))
    return size, unreadable


def _write_member(album: Album, finished: _Finished, member: Member, path: Path, limits: Limits) -> None:
    data = finished.get(member.ordinal)
    if data is not None:
        _check_image(member, finished.results[member.ordinal], data, limits)
        path.write_bytes(data)
    else:
        _copy_file(f"{album.url.rstrip('/')}/{member.name}", path)
    if is_local(album.url):
        times = os.stat(local_path(album.url) / member.name)  # noqa: PTH116
        os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))


def _copy_file(url: str, target: Path) -> None:
    with open_input(url) as source, target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            out.write(chunk)


def _check_written(album: Album, finished: _Finished, path: Path, limits: Limits, dropped: set[str]) -> None:
    """Read the written file back: every member in its place, and every coloured one of its size in pixels and bytes."""
    expected = [member for member in album.members if not member.left_out and member.name not in dropped]
    written = list_members(str(path), own := _for_own_files(limits))
    if album.kind != "image" and [m.name for m in written.members] != [m.name for m in expected]:
        raise VerificationError(f"{path}: members of the written archive are not those of {album.url}")
    sources = {new.ordinal: old for new, old in zip(written.members, expected, strict=True)}
    for member in written.members:
        result = finished.results.get(sources[member.ordinal].ordinal)
        size = result.bytes if result and result.state == "coloured" else sources[member.ordinal].size
        if member.size != size:
            raise VerificationError(f"{path}: {member.name} has {member.size} bytes, expected {size}")
    for member, data in read_members(written, own):
        source = sources[member.ordinal]
        result = finished.results.get(source.ordinal)
        if result is None or result.state != "coloured":
            continue
        if isinstance(data, InputError):
            raise VerificationError(f"{path}: {member.name} cannot be read back: {data}")
        _check_image(source, result, data, limits)


def _for_own_files(limits: Limits) -> Limits:
    """Without what guards against hostile archives: colour makes files larger, and flat colour packs well."""
    return dataclasses.replace(limits, image_bytes=1 << 40, total_bytes=1 << 60, ratio=1 << 30)


def _check_image(member: Member, result: MemberResult, data: bytes, limits: Limits) -> None:
    sizes = tuple(open_image(data, limits).sizes)
    if sizes != result.sizes or len(data) != result.bytes:
        raise VerificationError(f"{printable(member.name)}: was written with {sizes = }, expected {result.sizes}")


def _summary(
    album: Album, results: Mapping[int, MemberResult], unreadable: list[MemberError], size: int
) -> AssembledAlbum:
    errors = [MemberError("", reason) for reason in album.errors]
    dropped = {error.name for error in unreadable}
    for member in album.members:
        result = results.get(member.ordinal)
        reason = member.problem or (result.error if result else "")
        name = printable(member.name)
        if reason and name not in dropped:
            errors.append(MemberError(name, reason, member.left_out))
    states = [result.state for result in results.values()]
    there = sum(not member.left_out for member in album.members) - len(unreadable)
    coloured, kept = states.count("coloured"), states.count("kept")
    warnings = [*album.warnings, *_notes(album, results)]
    if kept:
        warnings.append(f"in colour already and copied as they are: {kept}")
    return AssembledAlbum(coloured, kept, there - coloured - kept, size, (*errors, *unreadable), tuple(warnings))


def _notes(album: Album, results: Mapping[int, MemberResult]) -> list[str]:
    """Each note once, with a member it holds for and the number of the others."""
    members: dict[str, list[str]] = {}
    for member in album.members:
        for note in results[member.ordinal].notes if member.ordinal in results else ():
            members.setdefault(note, []).append(printable(member.name))
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"
        for note, names in members.items()
    ]
