"""Colour arithmetic against scikit-image and hand-computed H.273 values."""

import numpy as np
import pytest
from skimage import color as reference

from pipeline import color
from pipeline.frames import Matrix

MATRICES: list[Matrix] = ["bt601", "bt709", "bt2020", "smpte240m", "fcc"]


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    axis = np.linspace(0, 1, 33)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lab_agrees_with_scikit_image(cube, dtype):
    lab = color.rgb_to_lab(cube.astype(dtype))
    assert lab.dtype == dtype
    np.testing.assert_allclose(lab, reference.rgb2lab(cube), atol=1e-3)


def test_lab_to_rgb_agrees_with_scikit_image(cube):
    lab = reference.rgb2lab(cube)
    np.testing.assert_allclose(color.lab_to_rgb(lab), reference.lab2rgb(lab), atol=1e-3)


def test_lab_round_trips(cube):
    np.testing.assert_allclose(color.lab_to_rgb(color.rgb_to_lab(cube)), cube, atol=1e-9)


def test_lab_to_rgb_tells_what_is_outside_the_gamut():
    assert color.lab_to_rgb(np.array([50.0, 0.0, -110.0]))[0] < 0


def test_srgb_transfer_round_trips_and_meets_the_standard():
    values = np.linspace(-0.05, 1.1, 4001)
    np.testing.assert_allclose(color.linear_to_srgb(color.srgb_to_linear(values)), values, atol=1e-6)
    assert color.srgb_to_linear(np.array(0.5)) == pytest.approx(0.21404114, abs=1e-8)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bit_depth", range(8, 17))
def test_ycbcr_round_trips(cube, matrix, full_range, bit_depth):
    y, cb, cr = color.rgb_to_ycbcr(cube, matrix, full_range, bit_depth)
    np.testing.assert_allclose(color.ycbcr_to_rgb(y, cb, cr, matrix, full_range, bit_depth), cube, atol=1e-12)
    top = (1 << bit_depth) - 1
    if not full_range:
        scale = 1 << (bit_depth - 8)
        assert (y.min(), y.max()) == (16 * scale, pytest.approx(235 * scale))
        assert cb.max() == pytest.approx(240 * scale)
        assert cr.min() == pytest.approx(16 * scale)
    else:
        assert (y.min(), y.max()) == (0, pytest.approx(top))
        assert cb.min() == pytest.approx((1 << (bit_depth - 1)) - top / 2)


@pytest.mark.parametrize(
    ("matrix", "rgb", "expected"),
    [
        ("bt601", (1, 0, 0), (81.481, 90.203, 240.0)),  # the colour bars of BT.601: 81, 90, 240
        ("bt709", (0, 1, 0), (172.6288, 41.6642, 26.2698)),
        ("bt2020", (0, 0, 1), (28.9867, 240.0, 118.9920)),
    ],
)
def test_ycbcr_of_primaries(matrix, rgb, expected):
    got = color.rgb_to_ycbcr(np.array(rgb, float), matrix, False, 8)
    np.testing.assert_allclose(got, expected, atol=1e-2)


@pytest.mark.parametrize("bit_depth", [1, 8, 9, 10, 12, 16])
@pytest.mark.parametrize("full_range", [False, True])
def test_lightness_table_is_l_star_of_the_grey(bit_depth, full_range):
    table = color.lightness_table(bit_depth, full_range)
    codes = np.arange(1 << bit_depth, dtype=float)
    scale = 2.0 ** (bit_depth - 8)
    grey = codes / codes[-1] if full_range else np.clip((codes / scale - 16) / 219, 0, 1)
    want = reference.rgb2lab(np.repeat(grey[:, None, None], 3, axis=2))[:, 0, 0]
    assert table.dtype == np.float32
    assert table.shape == (1 << bit_depth,)
    np.testing.assert_allclose(table, want, atol=1e-3)
    assert table.min() >= 0
    assert table.max() <= 100


def test_grey_is_neutral_in_every_layout():
    grey = np.repeat(np.linspace(0, 1, 101)[:, None], 3, axis=1)
    for matrix in MATRICES:
        for bit_depth in range(8, 17):
            for full_range in (False, True):
                _, cb, cr = color.rgb_to_ycbcr(grey, matrix, full_range, bit_depth)
                np.testing.assert_allclose(np.stack([cb, cr]), color.neutral(bit_depth), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_colour_at_lightness_holds_lightness_and_hue_inside_the_gamut(dtype):
    rng = np.random.default_rng(5)
    lightness = rng.uniform(0, 100, (60, 70)).astype(dtype)
    ab = rng.uniform(-110, 110, (60, 70, 2)).astype(dtype)
    rgb = color.colour_at_lightness(lightness, ab)
    assert rgb.shape == (60, 70, 3)
    assert rgb.dtype == dtype
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    lab = reference.rgb2lab(rgb.astype(np.float64))
    np.testing.assert_allclose(lab[..., 0], lightness, atol=2e-3)
    chroma = np.hypot(*np.moveaxis(ab, -1, 0))
    got = np.hypot(lab[..., 1], lab[..., 2])
    assert np.all(got <= chroma + 0.02)
    along = (lab[..., 1] * ab[..., 0] + lab[..., 2] * ab[..., 1]) / np.maximum(chroma, 1)
    assert np.all(np.abs(along - got) < 0.05)
    untouched = color.lab_to_rgb(np.dstack([lightness, ab]).astype(np.float64))
    fits = ((untouched > 0) & (untouched < 1)).all(axis=-1)
    assert fits.mean() > 0.1
    np.testing.assert_allclose(rgb[fits], untouched[fits], atol=1e-3)


def test_colour_at_lightness_reaches_the_gamut_boundary():
    rgb = color.colour_at_lightness(np.full((1, 360), 60.0), _hues(360, 150.0)[None])
    edge = np.minimum(rgb.min(axis=-1), 1 - rgb.max(axis=-1))
    assert edge.max() < 0.02


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_colour_is_exactly_grey(dtype):
    lightness = np.linspace(-1, 101, 511, dtype=dtype).reshape(7, 73)
    rgb = color.colour_at_lightness(lightness, np.zeros((7, 73, 2), dtype))
    assert np.array_equal(rgb[..., 0], rgb[..., 1])
    assert np.array_equal(rgb[..., 0], rgb[..., 2])


@pytest.mark.parametrize("bit_depth", [0, 17])
def test_impossible_depth_is_refused(bit_depth):
    with pytest.raises(ValueError, match="bit depth"):
        color.lightness_table(bit_depth, True)


def _hues(count: int, chroma: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return chroma * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
