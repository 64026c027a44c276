"""Black bars at the sides: what counts as one, and that the picture between them is coloured as if it were alone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from colorizers import Flickerer, Tinter
from numpy.typing import NDArray
from test_reel import colorize, planes

from pipeline.bars import BarFinder, bar_width, between
from pipeline.temporal import WARMUP_FRAMES

RNG = np.random.default_rng(0)
H, W = 64, 128  # of the network's input


def picture(left: int, right: int, level: float = 3.0) -> NDArray[np.float32]:
    """Bars so wide, with noise, at the sides of something lighter."""
    lightness = RNG.uniform(20, 90, (H, W)).astype(np.float32)
    for bar in (slice(0, left), slice(W - right, W)):
        lightness[:, bar] = level + RNG.normal(0, 1, lightness[:, bar].shape).clip(-3, 3)
    return lightness


@pytest.mark.parametrize(
    ("left", "right", "parts"),
    [(0, 0, 0), (16, 16, 4), (19, 17, 4), (40, 16, 4), (40, 0, 0), (7, 7, 0), (8, 8, 2), (60, 60, 13)],
)
def test_bars_are_equal_and_told_in_32nds(left: int, right: int, parts: int) -> None:
    assert BarFinder().step(picture(left, right), True) == parts


def test_a_mark_in_a_bar_makes_it_part_of_the_picture() -> None:
    marked = picture(32, 32)
    marked[5, 12] = 40
    assert BarFinder().step(marked, True) == 3
    assert BarFinder().step(picture(32, 32, level=12), True) == 0  # nor is dark grey black


def test_nothing_is_cut_off_that_was_seen_in_the_last_pictures() -> None:
    finder = BarFinder()
    assert finder.step(picture(32, 32), True) == 8
    assert finder.step(picture(16, 16), False) == 4
    assert [finder.step(picture(32, 32), False) for _ in range(WARMUP_FRAMES)] == [4] * WARMUP_FRAMES
    assert finder.step(picture(32, 32), False) == 8


def test_a_dark_picture_has_no_say_and_a_cut_forgets() -> None:
    finder, dark = BarFinder(), np.full((H, W), 2, np.float32)
    assert finder.step(dark, True) == 0
    assert finder.step(picture(16, 16), False) == 4
    assert finder.step(dark, False) == 4
    assert finder.step(picture(32, 32), True) == 8


def test_no_picture_before_a_warm_up_counts() -> None:
    film = [picture(int(bar), int(bar)) for bar in RNG.integers(0, 50, 60)]
    whole = BarFinder()
    expected = [whole.step(each, n == 0) for n, each in enumerate(film)]
    late = BarFinder()
    found = [late.step(each, n == 0) for n, each in enumerate(film[20:])]
    assert found[WARMUP_FRAMES:] == expected[20 + WARMUP_FRAMES :]


@pytest.mark.parametrize("width", [1, 35, 320, 1918])
def test_what_lies_between_is_in_the_middle_and_aligned_to_chroma(width: int) -> None:
    plane = np.arange(width)[None].repeat(2, 0)
    for parts in range(14):
        bar = bar_width(parts, width)
        assert bar % 4 == 0
        assert width * parts / 32 - 4 < bar <= width * parts / 32
        assert between(plane, parts)[0].tolist() == list(range(bar, width - bar))


def film(path: Path, bar: int, frames: int = 12, marked: range = range(0)) -> Path:
    """Waves, 96×96, between bars so wide; 4:2:0, limited range. In the pictures `marked`, there is a mark in a bar."""
    y, x = np.mgrid[0:96, 0:96]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96 + 2 * bar, 96, "yuv420p"
        for n in range(frames):
            image = np.full((144, 96 + 2 * bar), 128, np.uint8)
            image[:96] = 30  # black, but light enough to hold colour
            image[:96, bar : bar + 96] = 130 + 70 * np.sin((x + 2 * n) / 9) * np.cos(y / 7)
            if n in marked:
                image[40:56, 2:14] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        container.mux(stream.encode())
    return path


def test_between_bars_a_film_is_coloured_as_it_is_alone(tmp_path: Path) -> None:
    """A bar is found in whole 32nds of the width: of 20 samples 16, so that 4 of black are left beside the film."""
    alone = planes(colorize(film(tmp_path / "alone.mkv", 4)))
    boxed = planes(colorize(film(tmp_path / "boxed.mkv", 20)))
    for one, other, source in zip(alone, boxed, planes(tmp_path / "boxed.mkv"), strict=True):
        np.testing.assert_array_equal(other[0], source[0])
        for own, framed in zip(one[1:], other[1:], strict=True):
            np.testing.assert_array_equal(framed[:, 8:-8], own)
            assert (framed[:, :8] == 128).all()
            assert (framed[:, -8:] == 128).all()
    assert np.std([f[1] for f in alone]) > 1


def test_what_is_marked_is_coloured(tmp_path: Path) -> None:
    """A Tinter colours by lightness alone, so a mark comes out in the colour of its lightness, in a bar or not."""
    path = film(tmp_path / "marked.mkv", 20, frames=2, marked=range(2))
    for _, cb, _ in planes(colorize(path, Tinter(1))):
        assert np.abs(cb[22:26, 3:5].astype(int) - 128).min() > 3


def test_segments_agree_on_the_bars(tmp_path: Path) -> None:
    """A mark in a bar, in ten pictures, makes the same pictures lose it, however the film is cut."""
    path = film(tmp_path / "marked.mkv", 20, frames=75, marked=range(20, 30))
    films = [planes(colorize(path, Flickerer(), seconds=seconds)) for seconds in (1e9, 1)]
    for frames in films:
        neutral = [bool((cb[:, :8] == 128).all()) for _, cb, _ in frames]
        assert neutral == [not 20 <= n < 30 + WARMUP_FRAMES for n in range(75)]
    difference = [np.abs(a[1].astype(int) - b[1]).mean() for a, b in zip(*films, strict=True)]
    assert max(difference) < 1
