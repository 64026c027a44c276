"""Where credible ends and hostile begins: bounds on what a file may make us read, expand or decode."""

from __future__ import annotations

from dataclasses import dataclass


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


DEFAULT_LIMITS = Limits()
