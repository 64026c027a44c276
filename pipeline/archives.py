"""What is in an archive or a folder of images, without unpacking it, and its members' bytes, one at a time.

Members are known by their ordinal. No name from an archive is ever used as a path. An archive is hostile until shown
otherwise: a member that is unsafe to pass on is left out, one that is merely not to be coloured is copied through.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO

from pipeline import tars, zips
from pipeline.compression import MAGIC, Expander, decompressor
from pipeline.errors import InputError
from pipeline.folder_members import list_folder, read_files
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.members import Album, AlbumKind, Member
from pipeline.pictures import sniff
from pipeline.storage import is_folder, is_local, local_path, open_input
from pipeline.tar_members import CODECS, list_tar, read_tar
from pipeline.zip_members import list_zip, read_zip

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_NAMED = (".zip", ".cbz", ".exe")  # which may begin with something else, such as a program that unpacks it
_NAMED = {"tar.gz": (".tar.gz", ".tgz"), "tar.bz2": (".tar.bz2", ".tbz2", ".tbz"), "tar.xz": (".tar.xz", ".txz")}
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x1f\x9d": "compress",
    b"LZIP": "lzip",
    b"MSCF\0\0\0\0": "cabinet",
}


def album_kind(url: str) -> AlbumKind | None:
    """What `url` is, by its content; None when it is none of these (a video, say).

    Raises InputError for archives that are known and not read.
    """
    if is_local(url) and is_folder(local_path(url)):
        return "folder"
    with open_input(url) as f:
        head = f.read(512)
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise InputError(f"{url}: is packed with {name}, which is not read; pack it anew as zip, tar or tar.gz")
        if head.startswith(_ZIP_MAGIC) or (url.lower().endswith(_ZIP_NAMED) and _has_directory(f, url)):
            return "zip"
        if tars.is_tar(head):
            return "tar"
        for kind, codec in CODECS.items():
            if head.startswith(MAGIC[codec]):
                f.seek(0)
                try:
                    block = Expander(f.read, lambda codec=codec: decompressor(codec), 1 << 20).read(512)  # type: ignore[misc]
                except InputError:  # damaged within its first block: what it was to be is in its name alone
                    return kind if url.lower().endswith(_NAMED[kind]) else None
                return kind if tars.is_tar(block) else None
        return "image" if sniff(head) else None


def _has_directory(f: IO[bytes], url: str) -> bool:
    try:
        return zips.find_directory(f).whole
    except InputError as e:
        raise InputError(f"{url}: {e}") from e


def list_members(url: str, limits: Limits = DEFAULT_LIMITS, files: Sequence[str] | None = None) -> Album:
    """List an archive, a folder or a single image from its headers; nothing is unpacked.

    files: of a folder, the relative paths that make the album, in order; None takes all there is below it.
    Raises InputError where there is nothing to list, or the whole exceeds `limits`.
    """
    kind = "folder" if files and not is_local(url) else album_kind(url)
    if kind is None:
        raise InputError(f"{url}: is neither an image nor a zip or tar archive of images; see the list of formats")
    if kind == "folder":
        return list_folder(url, limits, files)
    with open_input(url) as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(0)
        if kind == "image":
            name = url.rstrip("/").rpartition("/")[2]
            return Album(url, kind, (Member(0, name, size, True, limits.too_large(size)),), size)
        try:
            return list_zip(f, url, size, limits) if kind == "zip" else list_tar(f, url, kind, size, limits)
        except InputError as e:
            raise InputError(f"{url}: {e}") from e


def read_members(album: Album, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[Member, bytes | InputError]]:
    """The bytes of every picture to colour, in order, one at a time; InputError in their place where they are damaged.

    Other members come only with an InputError, when their checksum is wrong.
    """
    if album.kind in ("folder", "image"):
        yield from read_files(album, limits)
        return
    with open_input(album.url) as f:
        yield from read_zip(f, album) if album.kind == "zip" else read_tar(f, album, limits)
