"""The measures, each against its definition in closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from model.bins import gamut_bins
from model.evaluate import BorrowedColour, all_grey, area_under_curve, class_weights, coloured, evaluate
from pipeline.color import rgb_to_lab

RNG = np.random.default_rng(0)
BINS = gamut_bins()
UNIFORM = np.full(len(BINS), 1 / len(BINS))


def test_area_is_the_mean_of_what_is_left_below_the_limit() -> None:
    errors = RNG.gamma(2, 20, 10000)
    weights = RNG.random(10000)
    left = np.clip(1 - errors / 150, 0, None)  # the integral of a step at each error, in closed form
    assert area_under_curve(errors) == pytest.approx(left.mean(), abs=0.5 / 150)
    assert area_under_curve(errors, weights) == pytest.approx((left * weights).sum() / weights.sum(), abs=0.5 / 150)


@pytest.mark.parametrize(("error", "area"), [(0.0, 1.0), (150.0, 0.5 / 150), (151.0, 0.0), (1e9, 0.0)])
def test_area_at_its_ends(error: float, area: float) -> None:
    assert area_under_curve(np.full((3, 4), error)) == pytest.approx(area)


def test_area_of_whole_errors_is_the_trapezoid_over_151_thresholds() -> None:
    errors = RNG.integers(0, 200, 500).astype(float)
    curve = [(errors <= t).mean() for t in range(151)]
    trapezoid = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 150
    assert area_under_curve(errors) == pytest.approx(trapezoid)


def test_class_weight_is_the_inverse_prior_of_the_nearest_bin() -> None:
    prior = RNG.random(len(BINS)) + 0.01
    ab = rgb_to_lab(RNG.random((200, 3)))[:, 1:]
    nearest = ((ab[:, None] - BINS[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_allclose(class_weights(ab, BINS, prior), 1 / prior[nearest])


def test_the_truth_scores_a_hundred_and_grey_does_not() -> None:
    picture = np.empty((64, 64, 3), np.uint8)
    picture[:] = (180, 90, 60)
    ab = rgb_to_lab(picture[0, 0] / 255)[1:]

    def truth(lightness: np.ndarray) -> np.ndarray:
        n, _, h, w = lightness.shape
        return np.broadcast_to(ab[None, :, None, None], (n, 2, h // 4, w // 4)).astype(np.float32)

    best = evaluate(truth, [picture], BINS, UNIFORM, area=64 * 64)
    assert best.auc == pytest.approx(100, abs=0.4)
    assert best.auc_rebalanced == pytest.approx(best.auc)
    assert best.psnr > 60
    assert best.chroma == pytest.approx(best.chroma_true, rel=1e-4)
    assert best.colourfulness == pytest.approx(best.colourfulness_true, rel=1e-2)
    grey = evaluate(all_grey, [picture], BINS, UNIFORM, area=64 * 64)
    assert grey.auc == pytest.approx(100 * (1 - np.hypot(*ab) / 150), abs=0.4)
    assert grey.chroma == 0
    assert grey.colourfulness == pytest.approx(0, abs=0.02)
    assert grey.psnr < 25


def test_rebalancing_raises_what_rare_colours_weigh() -> None:
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[:, :8] = (220, 30, 30)  # an eighth is red
    prior = np.where(np.abs(BINS).max(1) < 15, 0.1, 1e-4)
    grey = evaluate(all_grey, [picture], BINS, prior, area=64 * 64)
    assert grey.auc > 90
    assert grey.auc_rebalanced < 60


def test_borrowed_colour_is_another_pictures_at_a_quarter() -> None:
    donor = np.full((30, 50, 3), (10, 120, 200), np.uint8)
    ab = BorrowedColour([donor])(np.zeros((2, 1, 64, 96), np.float32))
    assert ab.shape == (2, 2, 16, 24)
    np.testing.assert_allclose(ab[1, :, 5, 5], rgb_to_lab(donor[0, 0] / 255)[1:], atol=1e-3)


def test_colour_is_enlarged_to_the_lightness() -> None:
    assert coloured(all_grey, np.zeros((32, 64))).shape == (32, 64, 2)
