"""Colour spaces on batches, against scikit-image and the pipeline's own arithmetic in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from model.spaces import UNIT, checked_space, grey_lightness, grey_luma, lab, linear_light, rgb_to_space, to_ab, yuv
from pipeline.color import rgb_to_ycbcr

RNG = np.random.default_rng(0)
CORNERS = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8)
PICTURES = np.concatenate([RNG.integers(0, 256, (92, 3), dtype=np.uint8), CORNERS]).reshape(2, 5, 10, 3)
RGB = torch.from_numpy(PICTURES)


def last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).double().numpy()


def test_lab_is_that_of_scikit_image() -> None:
    expected = rgb2lab(PICTURES / 255)
    lightness, ab = rgb_to_space("lab", RGB)
    np.testing.assert_allclose(last(lightness)[..., 0], expected[..., 0], atol=2e-3)
    np.testing.assert_allclose(last(ab), expected[..., 1:], atol=5e-3)


def test_yuv_is_full_range_bt601_about_its_neutral() -> None:
    y, cb, cr = rgb_to_ycbcr(PICTURES / 255, "bt601", full_range=True, bit_depth=8)
    luma, chroma = yuv(RGB)
    np.testing.assert_allclose(last(luma)[..., 0], y / 255, atol=1e-6)
    np.testing.assert_allclose(last(chroma), np.stack([cb - 128, cr - 128], axis=-1), atol=1e-4)


def test_beside_yuv_the_lightness_is_that_of_the_grey_with_its_luma() -> None:
    y, _, _ = rgb_to_ycbcr(PICTURES / 255, "bt601", full_range=True, bit_depth=8)
    lightness, chroma = rgb_to_space("yuv", RGB)
    np.testing.assert_allclose(
        last(lightness)[..., 0], rgb2lab(np.repeat(y[..., None] / 255, 3, -1))[..., 0], atol=2e-3
    )
    assert torch.equal(chroma, yuv(RGB)[1])


@pytest.mark.parametrize("space", ["lab", "yuv"])
def test_true_chroma_becomes_true_ab_and_stays_within_the_unit(space: str) -> None:
    """Of yuv only where Y' came back exactly; where Y' is all but 0 or 1, rounding it leaves no room for colour."""
    lightness, chroma = rgb_to_space(checked_space(space), RGB)
    assert chroma.abs().max() <= UNIT[space]
    np.testing.assert_allclose(
        last(to_ab(checked_space(space), lightness, chroma)), rgb2lab(PICTURES / 255)[..., 1:], atol=0.05
    )


def test_luma_and_lightness_of_a_grey_are_inverse() -> None:
    luma = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(grey_luma(grey_lightness(luma)), luma, atol=1e-5, rtol=0)
    torch.testing.assert_close(grey_luma(torch.tensor([-5.0, 120.0])), torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)


def test_chroma_out_of_gamut_is_drawn_to_grey_along_its_hue() -> None:
    """At Y' = 1/2 the most of U is where B' = 1: 255 · 0.5 / 1.772; at black and white there is none."""
    lightness = grey_lightness(torch.tensor([0.5, 0.5, 0.0, 1.0])).reshape(1, 1, 1, 4)
    chroma = torch.tensor([[500.0, 255 * 0.5 / 1.772, 90, 90], [0, 0, 20, 20]]).reshape(1, 2, 1, 4)
    ab = to_ab("yuv", lightness, chroma)
    torch.testing.assert_close(ab[..., 0], ab[..., 1], atol=1e-3, rtol=0)
    green = 0.5 - 0.114 / 0.587 * 0.5
    np.testing.assert_allclose(last(ab)[0, 0, 0], rgb2lab(np.array([[[0.5, green, 1.0]]]))[0, 0, 1:], atol=0.02)
    assert ab[..., 2:].abs().max() < 0.05


def test_grey_has_no_colour_and_gradients_are_finite_everywhere() -> None:
    lightness = torch.linspace(-1, 101, 300).reshape(1, 1, 1, 300)
    chroma = torch.zeros(1, 2, 1, 300).requires_grad_()
    ab = to_ab("yuv", lightness, chroma)
    assert ab.abs().max() < 0.02
    ab.sum().backward()
    assert chroma.grad is not None
    assert torch.isfinite(chroma.grad).all()


def test_linear_light_in_float64_agrees_with_the_table() -> None:
    code = np.arange(256) / 255
    expected = np.where(code > 0.04045, ((code + 0.055) / 1.055) ** 2.4, code / 12.92)
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256, 1).expand(1, 1, 256, 3)
    np.testing.assert_allclose(last(linear_light(ramp))[0, 0, :, 1], expected, rtol=1e-6)
    assert lab(linear_light(ramp).double())[1].abs().max() < 0.02


def test_a_space_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="lab, yuv, got cmyk"):
        checked_space("cmyk")
