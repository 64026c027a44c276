"""The members of a zip as an album: listed from its directory, and read one at a time."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Iterator
from itertools import islice
from typing import IO

from pipeline import zips
from pipeline.errors import InputError
from pipeline.limits import LimitError, Limits
from pipeline.member_names import Names, is_image, printable, unsafe
from pipeline.members import SPECIAL, Album, Member, other_pictures


def list_zip(f: IO[bytes], url: str, stored: int, limits: Limits) -> Album:
    """List a zip from its directory, bad members marked; raises InputError where it would expand beyond the limits."""
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
            problem, grave = _problem(entry, end > directory.start, limits)
            if not entry.name.endswith(b"/") and (repeated := names.repeated(entry.name)):
                problem, grave = repeated, True
            image = is_image(entry.text)
            if problem is None and image:
                problem = _unreadable(entry) or limits.too_large(entry.size)
            members.append(Member(ordinal, printable(entry.text), entry.size, image, problem, grave))
            spans.append((entry.offset, end, ordinal))
            total += 0 if grave else entry.size
            limits.check_count(len(members))
    except LimitError:
        raise
    except InputError as e:
        errors.append(str(e))
    if total > limits.expansion(stored):
        raise InputError(f"would expand from {stored} to {total} bytes, which {limits.bomb()}")
    for ordinal in _overlapping(spans):
        members[ordinal] = dataclasses.replace(members[ordinal], problem="its data overlaps another's", left_out=True)
    return Album(url, "zip", tuple(members), stored, tuple(errors), names.warnings() + other_pictures(members))


def _problem(entry: zips.ZipEntry, beyond: bool, limits: Limits) -> tuple[str | None, bool]:
    """Why a member must be left out, if so."""
    special = SPECIAL.get(stat.S_IFMT(entry.mode))
    if problem := unsafe(entry.name) or (unsafe(entry.other_name) if entry.other_name else None):
        return problem, True
    if special:
        return f"is a {special}", True
    if beyond:
        return "its data is not inside the archive", True
    if entry.size > limits.expansion(entry.stored):
        return f"expands from {entry.stored} to {entry.size} bytes, which {limits.bomb()}", True
    return None, False


def _unreadable(entry: zips.ZipEntry) -> str | None:
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


def read_zip(f: IO[bytes], album: Album) -> Iterator[tuple[Member, bytes | InputError]]:
    """As `read_members`; raises InputError where the archive is not the one that was listed."""
    if not album.members:
        return
    first, last = album.members[0].ordinal, album.members[-1].ordinal
    entries = islice(zips.read_directory(f, zips.find_directory(f)), first, last + 1)
    for member in album.members:
        entry = next(entries, None)
        if entry is None or printable(entry.text) != member.name:
            raise InputError(f"{album.url}: changed since it was listed; run the command again")
        readable = _unreadable(entry) is None
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
