"""The measures, against scikit-image, published values and their definitions in closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap
from skimage.color import deltaE_ciede2000
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from model.bins import gamut_bins
from model.measures import (
    ClassWeights,
    credit,
    delta_e_2000,
    interval,
    nearest_bins,
    resampling,
    ssim,
)
from pipeline.color import rgb_to_lab
from pipeline.quality import psnr

RNG = np.random.default_rng(0)
CENTERS = gamut_bins().centers

# Sharma, Wu, Dalal 2005, table 1: pairs that tell implementations apart (hue at 180°, across 0°, grey), and far ones
SHARMA = [
    ((50.0000, 2.6772, -79.7751), (50.0000, 0.0000, -82.7485), 2.0425),
    ((50.0000, 3.1571, -77.2803), (50.0000, 0.0000, -82.7485), 2.8615),
    ((50.0000, 0.0000, 0.0000), (50.0000, -1.0000, 2.0000), 2.3669),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0009), 7.1792),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0011), 7.2195),
    ((50.0000, 2.5000, 0.0000), (50.0000, 0.0000, -2.5000), 4.3065),
    ((50.0000, 2.5000, 0.0000), (73.0000, 25.0000, -18.0000), 27.1492),
    ((50.0000, 2.5000, 0.0000), (61.0000, -5.0000, 29.0000), 22.8977),
    ((50.0000, 2.5000, 0.0000), (56.0000, -27.0000, -3.0000), 31.9030),
    ((50.0000, 2.5000, 0.0000), (58.0000, 24.0000, 15.0000), 19.4535),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
]


def area(errors: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    return float(np.average(credit(errors), weights=weights))


def test_area_is_the_mean_of_what_is_left_below_the_limit() -> None:
    errors = RNG.gamma(2, 20, 10000)
    weights = RNG.random(10000)
    left = np.clip(1 - errors / 150, 0, None)  # the integral of a step at each error, in closed form
    assert area(errors) == pytest.approx(left.mean(), abs=0.5 / 150)
    assert area(errors, weights) == pytest.approx((left * weights).sum() / weights.sum(), abs=0.5 / 150)


@pytest.mark.parametrize(
    ("error", "expected"), [(0.0, 1.0), (0.3, 149.5 / 150), (150.0, 0.5 / 150), (151.0, 0.0), (1e9, 0)]
)
def test_area_at_its_ends(error: float, expected: float) -> None:
    assert area(np.full((3, 4), error)) == pytest.approx(expected)


def test_area_is_the_trapezoid_over_the_cumulative_curve_at_151_thresholds() -> None:
    errors, weights = RNG.gamma(2, 30, (20, 25)), RNG.random((20, 25))
    curve = [weights[errors <= t].sum() / weights.sum() for t in range(151)]
    trapezoid = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 150
    assert area(errors, weights) == pytest.approx(trapezoid)


def test_rebalanced_area_by_hand() -> None:
    weights = ClassWeights(np.array([[0.0, 0], [100, 0]]), np.array([0.9, 0.1]))
    true = np.array([[10.0, 0]] * 9 + [[90.0, 0]])  # nine pixels of the common bin, one of the rare
    errors = np.array([0.0] * 9 + [75.0])
    assert area(errors) == pytest.approx((9 + 75.5 / 150) / 10)
    assert area(errors, weights(true)) == pytest.approx((1 + 75.5 / 150) / 2)  # each bin half of the weight


def test_class_weight_is_the_inverse_prior_of_the_nearest_bin() -> None:
    prior = RNG.random(len(CENTERS)) + 0.01
    ab = rgb_to_lab(RNG.random((150, 140, 3)))[..., 1:]  # more than are computed at once
    distances = ((ab[:3, :, None] - CENTERS) ** 2).sum(-1)
    np.testing.assert_allclose(ClassWeights(CENTERS, prior)(ab)[:3], 1 / prior[distances.argmin(-1)])
    assert nearest_bins(ab, CENTERS).shape == (150, 140)
    np.testing.assert_array_equal(nearest_bins(CENTERS, CENTERS), np.arange(len(CENTERS)))


def test_a_prior_must_be_above_zero_and_of_the_bins() -> None:
    with pytest.raises(ValueError, match="above 0"):
        ClassWeights(CENTERS[:2], np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="above 0"):
        ClassWeights(CENTERS[:3], np.array([0.5, 0.5]))


@pytest.mark.parametrize(("one", "two", "expected"), SHARMA)
def test_ciede2000_is_as_published(one: tuple[float, ...], two: tuple[float, ...], expected: float) -> None:
    assert delta_e_2000(np.array(one), np.array(two)) == pytest.approx(expected, abs=1e-4)
    assert delta_e_2000(np.array(two), np.array(one)) == pytest.approx(expected, abs=1e-4)


def test_ciede2000_agrees_with_scikit_image() -> None:
    one, two = (RNG.uniform((0, -110, -110), (100, 110, 110), (2000, 3)) for _ in range(2))
    one[:50, 1:] = 0
    two[25:75, 1:] = 0
    expected = deltaE_ciede2000(one, two)
    np.testing.assert_allclose(delta_e_2000(one, two), expected, atol=1e-9)
    np.testing.assert_allclose(delta_e_2000(one.astype(np.float32), two.astype(np.float32)), expected, atol=0.02)
    np.testing.assert_array_equal(delta_e_2000(one, one), 0)


def test_ssim_agrees_with_scikit_image() -> None:
    one = RNG.random((40, 53, 3))
    two = np.clip(one + RNG.normal(0, 0.2, one.shape), 0, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(one, two, data_range=1.0, channel_axis=-1, **settings)
    assert ssim(one, two) == pytest.approx(expected, abs=1e-9)
    assert ssim(one.astype(np.float32), two.astype(np.float32)) == pytest.approx(expected, abs=1e-5)
    assert ssim(255 * one, 255 * two, peak=255) == pytest.approx(expected, abs=1e-9)
    assert ssim(one, one) == pytest.approx(1)


def test_ssim_says_what_it_expects() -> None:
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(np.zeros((10, 40, 3)), np.zeros((10, 40, 3)))


def test_psnr_agrees_with_scikit_image() -> None:
    one, two = RNG.random((20, 30, 3)), RNG.random((20, 30, 3))
    assert psnr(one, two, 1.0) == pytest.approx(peak_signal_noise_ratio(one, two, data_range=1.0))


def test_resampling_counts_a_unit_once_then_about_once_on_average() -> None:
    counts = np.stack([resampling(f"{i}.jpg", 400) for i in range(400)])
    assert (counts[:, 0] == 1).all()
    assert counts[:, 1:].mean() == pytest.approx(1, abs=0.01)
    assert counts[:, 1:].var() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(resampling("a", 50), resampling("a", 50))
    assert (resampling("a", 50) != resampling("b", 50)).any()


def test_interval_agrees_with_scipys_bootstrap() -> None:
    sample = RNG.gamma(2, 3, 300)
    counts = np.stack([resampling(str(i), 2000) for i in range(300)])
    found = interval((counts * sample[:, None]).sum(0) / counts.sum(0))
    expected = bootstrap((sample,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert found.value == pytest.approx(sample.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.06)


def test_interval_of_an_estimate_alone_is_open_and_empty_replicates_are_left_out() -> None:
    assert interval(np.array([3.0])).low is None
    assert interval(np.array([3.0, np.nan, 2.0, 4.0])).high == pytest.approx(3.95)
