"""What is in an archive or a folder of images, without unpacking it, and its members' bytes, one at a time.

Members are known by their ordinal. No name from an archive is ever used as a path. An archive is hostile until shown
otherwise: a member that is unsafe to pass on is left out, one that is merely not to be coloured is copied through.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

from pipeline import tars, zips
from pipeline.compression import MAGIC, Codec, Expander, decompressor
from pipeline.errors import InputError, StorageError
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.member_names import IMAGE_SUFFIXES, Names, is_image, other_pictures, printable, unsafe
from pipeline.members import Album, AlbumKind, Member
from pipeline.pictures import sniff
from pipeline.storage import is_local, local_path, open_input
from pipeline.stores import StorePath

__all__ = ["IMAGE_SUFFIXES", "Album", "AlbumKind", "Member", "album_kind", "list_members", "open_tar", "read_members"]

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_NAMED = (".zip", ".cbz", ".exe")  # which may begin with something else, such as a program that unpacks it
_CHUNK = 1 << 20
_CODECS: dict[AlbumKind, Codec] = {"tar.gz": "gz", "tar.bz2": "bz2", "tar.xz": "xz"}
_NAMED = {"tar.gz": (".tar.gz", ".tgz"), "tar.bz2": (".tar.bz2", ".tbz2", ".tbz"), "tar.xz": (".tar.xz", ".txz")}
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"MSCF\0\0\0\0": "cabinet",
}
_SPECIAL = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


def album_kind(url: str) -> AlbumKind | None:
    """What `url` is, by its content; None when it is none of these (a video, say).

    Raises InputError for archives that are known and not read.
    """
    if is_local(url) and local_path(url).is_dir():
        return "folder"
    with open_input(url) as f:
        head = f.read(512)
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise InputError(f"{url}: is packed with {name}, which is not read; pack it anew as zip, tar or tar.gz")
        if head.startswith(_ZIP_MAGIC) or (url.lower().endswith(_ZIP_NAMED) and zips.find_directory(f).whole):
            return "zip"
        if tars.is_tar(head):
            return "tar"
        for kind, codec in _CODECS.items():
            if head.startswith(MAGIC[codec]):
                f.seek(0)
                try:
                    block = Expander(f.read, lambda codec=codec: decompressor(codec), 1 << 20).read(512)  # type: ignore[misc]
                except InputError:  # damaged within its first block: what it was to be is in its name alone
                    return kind if url.lower().endswith(_NAMED[kind]) else None
                return kind if tars.is_tar(block) else None
        return "image" if sniff(head) else None


def list_members(url: str, limits: Limits = DEFAULT_LIMITS, files: Sequence[str] | None = None) -> Album:
    """List an archive, a folder or a single image from its headers; nothing is unpacked.

    files: of a folder, the relative paths that make the album, in order; None takes all there is below it.
    Raises InputError where there is nothing to list, or the whole exceeds `limits`.
    """
    kind = "folder" if files and not is_local(url) else album_kind(url)
    if kind is None:
        raise InputError(f"{url}: is neither an image nor a zip or tar archive of images; see the list of formats")
    if kind == "folder":
        return _list_folder(url, limits, files)
    with open_input(url) as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(0)
        if kind == "image":
            name = url.rstrip("/").rpartition("/")[2]
            return Album(url, kind, (Member(0, name, size, True, _too_large(size, limits)),), size)
        try:
            return _list_zip(f, url, size, limits) if kind == "zip" else _list_tar(f, url, kind, size, limits)
        except InputError as e:
            raise InputError(f"{url}: {e}") from e


def read_members(album: Album, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[Member, bytes | InputError]]:
    """The bytes of every picture to colour, in order, one at a time; InputError in their place where they are damaged.

    Other members come only with an InputError, when their checksum is wrong.
    """
    if album.kind in ("folder", "image"):
        yield from _read_files(album, limits)
        return
    with open_input(album.url) as f:
        yield from _read_zip(f, album) if album.kind == "zip" else _read_tar(f, album, limits)


def open_tar(f: IO[bytes], kind: AlbumKind, limits: Limits) -> tars.Reader:
    """A reader of the tar inside `f`, expanding it where it is compressed."""
    size = f.seek(0, os.SEEK_END)
    f.seek(0)
    if kind == "tar":
        return _Plain(f, size)
    codec = _CODECS[kind]
    return Expander(f.read, lambda: decompressor(codec), limits.expansion(size), MAGIC[codec])


class _LimitError(InputError):
    """The archive as a whole is beyond what is credible."""


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


def _list_zip(f: IO[bytes], url: str, stored: int, limits: Limits) -> Album:
    directory = zips.find_directory(f)
    members: list[Member] = []
    spans: list[tuple[int, int, int]] = []
    errors = [] if directory.whole else ["the zip archive is truncated: its directory is missing"]
    names = Names()
    total = 0
    try:
        for entry in zips.read_directory(f, directory):
            ordinal = len(members)
            end = entry.offset + 30 + len(entry.name) + entry.stored  # 30: a local header's fixed part
            problem, grave = _zip_problem(entry, end > directory.start, limits)
            if not entry.name.endswith(b"/") and (repeated := names.repeated(entry.name)):
                problem, grave = repeated, True
            image = is_image(entry.text)
            if problem is None and image:
                problem = _zip_unreadable(entry) or _too_large(entry.size, limits)
            members.append(Member(ordinal, printable(entry.text), entry.size, image, problem, grave))
            spans.append((entry.offset, end, ordinal))
            total += 0 if grave else entry.size
            _check_count(len(members), limits)
    except _LimitError:
        raise
    except InputError as e:
        errors.append(str(e))
    if total > limits.expansion(stored):
        raise InputError(f"would expand from {stored} to {total} bytes, which {_bomb(limits)}")
    for ordinal in _overlapping(spans):
        members[ordinal] = dataclasses.replace(members[ordinal], problem="its data overlaps another's", left_out=True)
    return Album(url, "zip", tuple(members), stored, tuple(errors), names.warnings() + _others(members))


def _zip_problem(entry: zips.ZipEntry, beyond: bool, limits: Limits) -> tuple[str | None, bool]:
    """Why a member must be left out, if so."""
    special = _SPECIAL.get(stat.S_IFMT(entry.mode))
    if problem := unsafe(entry.name) or (unsafe(entry.other_name) if entry.other_name else None):
        return problem, True
    if special:
        return f"is a {special}", True
    if beyond:
        return "its data is not inside the archive", True
    if entry.size > limits.expansion(entry.stored):
        return f"expands from {entry.stored} to {entry.size} bytes, which {_bomb(limits)}", True
    return None, False


def _zip_unreadable(entry: zips.ZipEntry) -> str | None:
    if entry.flags & zips.ENCRYPTED:
        return "is encrypted"
    return None if entry.method in zips.METHODS else f"has the unsupported compression method {entry.method}"


def _overlapping(spans: list[tuple[int, int, int]]) -> set[int]:
    """Ordinals of the members whose (start, end) intersect another's (Fifield, "A better zip bomb", WOOT 2019)."""
    found: set[int] = set()
    reach, owner = -1, -1
    for start, end, ordinal in sorted(spans):
        if start < reach:
            found |= {ordinal, owner}
        if end > reach:
            reach, owner = end, ordinal
    return found


def _list_tar(f: IO[bytes], url: str, kind: AlbumKind, stored: int, limits: Limits) -> Album:
    reader = open_tar(f, kind, limits)
    members: list[Member] = []
    errors: list[str] = []
    names = Names()
    end = 0
    try:
        for entry in tars.read_entries(reader):
            offset, end = reader.position - len(entry.header), reader.position + entry.size
            folder = entry.kind == b"5"
            problem, grave = _tar_problem(entry), False
            if problem:
                grave = True
            elif repeated := None if folder else names.repeated(entry.name):
                problem, grave = repeated, True
            name = entry.name.decode("utf-8", "backslashreplace")
            image = not folder and is_image(name)
            if problem is None and image:
                problem = "is stored sparse" if entry.sparse else _too_large(entry.size, limits)
            members.append(Member(len(members), printable(name), entry.size, image, problem, grave, offset))
            _check_count(len(members), limits)
        while reader.read(_CHUNK):  # to the checksum at the end of compressed data, the only one that a tar has
            pass
    except _LimitError:
        raise
    except InputError as e:
        errors.append(str(e))
        if members and reader.position < end:
            members[-1] = dataclasses.replace(members[-1], problem="is truncated", left_out=True)
    return Album(url, kind, tuple(members), stored, tuple(errors), names.warnings() + _others(members))


def _tar_problem(entry: tars.TarEntry) -> str | None:
    unsafe_name = next((problem for name in (entry.name, *entry.other_names) if (problem := unsafe(name))), None)
    return unsafe_name or (f"is a {tars.KINDS[entry.kind]}" if entry.kind in b"12346" else None)


def _list_folder(url: str, limits: Limits, files: Sequence[str] | None) -> Album:
    members: list[Member] = []
    for name, size, special in sorted(_walk_folder(url)) if files is None else _stat_files(url, files):
        image = is_image(name)
        problem = special or (_too_large(size, limits) if image else None)
        members.append(Member(len(members), name, size, image, problem or None, bool(special)))
        _check_count(len(members), limits)
    size = sum(member.size for member in members)
    return Album(url, "folder", tuple(members), size, warnings=_others(members))


def _others(members: list[Member]) -> tuple[str, ...]:
    return other_pictures(member.name for member in members if not member.left_out)


def _walk_folder(url: str) -> Iterator[tuple[str, int, str]]:
    """(relative path, bytes, what is special about it); links to folders are not followed, nor are job folders."""
    root = os.fspath(local_path(url))
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name != ".reelcolor"]
        yield from _stat_files(url, [os.path.relpath(os.path.join(folder, name), root) for name in names])  # noqa: PTH118


def _listed_files(url: str, names: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    listed = StorePath(url).files()
    for name in names:
        there = name in listed
        yield name, int(listed[name]["size"]) if there else 0, "" if there else "cannot be read: no such file"


def _stat_files(url: str, names: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    if not is_local(url):
        yield from _listed_files(url, names)
        return
    root = os.fspath(local_path(url))
    for name in names:
        if problem := unsafe(os.fsencode(name)):
            yield name, 0, problem
            continue
        try:
            status = os.stat(f"{root}/{name}")  # noqa: PTH116
        except OSError as e:
            yield name, 0, f"cannot be read: {e.strerror}"
            continue
        regular = stat.S_ISREG(status.st_mode)
        yield name, status.st_size, "" if regular else f"is a {_SPECIAL.get(stat.S_IFMT(status.st_mode), 'socket')}"


def _read_zip(f: IO[bytes], album: Album) -> Iterator[tuple[Member, bytes | InputError]]:
    if not album.members:
        return
    first, last = album.members[0].ordinal, album.members[-1].ordinal
    entries = islice(zips.read_directory(f, zips.find_directory(f)), first, last + 1)
    for member, entry in zip(album.members, entries, strict=True):
        if printable(entry.text) != member.name:
            raise InputError(f"{album.url}: changed since it was listed; run the command again")
        readable = _zip_unreadable(entry) is None
        if member.left_out or member.problem or not readable:
            continue
        try:
            chunks = zips.read_data(f, entry)
            if member.is_image:
                yield member, b"".join(chunks)
            else:
                for _ in chunks:
                    pass
        except InputError as e:
            yield member, e


def _read_tar(f: IO[bytes], album: Album, limits: Limits) -> Iterator[tuple[Member, bytes | InputError]]:
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


def _read_files(album: Album, limits: Limits) -> Iterator[tuple[Member, bytes | InputError]]:
    for member in album.members:
        if not member.colourable:
            continue
        try:
            with open_input(album.url if album.kind == "image" else f"{album.url.rstrip('/')}/{member.name}") as f:
                size = f.seek(0, os.SEEK_END)
                f.seek(0)
                problem = _too_large(size, limits)
                data: bytes | InputError = InputError(problem) if problem else f.read(size)
        except (InputError, StorageError) as e:
            data = InputError(str(e))
        yield member, data


def _too_large(size: int, limits: Limits) -> str | None:
    return (
        f"is larger than {limits.image_bytes} bytes; raise the limit image-bytes to colour it"
        if size > limits.image_bytes
        else None
    )


def _bomb(limits: Limits) -> str:
    return f"looks like a bomb; raise the limit ratio={limits.ratio} if it is none"


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.members:
        raise _LimitError(f"has more than {limits.members} members; raise the limit members if that is meant")
