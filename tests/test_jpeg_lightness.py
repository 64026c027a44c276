"""Which luma codes show a lightness: against trying all 256 of them, as libjpeg's decoder computes colours."""

import numpy as np
import pytest

from pipeline.color import RGB_TO_XYZ, linear_to_srgb, srgb_to_linear
from pipeline.jpeg_lightness import Lightness, count, lowest

RNG = np.random.default_rng(6)


def greys_shown(cb, cr):
    """Grey of equal luminance, 0..255, of luma 0..255 with chroma (N,), as libjpeg-turbo's jdcolor.c: (256, N)."""
    luma, cb, cr = np.arange(256)[:, None], cb.astype(int) - 128, cr.astype(int) - 128
    factors = [round(factor * 65536) for factor in (1.402, -0.34414, -0.71414, 1.772)]
    red = luma + ((factors[0] * cr + 32768) >> 16)
    green = luma + ((factors[1] * cb + factors[2] * cr + 32768) >> 16)
    blue = luma + ((factors[3] * cb + 32768) >> 16)
    rgb = np.clip(np.stack([red, green, blue], axis=-1), 0, 255) / 255
    return linear_to_srgb(srgb_to_linear(rgb) @ RGB_TO_XYZ[1]) * 255


@pytest.mark.parametrize("kind", ["grey", "tinted"])
@pytest.mark.parametrize("reach", [20, 128])
def test_luma_codes_are_those_that_show_the_lightness_within_a_code(kind, reach):
    chroma = RNG.integers(128 - reach, 128 + reach, (2, 64, 40)).astype(np.int16)
    pixels = RNG.integers(0, 256, (64, 40) if kind == "grey" else (3, 64, 40)).astype(np.uint8)
    wanted = pixels
    if kind == "tinted":
        wanted = linear_to_srgb(srgb_to_linear(np.moveaxis(pixels, 0, -1) / 255) @ RGB_TO_XYZ[1]) * 255
    keys = Lightness.of(pixels).keys(chroma)
    off = np.abs(greys_shown(*chroma.reshape(2, -1)) - wanted.ravel())
    luma, first, number = np.arange(256)[:, None], lowest(keys).ravel(), count(keys).ravel()
    chosen = (luma >= first) & (luma < first + number)
    assert off[chosen].max() < 1.0002
    near, far = off < 1, off > 1.0002
    assert not (chosen & far).any()
    most = near.sum(axis=0)
    np.testing.assert_array_equal(number[most > 3], 3)
    assert (number[most <= 3] >= most[most <= 3]).all()
    assert (number.min(), number.max()) == (0, 3)


def test_some_blocks_are_as_among_all():
    chroma = RNG.integers(60, 200, (2, 64, 9)).astype(np.int16)
    lightness = Lightness.of(RNG.integers(0, 256, (3, 64, 9)).astype(np.uint8))
    some = np.array([7, 2])
    np.testing.assert_array_equal(lightness[some].keys(chroma[..., some]), lightness.keys(chroma)[:, some])
