"""JPEG's transforms of blocks, forward as T.81 has it and inverse as libjpeg computes it, the same on every machine.

Blocks lie side by side, (..., 64, N), so that a transform is a product of matrices along each of two axes. All products
are of multiples of powers of two, few enough bits for float64 to add them up without rounding: in whatever order a
machine's BLAS does that, in however many threads, the outcome is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Planes = NDArray[np.int16]  # (..., 64, N): coefficients or codes, by row and column in the block

STEPS = 16  # of a code: what samples to transform are multiples of
_LARGEST = 1023  # coefficient of a baseline file (T.81 F.1.2)

_HALVES = (2 * np.arange(8) + 1) * np.pi / 16
# (8, 8): T.81 A.3.3 in one dimension, to 16 bits.
_DCT = np.rint([np.cos(k * _HALVES) / (2 if k else 8**0.5) * (1 << 16) for k in range(8)]) / (1 << 16)
# libjpeg's inverse transform of a row (jidctint.c, exact and the default) is linear but for rounding: what its 13-bit
# constants add up to for each coefficient, in the left half of the row; the right half mirrors it, odd ones negated.
_HALF_ROWS = [
    [8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703], [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633], [4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363],
]  # fmt: skip
_ROWS = np.array([[*half, *(v * (-1) ** k for v in half[::-1])] for k, half in enumerate(_HALF_ROWS)], np.float64).T
_TO_COLUMNS, _TO_ROWS = _ROWS / (1 << 11), _ROWS / (1 << 18)


def quantised(samples: Floats, steps: NDArray[np.int16] | None = None) -> Planes:
    """Coefficients of samples about 0, divided by their steps (64, 1), within what a baseline file can hold.

    samples: multiples of 1 / `STEPS` below 2048.
    """
    coefficients = _along_rows(_DCT, _along_columns(_DCT, samples))
    if steps is not None:
        coefficients /= steps
    np.rint(coefficients, out=coefficients)
    np.maximum(coefficients, -_LARGEST, out=coefficients)
    np.minimum(coefficients, _LARGEST, out=coefficients)
    return coefficients.astype(np.int16)


def stepped(samples: Floats) -> Floats:
    """The nearest multiples of 1 / `STEPS`."""
    samples = samples * samples.dtype.type(STEPS)
    np.rint(samples, out=samples)
    samples /= STEPS
    return samples


def restored(coefficients: Planes) -> Floats:
    """Samples about 0 of coefficients, not rounded: the inverse of the transform in `quantised`."""
    return _along_columns(_DCT.T, _along_rows(_DCT.T, coefficients))


def decoded(coefficients: Planes) -> Planes:
    """The samples, 0..255, that libjpeg makes of dequantised coefficients."""
    columns = _along_columns(_TO_COLUMNS, coefficients)
    columns += 0.5
    np.floor(columns, out=columns)
    rows = _along_rows(_TO_ROWS, columns)
    rows += 128.5
    np.maximum(rows, 0, out=rows)
    np.minimum(rows, 255, out=rows)
    return rows.astype(np.int16)  # toward 0, which is down


def _along_columns(matrix: Floats, blocks: NDArray[Any]) -> Floats:
    """The matrix (8, 8) by each column of blocks (..., 64, N)."""
    product: Floats = matrix @ blocks.reshape(*blocks.shape[:-2], 8, -1)
    return product.reshape(blocks.shape)


def _along_rows(matrix: Floats, blocks: NDArray[Any]) -> Floats:
    """The matrix (8, 8) by each row of blocks (..., 64, N)."""
    product: Floats = matrix @ blocks.reshape(*blocks.shape[:-2], 8, 8, -1)
    return product.reshape(blocks.shape)
