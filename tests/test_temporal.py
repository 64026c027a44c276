"""Steady colour: flicker down, motion followed, nothing smeared, and seams of segments invisible."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.shots import CutDetector
from pipeline.temporal import Steady, missed, strength, warmup_frames

HEIGHT, WIDTH = 192, 256
FLICKER = 4.0
FPS = Fraction(25)


def texture(seed: int, width: int = WIDTH, grain: float = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, width)).astype(np.float32), (0, 0), grain)
    return np.clip(50 + 15 * noise / noise.std(), 0, 100).astype(np.float32)


def coarse(plane: np.ndarray) -> np.ndarray:
    return cv2.resize(
        plane.astype(np.float32), (plane.shape[1] // 4, plane.shape[0] // 4), interpolation=cv2.INTER_AREA
    )


def pan(frames: int, step: int = 3, seed: int = 1):
    """A texture that moves left, its colour fixed to it; returns lightness and true ab of each picture."""
    wide = texture(seed, WIDTH + frames * step)
    colour = np.stack(
        [40 * (texture(seed + 1, wide.shape[1], 20) - 50) / 15, 30 * (texture(seed + 2, wide.shape[1], 10) - 50) / 15]
    )
    views = [slice(i * step, i * step + WIDTH) for i in range(frames)]
    return [wide[:, v].copy() for v in views], [np.stack([coarse(c[:, v]) for c in colour]) for v in views]


def flickering(ab: list[np.ndarray], seed: int = 7) -> list[np.ndarray]:
    """What a network makes of it: each picture off by smooth blotches of its own."""
    rng = np.random.default_rng(seed)
    out = []
    for plane in ab:
        noise = np.stack([cv2.GaussianBlur(n, (0, 0), 2) for n in rng.normal(0, 1, plane.shape).astype(np.float32)])
        out.append(plane + FLICKER * noise / noise.std())
    return out


def run(ab, lightness, steady: Steady | None = None) -> np.ndarray:
    steady, cuts = steady or Steady(strength(FPS)), CutDetector()
    return np.array([steady.step(a, picture, cuts.step(picture)) for a, picture in zip(ab, lightness, strict=True)])


def test_flicker_on_a_still_scene_drops_by_the_stated_factor():
    lightness = [texture(1)] * 60
    truth = np.zeros((2, HEIGHT // 4, WIDTH // 4), np.float32)
    noisy = np.array(flickering([truth] * 60))
    steadied = run(list(noisy), lightness)
    before, after = np.abs(np.diff(noisy, axis=0)).mean(), np.abs(np.diff(steadied[20:], axis=0)).mean()
    # An average with share s of the past: differences shrink by (1 - s)/sqrt(1 + s), here 1/16.
    share = strength(FPS)
    assert after / before == pytest.approx((1 - share) / np.sqrt(1 + share), rel=0.1)
    assert np.abs(steadied[20:]).mean() < 0.4 * np.abs(noisy).mean()


@pytest.mark.parametrize("grain", [0, 2])
def test_flicker_drops_in_motion_and_under_grain(grain):
    lightness, truth = pan(40)
    rng = np.random.default_rng(3)
    lightness = [np.clip(p + rng.normal(0, grain, p.shape), 0, 100).astype(np.float32) for p in lightness]
    noisy = flickering(truth)
    inside = np.s_[16:, :, 2:-2, 2:-4]  # new colour comes in at the right
    error_before = np.abs(np.array(noisy) - truth)[inside].mean()
    error_after = np.abs(run(noisy, lightness) - truth)[inside].mean()
    assert error_after < 0.35 * error_before


@pytest.mark.parametrize("finer", [2, 4])
def test_finer_colour_is_steadied_in_motion_too(finer):
    def enlarged(ab):
        return [np.stack([cv2.resize(p, None, fx=finer, fy=finer) for p in planes]) for planes in ab]

    lightness, truth = pan(40)
    noisy, truth = enlarged(flickering(truth)), np.array(enlarged(truth))
    inside = np.s_[16:, :, 2 * finer : -2 * finer, 2 * finer : -4 * finer]
    error_before = np.abs(np.array(noisy) - truth)[inside].mean()
    error_after = np.abs(run(noisy, lightness) - truth)[inside].mean()
    assert error_after < 0.55 * error_before


def test_finer_still_colour_is_not_blurred():
    rng = np.random.default_rng(2)
    scene, ab = texture(4), rng.normal(0, 20, (2, HEIGHT, WIDTH)).astype(np.float32)
    lightness = [np.clip(scene + rng.normal(0, 1.5, scene.shape), 0, 100).astype(np.float32) for _ in range(20)]
    assert np.abs(run([ab] * 20, lightness)[-1] - ab).mean() < 0.1


def test_still_colour_neither_drifts_nor_blurs_under_grain():
    rng = np.random.default_rng(2)
    scene, ab = texture(4), rng.normal(0, 20, (2, HEIGHT // 4, WIDTH // 4)).astype(np.float32)
    lightness = [np.clip(scene + rng.normal(0, 1.5, scene.shape), 0, 100).astype(np.float32) for _ in range(40)]
    error = np.abs(run([ab] * 40, lightness)[-1] - ab)
    assert error.mean() < 0.01
    assert error.max() < 2


def occlusion(frames: int = 30, step: int = 6):
    """A dark red square that moves right across a bright green texture, which it covers and uncovers."""
    ground = np.clip(texture(5) + 15, 0, 100)
    square = np.clip(texture(6)[:72, :72] - 30, 0, 100)
    lightness, ab, masks = [], [], []
    for i in range(frames):
        x = 10 + i * step
        picture, mask = ground.copy(), np.zeros((HEIGHT, WIDTH), bool)
        mask[60:132, x : x + 72] = True
        picture[mask] = square[:, : mask[60].sum()].ravel()
        lightness.append(picture)
        masks.append(coarse(mask))
        ab.append(np.stack([coarse(np.where(mask, 60, -30)), coarse(np.where(mask, 30, 30))]))
    return lightness, ab, masks


def test_a_moving_thing_leaves_no_ghost():
    lightness, ab, masks = occlusion()
    error = np.abs(run(ab, lightness) - ab)[5:, 0]
    behind = np.zeros(error.shape, bool)  # the three cells that the square's left side just left, and farther
    for i, mask in enumerate(masks[5:]):
        left = int(np.flatnonzero(mask[24] == 1)[0])
        behind[i, 17:31, max(0, left - 12) : left - 1] = True
    assert error[behind].mean() < 4.5  # of the 90 between green and red
    assert np.percentile(error[behind], 95) < 30
    far = np.array([cv2.dilate(m, np.ones((15, 15))) == 0 for m in masks[5:]])
    assert error[far].mean() < 0.02
    inside = np.array([cv2.erode(m, np.ones((5, 5))) == 1 for m in masks[5:]])
    assert error[inside].mean() < 1.5


def test_a_cut_forgets_everything():
    first, ab_first = pan(20, seed=11)
    second, ab_second = pan(5, seed=23)
    steadied = run(ab_first + ab_second, first + second)
    assert np.array_equal(steadied[20], ab_second[0])


def test_brightness_flicker_of_old_film_is_not_motion():
    rng = np.random.default_rng(9)
    scene = texture(8)
    lightness = [np.clip(scene + rng.uniform(-8, 8), 0, 100).astype(np.float32) for _ in range(40)]
    noisy = flickering([np.zeros((2, HEIGHT // 4, WIDTH // 4), np.float32)] * 40)
    assert np.abs(run(noisy, lightness)[15:]).mean() < 0.5 * np.abs(noisy).mean()


def test_seams_of_segments_do_not_show():
    """Cut into pieces, each primed by its warm-up, a reel changes no more at the seams than elsewhere."""
    length, piece, warmup = 96, 12, warmup_frames(FPS)
    lightness, truth = pan(length, step=2)
    noisy = flickering(truth)
    whole = run(noisy, lightness)
    pieces = []
    for start in range(0, length, piece):
        first = max(0, start - warmup)
        pieces.append(run(noisy[first : start + piece], lightness[first : start + piece])[start - first :])
    joined = np.concatenate(pieces)
    assert np.abs(joined - whole)[warmup:].mean() < 0.05  # a tenth of an 8-bit chroma code
    moves = np.abs(np.diff(joined, axis=0)).mean(axis=(1, 2, 3))
    seams = np.arange(piece - 1, length - 1, piece)
    inside = np.delete(moves, seams)[warmup:]
    assert moves[seams[2:]].mean() <= inside.mean() + 2 * inside.std() / np.sqrt(len(seams) - 2)


def test_strength_zero_is_off():
    lightness, truth = pan(6)
    assert np.array_equal(run(truth, lightness, Steady(strength=0)), np.array(truth))


def test_the_same_whatever_the_threads():
    lightness, truth = occlusion(8)[:2]
    threads = cv2.getNumThreads()
    try:
        results = []
        for n in (1, 2, 4):
            cv2.setNumThreads(n)
            results.append(run(truth, lightness))
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_smallest_network_size():
    ab, lightness = np.full((2, 8, 8), 5, np.float32), np.full((32, 32), 50, np.float32)
    assert np.array_equal(run([ab] * 4, [lightness] * 4)[-1], ab)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="strength"):
        Steady(strength=1)
    with pytest.raises(ValueError, match=r"ab\.shape"):
        Steady(0.8).step(np.zeros((2, 8, 9), np.float32), np.zeros((32, 32), np.float32), True)


def test_another_window_keeps_what_was_seen_in_its_place():
    """The middle of a still scene, then all of it again: as if nothing had happened, but for what was out of sight."""
    lightness = texture(1)
    ab = np.stack([coarse(texture(seed, grain=20)) for seed in (2, 3)])
    inner = (slice(48, -48), slice(64, -64))
    small, inner_ab = lightness[inner].copy(), ab[:, 12:-12, 16:-16]
    steady = Steady(0.8)
    for _ in range(20):
        steady.step(ab, lightness, False)
    steady.reframe((0.25, 0.75), (0.25, 0.75), small.shape)
    seen = steady.step(np.zeros_like(inner_ab), small, False)
    np.testing.assert_allclose(seen, 0.8 * inner_ab, atol=0.2)
    steady.reframe((-0.5, 1.5), (-0.5, 1.5), lightness.shape)
    whole = steady.step(np.full_like(ab, 7), lightness, False)
    np.testing.assert_allclose(whole[:, 13:-13, 17:-17], (0.8 * seen + 7 * (1 - 0.8))[:, 1:-1, 1:-1], atol=0.2)
    assert (whole[:, :11] == 7).all()
    assert (whole[:, :, :15] == 7).all()


@pytest.mark.parametrize(("fps", "frames"), [(1, 16), (10, 16), (25, 40), (50, 80), (1000, 96)])
def test_the_past_that_counts_is_as_long_as_the_warm_up(fps, frames):
    assert warmup_frames(Fraction(fps)) == frames
    assert strength(Fraction(fps)) ** frames == pytest.approx(0.03)


@pytest.mark.parametrize("changed", [0, 3, 12, 13, 24, 25])
def test_what_the_whole_picture_shares_is_its_median_difference(changed: int):
    """Of 5×5 and, with one row less, 5×4 places, so many differ by 10 codes and the rest by none."""
    difference = np.where(np.arange(25) < changed, 10, 0).reshape(5, 5)
    for part in (difference, difference[1:]):
        old = np.full(part.shape, 100, np.uint8)
        beyond = np.abs(part - np.median(part)) / 2.55
        expected = cv2.blur(beyond.astype(np.float32), (3, 3))
        np.testing.assert_allclose(missed((old + part).astype(np.uint8), old, part.shape), expected, atol=1e-5)
