"""The prior of the pictures in use: what it is, and that few pictures do not make it extreme."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import scene, toned

from model.bins import Bins, frequent_bins, gamut_bins, rebalancing, smoothed_prior
from model.crops import random_crops
from model.data import Photos, in_memory
from model.prior import FLOOR, GENERAL, bin_counts, estimate_prior, floored, mapped_prior, shipped_prior, shrunk
from model.sources import SourceConfig
from model.spaces import yuv
from pipeline.color import rgb_to_lab

BINS = gamut_bins()


@pytest.fixture(scope="module")
def general() -> np.ndarray:
    return shipped_prior(BINS)


def flat(*colours: tuple[int, int, int]) -> Photos:
    return in_memory([np.full((64, 64, 3), colour, np.uint8) for colour in colours])


def test_counts_agree_with_a_plain_sum_over_cells() -> None:
    photos, indices = in_memory([scene(n) for n in range(4)]), np.arange(4)
    found = bin_counts(photos, indices, BINS, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    crops = random_crops(photos, rng.permutation(indices), 64, rng).numpy()
    ab = rgb_to_lab(crops / 255.0)[..., 1:].reshape(4, 16, 4, 16, 4, 2).mean((2, 4)).round().reshape(-1, 2)
    squared = ((ab[:, None] - BINS.centers[None].astype(np.float64)) ** 2).sum(-1)
    expected = np.zeros(len(BINS))
    for row in squared:
        near = np.argsort(row, kind="stable")[:5]
        weights = np.exp(-row[near] / 50)
        expected[near] += weights / weights.sum()
    # a cell on the border between two whole numbers may round either way in float32
    np.testing.assert_allclose(found.sum(), expected.sum())
    np.testing.assert_allclose(found, expected, atol=1.5)


def test_a_photograph_counts_as_often_as_it_is_drawn() -> None:
    photos = flat((230, 40, 40), (30, 60, 220))
    sources = (SourceConfig("a", weight=3.0), SourceConfig("b"))
    mixed = replace(photos, origins=np.array([0, 1]), sources=sources)
    one, other, both = (
        bin_counts(mixed, np.array(which), BINS, np.random.default_rng(0)) for which in ([0], [1], [0, 1])
    )
    np.testing.assert_allclose(both, 1.5 * one + 0.5 * other, rtol=1e-6)


def test_without_a_general_prior_it_is_the_smoothed_share() -> None:
    photos = in_memory([scene(n) for n in range(3)])
    counts = bin_counts(photos, np.arange(3), BINS, np.random.default_rng(0))
    np.testing.assert_allclose(estimate_prior(photos, np.arange(3), BINS), floored(smoothed_prior(counts, BINS)))


def test_shrinkage_follows_the_number_of_pictures() -> None:
    own, other = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    np.testing.assert_allclose(shrunk(own, other, GENERAL), (own + other) / 2)
    np.testing.assert_allclose(shrunk(own, other, 0), other)
    np.testing.assert_allclose(shrunk(own, other, 10**9), own, atol=1e-6)
    assert shrunk(own, other, 10).sum() == pytest.approx(1)


def test_the_floor_holds_and_the_sum_stays_one() -> None:
    prior = floored(np.array([0.6, 0.4, 0, 0]))
    assert prior.sum() == pytest.approx(1)
    np.testing.assert_allclose(prior[2:], FLOOR / 4 / (1 + 2 * FLOOR / 4))


@pytest.mark.parametrize("uniform", [0.5, 0.3, 0.0])
def test_ten_pictures_do_not_turn_everything_green_or_blue(general: np.ndarray, uniform: float) -> None:
    """Ten warm pictures: a naive prior gives the colours they lack a weight without bound."""
    warm = [toned(scene(n), (60, 30, 20), (250, 220, 180)) for n in range(10)]
    photos = in_memory(warm)
    counts = bin_counts(photos, np.arange(10), BINS, np.random.default_rng(0))
    naive = counts / counts.sum()
    assert (naive == 0).mean() > 0.5
    prior = estimate_prior(photos, np.arange(10), BINS, general)
    weights, usual = rebalancing(prior, uniform), rebalancing(general, uniform)
    cold = (BINS.centers[:, 0] < -20) | (BINS.centers[:, 1] < -20)
    assert weights[cold].max() < 4 * usual[cold].max()
    assert np.median(weights[cold] / usual[cold]) < 4
    assert prior.min() >= FLOOR / len(prior) / (1 + FLOOR)
    # what the pictures do say is heard: their own colours are commoner than in general
    own = counts > counts.max() / 4
    assert prior[own].sum() > 1.2 * general[own].sum()


def test_many_pictures_outweigh_the_general_prior(general: np.ndarray) -> None:
    photos = flat(*[(230, 40, 40)] * 400)
    red = BINS.nearest(rgb_to_lab(np.array([230, 40, 40]) / 255)[1:])
    prior = estimate_prior(photos, np.arange(400), BINS, general)
    near = np.hypot(*(BINS.centers - BINS.centers[red]).T) < 25
    assert prior[near].sum() > 0.9
    assert estimate_prior(photos, np.arange(2), BINS, general)[near].sum() < 0.2


def test_the_prior_is_of_the_pictures_asked_for() -> None:
    photos = flat((230, 40, 40), (30, 60, 220))
    red, blue = (estimate_prior(photos, np.array([i]), BINS) for i in range(2))
    assert BINS.centers[red.argmax(), 0] > 40
    assert BINS.centers[blue.argmax(), 1] < -40


def test_the_shipped_prior_is_mostly_near_grey(general: np.ndarray) -> None:
    assert general.shape == (len(BINS),)
    assert general.sum() == pytest.approx(1)
    chroma = np.hypot(*BINS.centers.T)
    assert general[chroma < 25].sum() > 0.7
    assert general[chroma > 60].sum() < 0.05


def test_a_prior_moves_to_the_nearest_bins() -> None:
    source = Bins("lab", np.array([[0, 0], [20, 0], [0, 50]], np.float32))
    target = Bins("lab", np.array([[0, 52], [3, 1], [90, 90]], np.float32))
    np.testing.assert_allclose(mapped_prior(np.array([1.0, 2, 1]), source, target), [0.25, 0.75, 0])


def test_a_prior_moves_from_ab_to_uv(general: np.ndarray) -> None:
    colours = np.concatenate([scene(n) for n in range(20)]).reshape(1, -1, 1, 3)
    chroma = yuv(torch.from_numpy(colours))[1][0, :, :, 0].T.numpy()
    bins = frequent_bins([chroma], n=32)
    prior = shipped_prior(bins)
    assert prior.sum() == pytest.approx(1)
    grey = int(bins.nearest(np.zeros(2)))
    assert prior.argmax() == grey
    red = mapped_prior(np.eye(len(BINS))[BINS.nearest(np.array([60.0, 40.0]))], BINS, bins)
    u, v = red @ bins.centers
    assert v > 25
    assert u < 0
    with pytest.raises(ValueError, match="lab"):
        mapped_prior(prior, bins, BINS)
