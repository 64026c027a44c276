"""Cuts: found between unlike pictures, and not where a shot merely moves, fades, flashes or is grainy."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.color import lightness_table
from pipeline.shots import CutDetector, histogram_distance, likeness

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
HEIGHT, WIDTH = 192, 256


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH, grain: float = 14) -> np.ndarray:
    """Blobs of a given size over the whole lightness range: a picture unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), grain)
    return np.clip(50 + 22 * noise / noise.std(), 0, 100).astype(np.float32)


def cuts(pictures) -> list[int]:
    detector = CutDetector()
    return [i for i, picture in enumerate(pictures) if detector.step(np.ascontiguousarray(picture, np.float32))]


def pan(seed: int, frames: int, step: int) -> list[np.ndarray]:
    wide = texture(seed, width=WIDTH + frames * step)
    return [wide[:, i * step : i * step + WIDTH] for i in range(frames)]


def test_cuts_between_moving_shots():
    assert cuts(pan(1, 10, 3) + pan(2, 7, 5) + pan(3, 12, 0)) == [0, 10, 17]


@pytest.mark.parametrize("step", [1, 8, 20, 40])
def test_a_pan_is_no_cut(step):
    assert cuts(pan(4, 12, step)) == [0]


@pytest.mark.parametrize("sigma", [3, 10, 20])
def test_grain_is_no_cut(sigma):
    rng = np.random.default_rng(5)
    assert cuts(np.clip(p + rng.normal(0, sigma, p.shape), 0, 100) for p in pan(5, 20, 2)) == [0]


@pytest.mark.parametrize("gain", [0.4, 1.6])
def test_a_flash_that_keeps_the_picture_is_no_cut(gain):
    pictures = pan(6, 20, 2)
    pictures[10] = np.clip(pictures[10] * gain + 15, 0, 100)
    assert cuts(pictures) == [0]


def test_a_white_flash_is_no_cut():
    pictures = pan(7, 20, 2)
    pictures[10] = np.full((HEIGHT, WIDTH), 100)
    assert cuts(pictures) == [0]


def test_a_flash_that_hides_the_picture_does_not_cut_on_its_way_back():
    pictures = pan(8, 20, 2)
    pictures[10] = texture(99)
    assert cuts(pictures) == [0, 10]


def test_two_cuts_in_quick_succession_are_both_found():
    assert cuts(pan(10, 8, 1) + pan(11, 2, 1) + pan(12, 8, 1)) == [0, 8, 10]


def test_fade_and_dissolve_are_no_cuts():
    one, other = texture(13), texture(14)
    fade = [one * k for k in np.linspace(1, 0, 25)] + [one * k for k in np.linspace(0, 1, 25)]
    dissolve = [(1 - k) * one + k * other for k in np.linspace(0, 1, 30)]
    assert cuts(fade + dissolve) == [0]


def test_a_new_shot_after_black_is_a_cut():
    black = [np.zeros((HEIGHT, WIDTH))] * 3
    assert cuts([*pan(15, 6, 1), *black, *pan(16, 6, 1)]) == [0, 9]


def test_a_blank_beginning_is_one_shot():
    assert cuts([np.zeros((HEIGHT, WIDTH))] * 2 + pan(17, 4, 1)) == [0]


def test_likeness_and_histogram_by_hand():
    a = texture(18, 48, 48, grain=4)
    assert likeness(a, a * 0.5 + 20) == pytest.approx(1, abs=1e-3)
    assert likeness(a, np.roll(a, 7, axis=1)) == pytest.approx(1, abs=1e-3)
    assert likeness(a, texture(19, 48, 48, grain=4)) < 0.75
    dark, half = np.full((48, 48), 1, np.float32), np.full((48, 48), 1, np.float32)
    half[:24] = 90
    assert histogram_distance(dark, half) == 0.5


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"lightness\.shape"):
        CutDetector().step(np.zeros((1, 64, 64), np.float32))


@pytest.fixture(scope="module")
def real() -> dict[str, list[np.ndarray]]:
    """The first 30 pictures of clips that are one shot, as L* at about the network's size."""
    if not CLIPS.is_dir():
        pytest.skip(f"{CLIPS} is not here")
    table = lightness_table(8, False).reshape(1, -1)
    shots = {}
    for path in sorted(CLIPS.glob("*.mp4")):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray() for frame, _ in zip(container.decode(video=0), range(30), strict=False)]
        luma = [np.ascontiguousarray(f[: 2 * len(f) // 3]) for f in frames]  # planar 4:2:0
        shots[path.name] = [cv2.resize(cv2.LUT(y, table), (352, 192), interpolation=cv2.INTER_AREA) for y in luma]
    return shots


def test_real_shots_hold_no_cut_and_differ_from_each_other(real):
    for name, shot in real.items():
        assert cuts(shot) == [0], name
    joined = [picture for shot in real.values() for picture in shot[:10]]
    assert cuts(joined) == list(range(0, 10 * len(real), 10))
