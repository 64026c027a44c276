"""Chroma planes against a float64 evaluation of their definition, at edges, under grain, and at every size."""

import cv2
import numpy as np
import pytest

from pipeline import chroma, color
from pipeline.chroma import (
    ChromaLayout,
    chroma_planes,
    chroma_size,
    conversion,
    guided_bands,
    guided_upsample,
    luma_at_sites,
)
from pipeline.frames import Matrix

MATRICES: list[Matrix] = ["bt601", "bt709", "bt2020", "smpte240m", "fcc"]
LAYOUTS = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}


def layout(subsampling=(1, 1), depth=8, matrix: Matrix = "bt709", full_range=False) -> ChromaLayout:
    return ChromaLayout(matrix, full_range, depth, subsampling)


def reference(luma, a, b, matrix, full_range, depth):
    """The definition in the module's docstring, in float64 and without tables."""
    kr, kb = color.KR_KB[matrix]
    grey = np.clip(color.expand_luma(luma, full_range, depth), 0, 1)
    lightness = color.rgb_to_lab(np.repeat(grey[..., None], 3, axis=-1))[..., 0]
    linear = np.clip(color.linear_at_lightness(lightness, np.stack([a, b], axis=-1).astype(float)), -1, 3)
    encoded = np.sign(linear) * color.linear_to_srgb(np.abs(linear))
    difference = encoded - (encoded @ np.array([kr, 1 - kr - kb, kb]))[..., None]
    room = np.where(difference > 0, 1 - grey[..., None], grey[..., None])
    share = np.minimum(1, np.min(room / np.maximum(np.abs(difference), 1e-12), axis=-1))
    zero, span = color.chroma_range(full_range, depth)
    difference *= share[..., None]
    cb, cr = zero + span * difference[..., 2] / (2 * (1 - kb)), zero + span * difference[..., 0] / (2 * (1 - kr))
    return cb, cr, share < 1


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("depth", [8, 10, 16])
def test_conversion_agrees_with_the_definition_and_stays_inside_rgb(matrix, full_range, depth):
    rng = np.random.default_rng(depth)
    tables = conversion(matrix, full_range, depth)
    luma = rng.integers(0, 1 << depth, (120, 170)).astype(np.uint8 if depth == 8 else np.uint16)
    a, b = rng.uniform(-110, 110, (2, 120, 170)).astype(np.float32)
    cb, cr, pulled = tables.codes(luma, a, b)
    want_cb, want_cr, want_pulled = reference(luma, a, b, matrix, full_range, depth)
    code = 1 << (depth - 8)
    assert max(np.abs(cb - want_cb).max(), np.abs(cr - want_cr).max()) <= (1 if depth == 8 else 0.5 * code)
    assert abs(pulled - want_pulled.sum()) <= 0.001 * luma.size
    black, span = color.luma_range(full_range, depth)
    rgb = color.ycbcr_to_rgb(np.clip(luma, black, black + span), cb, cr, matrix, full_range, depth)
    slack = (0.5 * 2 + 0.2 * code) / color.chroma_range(full_range, depth)[1]
    assert rgb.min() >= -slack
    assert rgb.max() <= 1 + slack


def test_colour_comes_back_with_its_hue_and_chroma():
    rng = np.random.default_rng(2)
    luma = rng.integers(70 << 8, 190 << 8, (50, 60)).astype(np.uint16)
    angle = rng.uniform(0, 2 * np.pi, luma.shape)
    a, b = (20 * np.stack([np.cos(angle), np.sin(angle)])).astype(np.float32)
    cb, cr, pulled = conversion("bt709", False, 16).codes(luma, a, b)
    lab = color.rgb_to_lab(color.ycbcr_to_rgb(luma, cb, cr, "bt709", False, 16))
    assert pulled == 0
    assert np.hypot(lab[..., 1] - a, lab[..., 2] - b).max() < 0.8
    turned = np.angle((lab[..., 1] + 1j * lab[..., 2]) / (a + 1j * b), deg=True)
    assert np.abs(turned).max() < 2


@pytest.mark.parametrize("depth", range(8, 17))
@pytest.mark.parametrize("full_range", [False, True])
def test_no_colour_is_exactly_neutral(depth, full_range):
    codes = np.arange(1 << depth).astype(np.uint8 if depth == 8 else np.uint16).reshape(16, -1)
    for matrix in MATRICES:
        cb, cr, pulled = chroma_planes(
            np.zeros((2, 3, 5), np.float32), codes, layout((0, 0), depth, matrix, full_range)
        )
        assert np.all(cb == 1 << (depth - 1))
        assert np.all(cr == 1 << (depth - 1))
        assert pulled == 0


@pytest.mark.parametrize("subsampling", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 7), (9, 1), (3, 5), (33, 65), (64, 64), (145, 97)])
@pytest.mark.parametrize("depth", [8, 10])
def test_every_size_and_subsampling(size, subsampling, depth):
    rng = np.random.default_rng(1)
    luma = rng.integers(64, 200, size).astype(np.uint8 if depth == 8 else np.uint16) << (depth - 8)
    ab = np.full((2, 16, 24), 12, np.float32)
    cb, cr, _ = chroma_planes(ab, luma, layout(subsampling, depth))
    expected = -(-size[0] // 2 ** subsampling[1]), -(-size[1] // 2 ** subsampling[0])
    assert cb.shape == cr.shape == expected == chroma_size(*size, subsampling)
    assert cb.dtype == cr.dtype == luma.dtype
    want = reference(
        luma_at_sites(luma, subsampling), np.full(expected, 12.0), np.full(expected, 12.0), "bt709", 0, depth
    )
    assert np.abs(np.stack([cb, cr]) - np.stack(want[:2])).max() <= 1 << (depth - 8)


@pytest.mark.parametrize("subsampling", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("width", [64, 63, 61])
def test_luma_is_averaged_at_the_chroma_site(subsampling, width):
    """On a ramp, a mean equals the ramp at the mean's centre: column 0 of the block, middle of its rows."""
    horizontal, vertical = subsampling
    columns, rows = np.arange(width) * 3, np.arange(48) * 1
    luma = (columns[None] + rows[:, None]).astype(np.uint8)
    got = luma_at_sites(luma, subsampling)
    x = 3 * (np.arange(got.shape[1]) << horizontal)
    y = (np.arange(got.shape[0]) << vertical) + ((1 << vertical) - 1) / 2
    np.testing.assert_allclose(got[1:-1, 1:-1], (x[None] + y[:, None])[1:-1, 1:-1], atol=1)


def test_one_field_at_a_time_does_not_mix_fields():
    """Fields are given as strided views; each gets the chroma of a picture of that field alone."""
    rng = np.random.default_rng(3)
    frame = rng.integers(30, 220, (64, 80)).astype(np.uint8)
    ab = rng.uniform(-40, 40, (2, 8, 10)).astype(np.float32)
    for first in (0, 1):
        field = chroma_planes(ab, frame[first::2], layout())
        alone = chroma_planes(ab, frame[first::2].copy(), layout())
        assert np.array_equal(field[0], alone[0])
        assert np.array_equal(field[1], alone[1])


def edge_case(noise=0.0):
    """A red disc on a bright grey ground, 512×512, and its ab as a network would give it, 32×32."""
    y, x = np.mgrid[:512, :512]
    inside = np.hypot(x - 250.3, y - 243.7) < 140
    rng = np.random.default_rng(4)
    luma = np.clip(np.where(inside, 80, 170) + rng.normal(0, noise, inside.shape), 0, 255).astype(np.uint8)
    coarse = inside.reshape(32, 16, 32, 16).mean(axis=(1, 3))
    ab = np.stack([50 * coarse, 30 * coarse]).astype(np.float32)
    return luma, ab, inside


def test_colour_keeps_to_edges():
    luma, ab, inside = edge_case()
    sites = luma_at_sites(luma, (1, 1))
    truth = 50.0 * inside[::2, ::2]
    guided, _ = guided_upsample(ab, sites, 8)
    plain, _ = guided_upsample(ab, np.full_like(sites, 128), 8)
    bleeding, unguided = np.abs(guided - truth), np.abs(plain - truth)
    assert bleeding.mean() < 0.45 * unguided.mean()
    # Outside by 4 to 8 chroma samples, where the eye sees a halo:
    y, x = np.mgrid[:256, :256]
    distance = np.hypot(x - 125.15, y - 121.85) - 70
    halo = (distance > 3) & (distance < 8)
    assert bleeding[halo].mean() < 0.35 * unguided[halo].mean()


@pytest.mark.parametrize("shape", [(240, 180), (37, 53), (1, 300), (300, 1), (1, 1)])
@pytest.mark.parametrize("rows", [1, 7])
def test_bands_are_what_the_whole_is(monkeypatch, shape, rows):
    rng = np.random.default_rng(3)
    luma = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.uint8), (5, 5), 0)
    ab = rng.normal(0, 20, (2, 12, 16)).astype(np.float32)
    whole = np.stack(guided_upsample(ab, luma, 8))
    monkeypatch.setattr(chroma, "_BAND", rows * shape[1])
    bands = list(guided_bands(ab, luma, 8))
    assert [band[0].start for band in bands] == list(range(0, shape[0], rows))
    found = [np.concatenate(planes) for planes in zip(*(band[1:] for band in bands), strict=True)]
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_colour_never_leaves_the_range_around_it():
    """A glint and a black line, brighter and darker than all cells around, must not get colours of their own."""
    luma, ab, _ = edge_case()
    luma[:, 250:254] = 0
    luma[200:204] = 255
    a, b = guided_upsample(ab, luma_at_sites(luma, (1, 1)), 8)
    assert 0 <= a.min() < a.max() <= 50
    assert 0 <= b.min() < b.max() <= 30


def test_grain_in_luma_adds_little_to_chroma():
    a, _ = guided_upsample(edge_case()[1], luma_at_sites(edge_case()[0], (1, 1)), 8)
    grainy, ab, _ = edge_case(noise=8)
    a_grainy, _ = guided_upsample(ab, luma_at_sites(grainy, (1, 1)), 8)
    added = a_grainy - a
    assert np.sqrt(np.mean(added**2)) < 0.6
    y, x = np.mgrid[:256, :256]
    flat = np.abs(np.hypot(x - 125.15, y - 121.85) - 70) > 30  # beyond the cells that the edge crosses
    assert added[flat].std() < 0.1


def test_uniform_colour_is_not_textured_by_luma():
    rng = np.random.default_rng(6)
    luma = rng.integers(0, 256, (90, 120)).astype(np.uint8)
    a, b = guided_upsample(np.full((2, 12, 16), 25, np.float32), luma, 8)
    np.testing.assert_allclose(np.stack([a, b]), 25, atol=1e-3)


def test_deeper_luma_gives_the_same_picture():
    luma, ab, _ = edge_case()
    coarse = chroma_planes(ab, luma, layout())
    fine = chroma_planes(ab, luma.astype(np.uint16) << 4, layout(depth=12))
    for eight, twelve in zip(coarse[:2], fine[:2], strict=True):
        assert np.abs(eight - twelve / 16.0).max() <= 1.25  # each rounds luma at the site for itself
        assert len(np.unique(twelve)) > 3 * len(np.unique(eight))


@pytest.mark.parametrize(
    ("ab", "luma", "depth", "message"),
    [
        (np.zeros((1, 4, 4), np.float32), np.zeros((8, 8), np.uint8), 8, "ab.shape"),
        (np.zeros((2, 4, 4)), np.zeros((8, 8), np.uint8), 8, "ab.dtype"),
        (np.zeros((2, 4, 4), np.float32), np.zeros((8, 8), np.uint16), 8, "luma.dtype"),
        (np.zeros((2, 4, 4), np.float32), np.zeros((1, 8, 8), np.uint16), 10, "luma.shape"),
    ],
)
def test_wrong_arrays_are_named(ab, luma, depth, message):
    with pytest.raises(ValueError, match=message):
        chroma_planes(ab, luma, layout(depth=depth))


def test_wrong_layouts_are_named():
    with pytest.raises(ValueError, match="bit_depth"):
        layout(depth=7)
    with pytest.raises(ValueError, match="subsampling"):
        layout((3, 0))
