"""Real colour told from tints and noise, and measures against their definitions."""

import math
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from pipeline import quality

CLIPS = Path(__file__).parents[2] / "shared" / "clips"
HEIGHT, WIDTH = 240, 320


def scene(seed: int = 1) -> np.ndarray:
    """RGB of coloured patches under uneven light, (240, 320, 3) uint8."""
    rng = np.random.default_rng(seed)
    patches = cv2.resize(rng.uniform(0.2, 1, (6, 8, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    light = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)), (0, 0), 12)
    return np.clip(255 * patches * (0.6 + 2 * light[..., None]), 0, 255).astype(np.uint8)


def ycbcr(rgb: np.ndarray, depth: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Full-range BT.601 4:2:0 planes by OpenCV, independent of the project's own."""
    y, cr, cb = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    planes = (y, *(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in (cb, cr)))
    return tuple(p if depth == 8 else p.astype(np.uint16) << (depth - 8) for p in planes)


def grey(rgb: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def sepia(rgb: np.ndarray) -> np.ndarray:
    """The usual matrix, then JPEG, as files come."""
    weights = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    toned = np.clip(rgb @ weights.T, 0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", toned, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_colours_are_real_at_every_depth(depth):
    assert quality.has_real_colour(*ycbcr(scene(), depth), depth)
    assert not quality.has_real_colour(*ycbcr(grey(scene()), depth), depth)


@pytest.mark.parametrize("seed", range(4))
def test_sepia_is_no_colour(seed):
    assert not quality.has_real_colour(*ycbcr(sepia(scene(seed))), 8)


def test_a_uniform_tint_is_no_colour():
    y, cb, cr = ycbcr(grey(scene()))
    assert not quality.has_real_colour(y, cb + 30, cr - 25, 8)


def test_split_toning_is_no_colour():
    """Blue shadows and yellow highlights: hue varies, but luma tells it."""
    y, cb, _ = ycbcr(grey(scene()))
    small = cv2.resize(y, cb.shape[::-1], interpolation=cv2.INTER_AREA) / 255.0
    assert not quality.has_real_colour(y, (150 - 45 * small).astype(np.uint8), (115 + 25 * small).astype(np.uint8), 8)


@pytest.mark.parametrize("sigma", [2, 5, 12])
def test_chroma_noise_is_no_colour(sigma):
    y, cb, cr = ycbcr(grey(scene()))
    rng = np.random.default_rng(2)
    cb, cr = (np.clip(p + rng.normal(0, sigma, p.shape), 0, 255).astype(np.uint8) for p in (cb, cr))
    assert not quality.has_real_colour(y, cb, cr, 8)


def test_dot_crawl_is_no_colour():
    """Fine luma stripes read as a subcarrier: rainbow bands of a few samples."""
    y, cb, cr = ycbcr(grey(scene()))
    x = np.arange(cb.shape[1])
    cb = (cb + 25 * np.sin(2 * np.pi * x / 3.3)).astype(np.uint8)
    cr = (cr + 25 * np.cos(2 * np.pi * x / 3.3)).astype(np.uint8)
    assert not quality.has_real_colour(y, cb, cr, 8)


def test_a_coloured_logo_or_time_stamp_is_no_colour():
    rgb = grey(scene())
    rgb[10:28, 290:312] = (230, 20, 20)  # 0.5 % of the picture
    assert not quality.has_real_colour(*ycbcr(rgb), 8)
    cv2.putText(rgb, "2024-05-17 12:31:09", (8, 232), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 220, 0), 1)
    assert not quality.has_real_colour(*ycbcr(rgb), 8)


def test_a_coloured_quarter_is_colour():
    rgb = grey(scene())
    rgb[:120, :160] = scene()[:120, :160]
    assert quality.has_real_colour(*ycbcr(rgb), 8)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 9), (7, 5)])
def test_smallest_pictures(size):
    luma, chroma = np.full(size, 90, np.uint8), np.full((-(-size[0] // 2), -(-size[1] // 2)), 128, np.uint8)
    assert not quality.has_real_colour(luma, chroma, chroma, 8)


def test_chroma_of_two_sizes_is_refused():
    plane = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"cr\.shape"):
        quality.has_real_colour(plane, plane, plane[:4], 8)


def clip_frames(name: str, every: int = 12, count: int = 4):
    if not CLIPS.is_dir():
        pytest.skip(f"{CLIPS} is not here")
    with av.open(str(CLIPS / name)) as container:
        return list(islice(container.decode(video=0), 0, every * count, every))


def planes(frame) -> list[np.ndarray]:
    whole = frame.to_ndarray()
    height, width = frame.height, frame.width
    cb, cr = whole[height:].reshape(2, height // 2, width // 2)
    return [whole[:height], cb, cr]


@pytest.mark.parametrize("name", ["bw_blast_effects.mp4", "bw_industry.mp4", "bw_jellyfish.mp4"])
def test_real_monochrome_clips(name):
    assert not any(quality.has_real_colour(*planes(frame), 8) for frame in clip_frames(name))


COLOUR_CLIPS = [
    "color_bedroom.mp4", "color_blocks.mp4", "color_dog.mp4", "color_sign_walk.mkv",
    "color_surveillance_people.mp4", "color_surveillance_road.avi", "color_talk.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", COLOUR_CLIPS)
def test_real_colour_clips_and_their_sepia(name):
    for frame in clip_frames(name):
        assert quality.has_real_colour(*planes(frame), 8)
        assert not quality.has_real_colour(*ycbcr(sepia(frame.to_ndarray(format="rgb24"))), 8)


def test_colourfulness_by_its_formula():
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    rg, yb = r - g, 0.5 * (r + g) - b
    want = math.sqrt(rg.var() + yb.var()) + 0.3 * math.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert quality.colourfulness(rgb) == pytest.approx(want)
    assert quality.colourfulness(rgb / 255) == pytest.approx(want)
    assert quality.colourfulness(grey(rgb)) == 0
    with pytest.raises(ValueError, match=r"rgb\.dtype"):
        quality.colourfulness(rgb.astype(np.int32))


def moving(frames: int, step: int = 3, scale: int = 4):
    rng = np.random.default_rng(4)
    blur = [
        cv2.GaussianBlur(rng.normal(0, 1, (128, 128 + frames * step)).astype(np.float32), (0, 0), s)
        for s in (3, 10, 10)
    ]
    wide, a, b = (p / p.std() for p in blur)
    views = [slice(i * step, i * step + 128) for i in range(frames)]
    light = [np.clip(50 + 15 * wide[:, v], 0, 100).astype(np.float32) for v in views]
    size = 128 // scale, 128 // scale
    ab = [np.stack([cv2.resize(20 * p[:, v], size, interpolation=cv2.INTER_AREA) for p in (a, b)]) for v in views]
    return light, ab


@pytest.mark.parametrize("scale", [4, 1])
def test_flicker_is_measured_along_motion(scale):
    light, ab = moving(12, scale=scale)
    rng = np.random.default_rng(5)
    offsets = rng.normal(0, 5, (12, 2, 1, 1)).astype(np.float32)
    flickering = [plane + offset for plane, offset in zip(ab, offsets, strict=True)]
    still = quality.flicker([ab[0]] * 5, [light[0]] * 5)
    assert still == 0
    follows, ignores = quality.flicker(ab, light), float(np.abs(np.diff(ab, axis=0)).mean())
    assert follows < 0.3 * ignores
    assert quality.flicker(flickering, light) == pytest.approx(np.abs(np.diff(offsets, axis=0)).mean(), rel=0.15)


def test_flicker_does_not_count_cuts():
    light, ab = moving(8)
    other = [np.ascontiguousarray(p[::-1, ::-1]) for p in light]
    jumps = quality.flicker(ab[:4] + [p + 60 for p in ab[4:]], light[:4] + other[4:])
    assert jumps < 5  # counted, the one jump of 60 among 7 would add 8
    assert quality.flicker([], []) == 0


def test_psnr_agrees_with_scikit_image():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 1024, (2, 30, 40)).astype(np.uint16)
    assert quality.psnr(a, b, 1023) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1023))
    assert quality.psnr(a, a, 1023) == math.inf
    with pytest.raises(ValueError, match="shapes"):
        quality.psnr(a, b[:5], 1023)
