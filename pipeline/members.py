"""An album and its members, as listing finds them and every later stage uses them."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.frames import Segment

SPECIAL = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
_OTHER_PICTURES = frozenset({
    ".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".jxl", ".exr", ".hdr", ".cin", ".tga", ".psd", ".svg",
    ".pcx", ".ppm", ".pgm", ".pbm", ".dng", ".cr2", ".nef",
})  # fmt: skip

AlbumKind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "folder", "image"]


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an album. `size` is in bytes, expanded; `name` is for display, but a folder's is the relative path.

    `problem` says why it cannot be coloured; with `left_out` its bytes do not come back either.
    """

    ordinal: int
    name: str
    size: int
    is_image: bool
    problem: str | None = None
    left_out: bool = False
    offset: int = 0  # of its header in the expanded tar

    @property
    def colourable(self) -> bool:
        """Whether there is a picture to colour."""
        return self.is_image and self.problem is None


@dataclass(frozen=True)
class Album:
    """An archive, a folder of images, or a single image; `bytes` as stored. `errors` are of the archive as a whole."""

    url: str
    kind: AlbumKind
    members: tuple[Member, ...]
    bytes: int
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """How many members are pictures to colour."""
        return sum(member.colourable for member in self.members)

    def part(self, segment: Segment) -> Album:
        """The same album with this segment's members only: what its worker needs to be sent."""
        base = self.members[0].ordinal if self.members else 0
        start = 0 if segment.start is None else max(0, segment.start - base)
        end = None if segment.end is None else max(0, segment.end - base)
        return dataclasses.replace(self, members=self.members[start:end], errors=(), warnings=())


def other_pictures(members: Iterable[Member]) -> tuple[str, ...]:
    """What to say of pictures of kinds that are not coloured."""
    suffixes = [os.path.splitext(member.name)[1].lower() for member in members if not member.left_out]  # noqa: PTH122
    found = [suffix for suffix in suffixes if suffix in _OTHER_PICTURES]
    kinds = ", ".join(sorted(set(found)))
    return (f"pictures of kinds that are not coloured, copied as they are: {len(found)} ({kinds})",) if found else ()
