"""Where credible ends and hostile begins: bounds on what a file may make us read, expand or decode."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import InputError


class LimitError(InputError):
    """An archive as a whole is beyond what is credible."""


@dataclass(frozen=True)
class Limits:
    """Bounds, all of them far beyond honest files.

    image_pixels: decoded pixels of one picture; all pages of a file may have 100 times that. image_pages: pictures in
    one file. image_bytes: one image's file. total_bytes: an archive, expanded. ratio: expanded to stored bytes, for one
    member and for the archive, from `ratio_floor` expanded bytes on. members: in one archive or folder.
    """

    image_pixels: int = 500_000_000
    image_pages: int = 10_000
    image_bytes: int = 2 << 30
    total_bytes: int = 4 << 40
    ratio: int = 200
    ratio_floor: int = 256 << 20
    members: int = 2_000_000

    def expansion(self, stored: int) -> int:
        """Bytes that `stored` bytes may become."""
        return min(self.total_bytes, max(self.ratio_floor, self.ratio * stored))

    def bomb(self) -> str:
        """What to say of what expands further."""
        return f"looks like a bomb; raise the limit ratio={self.ratio} if it is none"

    def too_large(self, size: int) -> str | None:
        """What to say of an image's file of `size` bytes, if that is too many."""
        large = f"is larger than {self.image_bytes} bytes; raise the limit image-bytes to colour it"
        return large if size > self.image_bytes else None

    def check_count(self, members: int) -> None:
        """Raise LimitError for more members than are credible."""
        if members > self.members:
            raise LimitError(f"has more than {self.members} members; raise the limit members if that is meant")


DEFAULT_LIMITS = Limits()
