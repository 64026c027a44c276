"""Luma codes of the source as luma codes of the output: nothing, normally; a table where depth or range differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.frames import Plane


@dataclass(frozen=True)
class LumaMap:
    """One table from source code to output code.

    Same range, deeper: an exact left shift. Same range, shallower: rounded. Full to limited range: H.273 eq. 20-25,
    rounded: 0 → 16·2^(d-8), peak → 235·2^(d-8).
    """

    source_depth: int
    depth: int
    source_full_range: bool
    full_range: bool

    @property
    def identity(self) -> bool:
        """Whether codes stay what they are."""
        return self.source_depth == self.depth and self.source_full_range == self.full_range

    def apply(self, plane: Plane) -> Plane:
        """Map a plane (H, W) of source codes; the very same array where nothing changes.

        Codes above the source's peak, which no sound decoder yields, are taken as the peak.
        """
        if self.identity:
            return plane
        table = _table(self)
        peak = len(table) - 1
        holds_more = peak < np.iinfo(plane.dtype).max
        return table[np.minimum(plane, peak) if holds_more else plane]


@lru_cache(maxsize=8)
def _table(luma: LumaMap) -> Plane:
    """Output code of every source code, (2^source_depth,)."""
    codes = np.arange(1 << luma.source_depth, dtype=np.int64)
    up = luma.depth - luma.source_depth
    if luma.source_full_range and not luma.full_range:
        black, span = 16 << (luma.depth - 8), 219 << (luma.depth - 8)
        peak = (1 << luma.source_depth) - 1
        out = black + (2 * codes * span + peak) // (2 * peak)
    elif luma.source_full_range == luma.full_range:
        out = codes << up if up >= 0 else np.minimum((codes + (1 << (-up - 1))) >> -up, (1 << luma.depth) - 1)
    else:
        raise ValueError(f"expected the output's range to be the source's or narrower, got {luma = }")
    table = out.astype(np.uint8) if luma.depth <= 8 else out.astype(np.uint16)
    table.setflags(write=False)
    return table
