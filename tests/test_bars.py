"""Black bars round a picture: what counts as one, and that the picture between them is coloured as if it were alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
from colorizers import Flickerer, Tinter
from numpy.typing import NDArray
from test_reel import colorize, planes

from pipeline.bars import REMEMBERED, WHOLE, BarFinder, Window, bar_size
from pipeline.chroma import ChromaLayout
from pipeline.frames import Subsampling
from pipeline.temporal import warmup_frames

RNG = np.random.default_rng(0)
H, W = 64, 128  # of the network's input


def picture(left: int, right: int, above: int = 0, below: int = 0, level: float = 3.0) -> NDArray[np.float32]:
    """Bars so wide, with noise, round something lighter."""
    lightness = level + RNG.normal(0, 1, (H, W)).clip(-3, 3).astype(np.float32)
    inside = lightness[above : H - below, left : W - right]
    inside[:] = RNG.uniform(20, 90, inside.shape)
    return lightness


@pytest.mark.parametrize(
    ("left", "right", "parts"),
    [(0, 0, 0), (16, 16, 4), (19, 17, 4), (40, 16, 4), (40, 0, 0), (7, 7, 0), (8, 8, 2), (60, 60, 13)],
)
def test_bars_are_equal_and_told_in_32nds(left: int, right: int, parts: int) -> None:
    assert BarFinder().step(picture(left, right), True) == Window(sides=parts)
    assert BarFinder().step(picture(0, 0, left // 2, right // 2), True) == Window(ends=parts)


def test_a_picture_may_have_bars_all_round() -> None:
    assert BarFinder().step(picture(16, 16, 10, 10), True) == Window(4, 5)


def test_what_is_not_black_is_part_of_the_picture() -> None:
    marked = picture(32, 32)
    marked[5, 12:33] = 40
    assert BarFinder().step(marked, True) == Window(3)
    assert BarFinder().step(picture(32, 32, level=12), True) == WHOLE  # dark grey is not black


def lettered(rows: slice, columns: slice = slice(20, 100)) -> NDArray[np.float32]:
    """A picture between bars of 16 rows, with letters at a place in the bar below, and black between them."""
    lightness = picture(0, 0, 16, 16)
    lightness[rows, columns][:, ::4] = 90
    return lightness


def test_subtitles_in_a_bar_leave_it_one() -> None:
    """With black all round; where they touch the picture, or are above and below, they are part of it."""
    assert BarFinder().step(lettered(slice(52, 57)), True) == Window(ends=8)
    assert BarFinder().step(np.flip(lettered(slice(52, 57))).copy(), True) == Window(ends=8)
    two_lines = np.maximum(lettered(slice(50, 54)), lettered(slice(57, 62)))
    assert BarFinder().step(two_lines, True) == Window(ends=8)
    assert BarFinder().step(lettered(slice(46, 57)), True) == Window(ends=3)
    both = lettered(slice(52, 57))
    both[6:9] = 90
    assert BarFinder().step(both, True) == Window(ends=3)


def test_much_light_is_no_writing() -> None:
    lightness = picture(0, 0, 16, 16)
    lightness[52:57] = 50  # a third of the bar
    assert BarFinder().step(lightness, True) == Window(ends=3)


def test_a_light_in_the_dark_is_no_writing_where_the_other_bar_is_of_another_size() -> None:
    lightness = picture(0, 0, 16, 24)
    lightness[56:58, 60:64] = 50
    assert BarFinder().step(lightness, True) == Window(ends=3)


def test_nothing_is_cut_off_that_was_seen_in_the_last_pictures() -> None:
    finder = BarFinder()
    assert finder.step(picture(32, 32, 8, 8), True) == Window(8, 4)
    assert finder.step(picture(16, 16, 16, 16), False) == Window(4, 4)
    for _ in range(REMEMBERED - 1):
        assert finder.step(picture(32, 32, 16, 16), False) == Window(4, 4)
    assert finder.step(picture(32, 32, 16, 16), False) == Window(4, 8)
    assert finder.step(picture(32, 32, 16, 16), False) == Window(8, 8)


def test_a_dark_picture_has_no_say_and_a_cut_forgets() -> None:
    finder, dark = BarFinder(), np.full((H, W), 2, np.float32)
    assert finder.step(dark, True) == WHOLE
    assert finder.step(picture(16, 16), False) == Window(4)
    assert finder.step(dark, False) == Window(4)
    assert finder.step(picture(32, 32), True) == Window(8)


def test_no_picture_before_a_warm_up_counts() -> None:
    film = [picture(*(int(bar) for bar in RNG.integers(0, 30, 4))) for _ in range(60)]
    whole = BarFinder()
    expected = [whole.step(each, n == 0) for n, each in enumerate(film)]
    late = BarFinder()
    found = [late.step(each, n == 0) for n, each in enumerate(film[20:])]
    assert found[REMEMBERED:] == expected[20 + REMEMBERED :]
    assert warmup_frames(Fraction(1)) >= REMEMBERED
    assert len(set(expected)) > 2


@pytest.mark.parametrize("side", [1, 35, 320, 1918])
def test_what_lies_inside_is_in_the_middle_and_aligned_to_chroma(side: int) -> None:
    plane = np.arange(side, dtype=np.uint16)[None].repeat(3, 0)
    for parts in range(14):
        bar = bar_size(parts, side)
        assert bar % 4 == 0
        assert side * parts / 32 - 4 < bar <= side * parts / 32
        assert Window(sides=parts).of(plane)[0].tolist() == list(range(bar, side - bar))
        assert Window(ends=parts).of(plane.T)[:, 0].tolist() == list(range(bar, side - bar))


@pytest.mark.parametrize("subsampling", [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)])
@pytest.mark.parametrize("size", [(288, 352), (243, 321), (7, 5)])
def test_chroma_of_the_inside_comes_back_where_its_luma_is(size: tuple[int, int], subsampling: Subsampling) -> None:
    """A whole picture's chroma, cut out as its luma is, and framed again: bars neutral, the rest its own."""
    (height, width), (horizontal, vertical) = size, subsampling
    layout, window = ChromaLayout("bt601", False, 8, subsampling), Window(5, 7)
    luma = np.zeros(size, np.uint8)
    window.of(luma)[:] = 1
    pad = (0, -height % (1 << vertical)), (0, -width % (1 << horizontal))
    blocks = np.pad(luma, pad).reshape(-(-height >> vertical), 1 << vertical, -(-width >> horizontal), 1 << horizontal)
    covered = blocks.max((1, 3))
    whole = RNG.integers(0, 256, covered.shape).astype(np.uint8)
    rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
    framed = window.framed(whole[np.ix_(rows, columns)], size, layout)
    np.testing.assert_array_equal(framed, np.where(covered, whole, 128))


def film(
    path: Path, bar: int, end: int = 0, frames: int = 12, marked: range = range(0), interlaced: bool = False
) -> Path:
    """Waves, 96×96, between bars so wide and high; 4:2:0, limited range. In the pictures `marked`, a mark in a bar."""
    y, x = np.mgrid[0:96, 0:96]
    height, width = 96 + 2 * end, 96 + 2 * bar
    video = media.Video("ffv1", width=width, height=height, interlaced=interlaced)
    with av.open(str(path), "w") as container:
        stream = media.add_video(container, video)
        for n in range(frames):
            image = np.full((height * 3 // 2, width), 128, np.uint8)
            image[:height] = 30  # black, but light enough to hold colour
            waves = 130 + 70 * np.sin((x + 2 * n) / 9) * np.cos(y / 7)
            image[end : end + 96, bar : bar + 96] = waves
            if n in marked:
                image[40:56, 2:24] = 200
            frame = av.VideoFrame.from_ndarray(image, "yuv420p")
            frame.pts, frame.time_base = n, 1 / video.rate
            container.mux(stream.encode(media.with_fields(frame, "tff") if interlaced else frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("bar", "end", "interlaced"), [(20, 0, False), (0, 20, False), (20, 20, False), (0, 40, True)])
def test_between_bars_a_film_is_coloured_as_it_is_alone(tmp_path: Path, bar: int, end: int, interlaced: bool) -> None:
    """A bar is found in whole 32nds of the side: of 20 samples 16, so that 4 of black are left beside the film.

    Of 40 rows 38.5, and of a field's 20 rows 16, so that the film keeps 8 of them.
    """
    left = 8 if interlaced else 4
    alone = film(tmp_path / "alone.mkv", bar and 4, end and left, interlaced=interlaced)
    boxed = film(tmp_path / "boxed.mkv", bar, end, interlaced=interlaced)
    sides, ends = (slice(n, -n) if n else slice(None) for n in ((bar and bar - 4) // 2, (end and end - left) // 2))
    expected, found = planes(colorize(alone)), planes(colorize(boxed))
    for one, other, source in zip(expected, found, planes(boxed), strict=True):
        np.testing.assert_array_equal(other[0], source[0])
        for own, framed in zip(one[1:], other[1:], strict=True):
            np.testing.assert_array_equal(framed[ends, sides], own)
            outside = framed.astype(int)
            outside[ends, sides] = 128
            assert (outside == 128).all()
    assert np.std([f[1] for f in expected]) > 1


def test_what_touches_the_picture_is_coloured(tmp_path: Path) -> None:
    """A Tinter colours by lightness alone, so a mark comes out in the colour of its lightness, in a bar or not."""
    path = film(tmp_path / "marked.mkv", 20, frames=2, marked=range(2))
    for _, cb, _ in planes(colorize(path, Tinter(1))):
        assert np.abs(cb[22:26, 3:11].astype(int) - 128).min() > 3


def test_segments_agree_on_the_bars(tmp_path: Path) -> None:
    """A mark in a bar, in ten pictures, makes the same pictures lose it, however the film is cut."""
    path = film(tmp_path / "marked.mkv", 20, frames=75, marked=range(20, 30))
    films = [planes(colorize(path, Flickerer(), seconds=seconds)) for seconds in (1e9, 1)]
    for frames in films:
        neutral = [bool((cb[:, :8] == 128).all()) for _, cb, _ in frames]
        assert neutral == [not 20 <= n < 30 + REMEMBERED for n in range(75)]
    difference = [np.abs(a[1].astype(int) - b[1]).mean() for a, b in zip(*films, strict=True)]
    assert max(difference) < 1
