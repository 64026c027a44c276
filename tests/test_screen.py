"""What is left out of training, and why: each reason on made pictures, and on copies of real ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import scene, toned
from skimage.color import rgb2lab

from model.screen import Screening, Seen, fault, perceptual_hash, without_bars

RNG = np.random.default_rng(0)


def noisy(picture: np.ndarray, deviation: float) -> np.ndarray:
    return np.clip(picture + RNG.normal(0, deviation, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_a_colour_picture_has_no_fault(seed: int) -> None:
    assert fault(scene(seed), Screening()) is None


def test_a_picture_of_one_strong_colour_is_kept() -> None:
    sea = toned(scene(1), (0, 20, 90), (120, 200, 255))
    assert np.percentile(np.hypot(*np.moveaxis(rgb2lab(sea)[..., 1:], -1, 0)), 95) > 35
    assert fault(sea, Screening()) is None


@pytest.mark.parametrize(
    ("reason", "picture"),
    [
        ("tiny", scene(1, 63, 400)),
        ("dark", scene(1) // 12),
        ("grey", toned(scene(1), (0, 0, 0), (255, 255, 255))),
        ("grey", noisy(toned(scene(2), (0, 0, 0), (255, 255, 255)), 4)),
        ("grey", np.full((90, 120, 3), 200, np.uint8)),
        ("tinted", toned(scene(1), (20, 12, 5), (255, 238, 205))),
        ("tinted", toned(scene(1), (40, 20, 5), (255, 225, 180))),
        ("tinted", toned(scene(1), (5, 20, 40), (220, 240, 255))),
    ],
)  # fmt: skip
def test_every_fault_is_told_by_its_reason(reason: str, picture: np.ndarray) -> None:
    assert fault(picture, Screening()) == reason


def test_a_small_thing_of_strong_colour_makes_a_grey_picture_worth_keeping() -> None:
    grey = toned(scene(3), (0, 0, 0), (255, 255, 255))
    grey[20:50, 20:40] = (230, 60, 20)
    assert fault(grey, Screening()) is None


def test_the_bounds_are_the_screenings() -> None:
    dull = (toned(scene(1), (0, 0, 0), (255, 255, 255)) * 0.8 + scene(1) * 0.2).astype(np.uint8)
    chroma = float(np.percentile(np.hypot(*np.moveaxis(rgb2lab(dull)[..., 1:], -1, 0)), 95))
    assert fault(dull, Screening(grey=chroma / 4)) != "grey"
    assert fault(dull, Screening(grey=chroma * 2)) == "grey"
    assert fault(scene(1, 100, 100), Screening(short_edge=101)) == "tiny"


@pytest.mark.parametrize("bars", [(12, 12, 0, 0), (0, 0, 15, 15), (10, 14, 8, 0), (0, 30, 0, 0)])
def test_bars_are_cut_away_to_the_line(bars: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = bars
    inside = np.maximum(scene(4), 40)
    boxed = np.pad(inside, ((top, bottom), (left, right), (0, 0)))
    noisy = np.clip(boxed + RNG.integers(0, 4, boxed.shape), 0, 255).astype(np.uint8)
    assert without_bars(noisy).shape == inside.shape
    np.testing.assert_array_equal(without_bars(boxed), inside)


def test_what_is_no_bar_is_left_alone() -> None:
    bright = np.maximum(scene(5), 40)
    thin = np.pad(bright, ((1, 0), (0, 0), (0, 0)))  # of 91 rows, less than 2 %
    night = np.zeros((90, 120, 3), np.uint8)
    night[84:, 100:] = 200  # a picture nearly all black is not a letterbox
    dim = bright.copy()
    dim[:20] = np.linspace(10, 90, 120)[None, :, None]  # a dark sky is not flat
    for picture in (bright, thin, night, dim, np.zeros((90, 120, 3), np.uint8)):
        assert without_bars(picture).shape == picture.shape


def test_near_duplicates_share_their_hash_and_others_do_not() -> None:
    first = scene(7, 300, 400)
    smaller = cv2.resize(first, (160, 120), interpolation=cv2.INTER_AREA)
    worn = noisy(first * 0.9 + 8, 6)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", first, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    value = perceptual_hash(first)
    for copy in (smaller, worn, jpeg):
        assert (value ^ perceptual_hash(copy)).bit_count() <= Screening().alike
    others = [perceptual_hash(scene(seed)) for seed in range(100, 160)]
    apart = [(a ^ b).bit_count() for i, a in enumerate(others) for b in others[:i]]
    assert min(apart) > 10
    assert 25 < np.mean(apart) < 39


def test_the_hash_agrees_with_a_plain_cosine_transform() -> None:
    picture = scene(8, 32, 32)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
    k = np.arange(32)
    basis = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 64) * np.sqrt(np.where(k == 0, 1, 2) / 32)[:, None]
    low = (basis @ grey @ basis.T)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    assert perceptual_hash(picture) == sum(int(bit) << (63 - i) for i, bit in enumerate(bits))


def flipped(value: int, bits: int) -> int:
    return value ^ ((1 << bits) - 1)


def test_duplicates_are_looser_inside_a_video_than_across_the_set() -> None:
    seen = Seen(Screening(alike=3, alike_in_video=10))
    value = 0x123456789ABCDEF0
    assert not seen.repeats(value, 0)
    assert seen.repeats(flipped(value, 3), 1)
    assert seen.repeats(flipped(value, 10), 0)
    assert seen.repeats(flipped(value, 3), -1)
    assert not seen.repeats(flipped(value, 10), 1)
    assert not seen.repeats(value ^ (0xFFFFFFFF << 20), 0)


def test_photographs_are_no_video_of_their_own() -> None:
    seen = Seen(Screening(alike=3, alike_in_video=10))
    assert not seen.repeats(0, -1)
    assert not seen.repeats(flipped(0, 8), -1)


def test_thousands_of_hashes_are_all_remembered() -> None:
    values = [int(v) for v in RNG.integers(0, 2**64, 3000, np.uint64)]
    seen = Seen(Screening())
    assert not any(seen.repeats(value, -1) for value in values)
    assert all(seen.repeats(value ^ 4, -1) for value in values[::100])
