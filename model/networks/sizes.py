"""What the networks' configs share."""

from __future__ import annotations

from collections.abc import Iterable


def outputs(bins: int) -> int:
    """Channels of a head: one a bin, or, without bins, the two of chroma."""
    return bins or 2


def checked_sizes(bins: int, widths: Iterable[int]) -> None:
    """ValueError unless bins are 0 to 4096 and widths 1 to 4096."""
    widths = tuple(widths)
    if not all(isinstance(n, int) and n <= 4096 for n in (bins, *widths)) or bins < 0 or min(widths, default=1) < 1:
        raise ValueError(f"expected bins of 0 to 4096 and widths of 1 to 4096, got {bins = }, {widths = }")
