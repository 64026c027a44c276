"""The Colorizer protocol: all that the pipeline knows of a network."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NETWORK_AREA = 192 * 192  # pixels; measured on held-out photographs: better than 256² and half the work (model card)
NETWORK_MULTIPLE = 32  # both sides, so that every network's strides divide them


class Colorizer(Protocol):
    """Lightness in, colour out; thread-safe, and each picture's result is independent of its batch."""

    @property
    def key(self) -> str:
        """Names weights, engine, precision and temperature; written to the ledger."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of how it came to be this engine, in lines; written to the ledger."""
        ...

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colour a batch.

        lightness: (N, 1, h, w) CIE L* in 0..100, h and w multiples of 32.
        Returns (N, 2, h/4, w/4), or finer up to (N, 2, h, w), of CIE a*, b* (D65), about -110..110.
        """
        ...


_LONGEST = 4.0  # of a picture's sides to the other


def network_size(width: int, height: int, sar: Fraction = Fraction(1), area: int = NETWORK_AREA) -> tuple[int, int]:
    """(h, w) of the network's input for a picture: its display aspect, about `area` pixels, multiples of 32.

    The aspect is held within 4:1, beyond which one side would shrink to a few cells.
    """
    aspect = min(_LONGEST, max(1 / _LONGEST, float(width * sar) / height))
    h = max(1, round(math.sqrt(area / aspect) / NETWORK_MULTIPLE)) * NETWORK_MULTIPLE
    w = max(1, round(math.sqrt(area * aspect) / NETWORK_MULTIPLE)) * NETWORK_MULTIPLE
    return h, w


@cache
def network_sizes() -> tuple[tuple[int, int], ...]:
    """Every (h, w) that `network_size` has for pictures, those near the square first.

    The size changes at aspects of ((2k + 1) / 12)² and their inverses, which nowhere lie closer than 0.01.
    """
    steps = range(1000, int(1000 * _LONGEST) + 1, 2)
    found = {network_size(*sides) for long in steps for sides in ((long, 1000), (1000, long))}
    return tuple(sorted(found, key=lambda size: (max(size) / min(size), size)))
