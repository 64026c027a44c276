"""The files of a folder, or one image by itself, as an album: listed without opening them, and read one at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from pipeline.errors import InputError, StorageError
from pipeline.limits import Limits
from pipeline.member_names import is_image, unsafe
from pipeline.members import SPECIAL, Album, Member, other_pictures
from pipeline.storage import is_local, local_path, open_input
from pipeline.stores import StorePath


def list_folder(url: str, limits: Limits, files: Sequence[str] | None) -> Album:
    """List the files of a folder: all below it, or `files` (as for `list_members`)."""
    members: list[Member] = []
    for name, size, special in sorted(_walk_folder(url)) if files is None else _stat_files(url, files):
        image = is_image(name)
        problem = special or (limits.too_large(size) if image else None)
        members.append(Member(len(members), name, size, image, problem or None, bool(special)))
        limits.check_count(len(members))
    size = sum(member.size for member in members)
    return Album(url, "folder", tuple(members), size, warnings=other_pictures(members))


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
        yield name, status.st_size, "" if regular else f"is a {SPECIAL.get(stat.S_IFMT(status.st_mode), 'socket')}"


def read_files(album: Album, limits: Limits) -> Iterator[tuple[Member, bytes | InputError]]:
    """As `read_members`, of files as they lie there."""
    for member in album.members:
        if not member.colourable:
            continue
        url = album.url if album.kind == "image" else f"{album.url.rstrip('/')}/{member.name}"
        try:
            with open_input(url) as f:
                size = f.seek(0, os.SEEK_END)
                f.seek(0)
                problem = limits.too_large(size)
                data: bytes | InputError = InputError(problem) if problem else f.read(size)
        except (InputError, StorageError) as e:
            data = InputError(str(e).removeprefix(f"{url}: "))
        yield member, data
