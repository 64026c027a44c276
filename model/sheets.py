"""Sheets of pictures to look at: one row a picture, one captioned column a way to colour it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.storage import write_bytes

_GAP = 4  # pixels between tiles
_CAPTION = 20  # pixels of the line above a column
_FONT = 13  # pixels
_MORE = "..."


def draw_sheet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]]) -> None:
    """Write `sheet_of` as a PNG, atomically; raises StorageError where that cannot be."""
    data = io.BytesIO()
    Image.fromarray(sheet_of(columns, rows)).save(data, "PNG")
    write_bytes(path, data.getvalue())


def sheet_of(columns: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Tiles (h, w, 3) uint8 sRGB on white, of any sizes, centred in their row and column; captions above.

    Raises ValueError where a row has not one tile for each column, or there is no row.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"expected rows of {len(columns)} tiles, got {[len(row) for row in rows]}")
    widths = [max(row[i].shape[1] for row in rows) for i in range(len(columns))]
    heights = [max(tile.shape[0] for tile in row) for row in rows]
    lefts = np.cumsum([_GAP, *(w + _GAP for w in widths)])
    tops = np.cumsum([_CAPTION, *(h + _GAP for h in heights)])
    sheet = np.full((tops[-1], lefts[-1], 3), 255, np.uint8)
    for row, top, height in zip(rows, tops, heights, strict=False):
        for tile, left, width in zip(row, lefts, widths, strict=False):
            y, x = top + (height - tile.shape[0]) // 2, left + (width - tile.shape[1]) // 2
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return _captioned(sheet, columns, lefts, widths)


def _captioned(
    sheet: NDArray[np.uint8], columns: Sequence[str], lefts: NDArray[np.int64], widths: Sequence[int]
) -> NDArray[np.uint8]:
    image = Image.fromarray(sheet)
    drawing, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT)
    for text, left, width in zip(columns, lefts, widths, strict=False):
        drawing.text((int(left), 2), _fitted(text, width, font), fill=0, font=font)
    return np.asarray(image)


def _fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as fits into so many pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _MORE) > width:
        text = text[:-1]
    return text + _MORE
