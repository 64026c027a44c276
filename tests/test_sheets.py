"""Sheets: every tile where it belongs, unchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.sheets import draw_sheet, sheet_of
from pipeline.errors import StorageError

RED, GREEN, BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def tile(h: int, w: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((h, w, 3), colour, np.uint8)


def box(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a colour, which must fill it."""
    y, x = np.nonzero((sheet == colour).all(-1))
    found = y.min(), x.min(), y.max() + 1, x.max() + 1
    assert (sheet[found[0] : found[2], found[1] : found[3]] == colour).all()
    return found


def test_tiles_of_any_size_lie_in_rows_and_columns() -> None:
    sheet = sheet_of(
        ["a", "b"], [[tile(40, 60, RED), tile(40, 60, GREEN)], [tile(64, 32, BLUE), tile(64, 32, (9, 9, 9))]]
    )
    red, green, blue, last = (box(sheet, colour) for colour in (RED, GREEN, BLUE, (9, 9, 9)))
    assert (red[2] - red[0], red[3] - red[1]) == (40, 60)
    assert red[0] == green[0]
    assert red[3] < green[1]
    assert red[2] < blue[0] == last[0]
    assert red[1] + red[3] == blue[1] + blue[3]  # centred in the column
    assert blue[2] <= sheet.shape[0]


def test_captions_stand_above_their_columns_and_stay_within() -> None:
    rows = [[tile(20, 80, RED), tile(20, 80, GREEN), tile(20, 80, BLUE)]]
    sheet = sheet_of(["", "a caption much longer than its column", ""], rows)
    written = np.nonzero((sheet[: box(sheet, RED)[0]] != 255).any((0, 2)))[0]
    _, left, _, right = box(sheet, GREEN)
    assert left <= written.min()
    assert written.max() < right


def test_a_sheet_is_written_whole(tmp_path: Path) -> None:
    rows = [[tile(20, 30, RED)]]
    draw_sheet(tmp_path / "new" / "sheet.png", ["one"], rows)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), sheet_of(["one"], rows))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        draw_sheet(tmp_path / "file" / "sheet.png", ["one"], rows)


def test_rows_must_have_a_tile_for_each_column() -> None:
    with pytest.raises(ValueError, match="2 tiles"):
        sheet_of(["a", "b"], [[tile(4, 4, RED)]])
    with pytest.raises(ValueError, match="1 tiles"):
        sheet_of(["a"], [])
