"""The members of a tar, plain or compressed, as an album: listed from its headers, and read in one pass."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import IO

from pipeline import tars
from pipeline.compression import MAGIC, Codec, Expander, decompressor
from pipeline.errors import InputError
from pipeline.limits import LimitError, Limits
from pipeline.member_names import Names, is_image, printable, unsafe
from pipeline.members import Album, AlbumKind, Member, other_pictures

_CHUNK = 1 << 20
CODECS: dict[AlbumKind, Codec] = {"tar.gz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}


def open_tar(f: IO[bytes], kind: AlbumKind, limits: Limits) -> tars.Reader:
    """A reader of the tar inside `f`, expanding it where it is compressed."""
    size = f.seek(0, os.SEEK_END)
    f.seek(0)
    if kind == "tar":
        return _Plain(f, size)
    codec = CODECS[kind]
    return Expander(f.read, lambda: decompressor(codec), limits.expansion(size), MAGIC[codec])


class _Plain:
    """A file as a forward reader."""

    def __init__(self, f: IO[bytes], size: int) -> None:
        self._f, self._size, self.position = f, size, 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        data = self._f.read(size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        """Go forward; InputError where the file ends before."""
        if self.position + size > self._size:
            raise InputError("the archive ends inside a member: it is truncated")
        if size:
            self.position = self._f.seek(self.position + size)


def list_tar(f: IO[bytes], url: str, kind: AlbumKind, stored: int, limits: Limits) -> Album:
    """List a tar from its headers; raises LimitError, and marks what is not to be passed on."""
    reader = open_tar(f, kind, limits)
    members: list[Member] = []
    errors: list[str] = []
    names = Names()
    end, followed = 0, False
    try:
        for entry in tars.read_entries(reader):
            offset, end = reader.position - len(entry.header), reader.position + entry.size
            folder = entry.kind == b"5"
            problem, grave = _problem(entry), False
            if problem:
                grave = True
            elif repeated := None if folder else names.repeated(entry.name):
                problem, grave = repeated, True
            name = entry.name.decode("utf-8", "backslashreplace")
            image = not folder and is_image(name)
            if problem is None and image:
                problem = "is stored sparse" if entry.sparse else limits.too_large(entry.size)
            members.append(Member(len(members), printable(name), entry.size, image, problem, grave, offset))
            limits.check_count(len(members))
        while chunk := reader.read(
            _CHUNK
        ):  # to the checksum at the end of compressed data, the only one that a tar has
            followed |= chunk.count(0) < len(chunk)
        followed |= isinstance(reader, Expander) and reader.followed
    except LimitError:
        raise
    except InputError as e:
        errors.append(str(e))
        if members and reader.position < end:
            members[-1] = dataclasses.replace(members[-1], problem="is truncated", left_out=True)
    after = ("what comes after the archive's end, such as another one, is left out",) if followed else ()
    return Album(url, kind, tuple(members), stored, tuple(errors), after + names.warnings() + other_pictures(members))


def _problem(entry: tars.TarEntry) -> str | None:
    unsafe_name = next((problem for name in (entry.name, *entry.other_names) if (problem := unsafe(name))), None)
    return unsafe_name or (f"is a {tars.KINDS[entry.kind]}" if entry.kind in b"12346" else None)


def read_tar(f: IO[bytes], album: Album, limits: Limits) -> Iterator[tuple[Member, bytes | InputError]]:
    """As `read_members`; passes over what lies between."""
    if not any(member.colourable for member in album.members):
        return
    reader = open_tar(f, album.kind, limits)
    reader.skip(album.members[0].offset)
    for member, entry in zip(album.members, tars.read_entries(reader), strict=False):
        if printable(entry.name.decode("utf-8", "backslashreplace")) != member.name:
            raise InputError(f"{album.url}: changed since it was listed; run the command again")
        if member.colourable:
            data = reader.read(entry.size)
            yield member, data if len(data) == entry.size else InputError("is truncated")
