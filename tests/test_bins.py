"""Bins, soft codes, prior, rebalancing and annealed mean, each against its equation written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from model.bins import (
    LIMIT,
    Bins,
    annealed_mean,
    frequent_bins,
    gamut_bins,
    no_bins,
    prior_shift,
    rebalancing,
    smoothed_prior,
)
from pipeline.errors import InputError

RNG = np.random.default_rng(0)
BINS = gamut_bins()
CENTERS = BINS.centers.astype(np.float64)
CODES = BINS.soft_codes()


def random_prior() -> np.ndarray:
    return smoothed_prior(RNG.random(len(BINS)) ** 8 * 1000, BINS)


def test_bins_are_the_papers_313_the_corners_of_the_cells_that_srgb_reaches_and_four_more() -> None:
    level = np.linspace(0, 1, 52)  # inside of the cube, every fifth code
    cube = np.stack(np.meshgrid(level, level, level), axis=-1).reshape(-1, 1, 3)
    cells = np.unique(np.floor(rgb2lab(cube)[:, 0, 1:] / 10).astype(int), axis=0)
    corners = {(10 * (a + i), 10 * (b + j)) for a, b in cells for i in (0, 1) for j in (0, 1)}
    bins = {(int(a), int(b)) for a, b in BINS.centers}
    assert len(bins) == len(BINS) == 313
    more = {(40, 90), (100, -90), (100, -10), (100, 0)}
    assert more <= bins
    assert not more & corners
    reached = bins - more
    assert len(reached) == 309
    assert corners <= reached
    assert len(reached - corners) <= 8  # cells that only codes between every fifth reach
    assert [tuple(b) for b in BINS.centers] == sorted(tuple(b) for b in BINS.centers)
    assert BINS.space == "lab"


def test_a_finer_grid_has_no_published_table() -> None:
    fine = gamut_bins(grid=5)
    assert len(fine) > 900
    assert (100.0, 0.0) not in {tuple(b) for b in fine.centers}


def test_frequent_bins_are_the_cells_that_most_pixels_round_to() -> None:
    parts = [RNG.normal(0, 30, (5, 40, 2)).clip(-127.5, 127.5) for _ in range(20)]
    counts: dict[tuple[int, int], int] = {}
    for u, v in np.concatenate([p.reshape(-1, 2) for p in parts]):
        cell = (10 * round(u / 10), 10 * round(v / 10))
        counts[cell] = counts.get(cell, 0) + 1
    found = frequent_bins(iter(parts), 32)
    assert (found.space, len(found)) == ("yuv", 32)
    chosen = {(int(u), int(v)) for u, v in found.centers}
    assert min(counts[c] for c in chosen) >= max(n for c, n in counts.items() if c not in chosen)
    assert [tuple(c) for c in found.centers] == sorted(tuple(c) for c in found.centers)


def test_of_cells_equally_frequent_those_nearer_grey_are_bins() -> None:
    found = frequent_bins([np.array([[90.0, 0], [10, 0], [0, -20]])], 2)
    assert found.centers.tolist() == [[0, -20], [10, 0]]


def test_data_of_too_few_colours_gives_no_bins() -> None:
    with pytest.raises(InputError, match="fall into 1 cells of yuv, expected at least 32"):
        frequent_bins([np.zeros((9, 9, 2))])


@pytest.mark.parametrize("wrong", [np.zeros((3, 3)), np.zeros(2), np.full((1, 2), np.nan), np.full((1, 2), 200.0)])
def test_what_are_no_centres_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected centres"):
        Bins("lab", wrong)


def test_nearest_bin_is_the_nearest_of_all() -> None:
    colours = RNG.integers(-140, 141, (30, 7, 2))
    squared = ((np.clip(colours, -LIMIT, LIMIT)[..., None, :] - CENTERS) ** 2).sum(-1)
    np.testing.assert_array_equal(BINS.nearest(colours + 0.3), squared.argmin(-1))


def test_few_bins_share_among_all_of_them() -> None:
    pair = Bins("yuv", np.array([[0, 0], [6, 0]]))
    indices, shares = pair.soft_codes()(torch.tensor([2.0, 0]).reshape(1, 2, 1, 1))
    gaussians = np.exp(-np.array([4, 16]) / 50)
    assert indices.flatten().tolist() == [0, 1]
    np.testing.assert_allclose(shares.flatten(), gaussians / gaussians.sum(), atol=1e-6)
    assert len(no_bins()) == 0


def test_every_colour_lies_within_its_five_bins_reach() -> None:
    ab = rgb2lab(RNG.random((1, 4000, 3)))[0, :, 1:]
    indices, _ = CODES(torch.from_numpy(ab.T[None, :, :, None]))
    distance = np.linalg.norm(BINS.centers[indices[0, :, 0].numpy()] - ab[:, None], axis=-1)
    assert distance[:, 0].max() <= np.hypot(5, 5) + np.hypot(0.5, 0.5)


def test_soft_code_is_a_gaussian_over_the_five_nearest_bins() -> None:
    ab = RNG.integers(-80, 81, (50, 2))
    indices, shares = CODES(torch.from_numpy(ab.T[None, :, :, None].astype(np.float32)))
    for colour, picked, share in zip(ab, indices[0, :, 0].numpy(), shares[0, :, 0].numpy(), strict=True):
        squared = ((CENTERS - colour) ** 2).sum(1)
        nearest = np.sort(squared)[:5]
        np.testing.assert_allclose(np.sort(squared[picked]), nearest)
        gaussian = np.exp(-squared[picked] / (2 * 5.0**2))
        np.testing.assert_allclose(share, gaussian / gaussian.sum(), atol=1e-6)
        assert squared[picked[0]] == nearest[0]


def test_soft_codes_hold_for_colours_outside_the_table() -> None:
    indices, shares = CODES(torch.tensor([1e6, -1e6]).reshape(1, 2, 1, 1))
    edge = CODES(torch.tensor([float(LIMIT), -float(LIMIT)]).reshape(1, 2, 1, 1))
    assert torch.equal(indices, edge[0])
    assert torch.isfinite(shares).all()


def test_prior_is_smoothed_by_a_normalised_gaussian() -> None:
    counts = RNG.random(len(BINS)) ** 6
    expected = np.zeros(len(BINS))
    for source, count in zip(CENTERS, counts / counts.sum(), strict=True):
        kernel = np.exp(-((CENTERS - source) ** 2).sum(1) / (2 * 5.0**2))
        expected += count * kernel / kernel.sum()
    found = smoothed_prior(counts, BINS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.7, 1.0])
def test_rebalancing_is_equation_4(uniform: float) -> None:
    prior = random_prior()
    w = rebalancing(prior, uniform)
    mixed = (1 - uniform) * prior + uniform / len(prior)
    np.testing.assert_allclose(w * mixed, (w * mixed)[0])  # inversely proportional
    assert (prior * w).sum() == pytest.approx(1)


def test_capped_weights_keep_their_order_and_mean() -> None:
    prior = random_prior()
    free, capped = rebalancing(prior), rebalancing(prior, cap=1.2)
    expected = np.minimum(free, 1.2)
    np.testing.assert_allclose(capped, expected / (prior * expected).sum())
    assert (prior * capped).sum() == pytest.approx(1)
    assert capped.max() / capped.min() < free.max() / free.min()
    np.testing.assert_allclose(rebalancing(prior, cap=1e9), free)


def test_taking_the_rebalancing_back_returns_the_distribution() -> None:
    prior = random_prior()
    w = rebalancing(prior)
    logits = np.log(prior * w)
    for share, expected in ((0.0, prior * w), (0.5, prior * np.sqrt(w)), (1.0, prior)):
        shifted = np.exp(logits + prior_shift(w, share))
        np.testing.assert_allclose(shifted / shifted.sum(), expected / expected.sum(), rtol=1e-9)


@pytest.mark.parametrize("temperature", [0.05, 0.38, 1.0, 5.0])
def test_annealed_mean_is_equation_5(temperature: float) -> None:
    logits = RNG.normal(0, 3, (2, len(BINS), 3, 4))
    z = np.exp(logits)
    z /= z.sum(1, keepdims=True)
    f = np.exp(np.log(z) / temperature)
    f /= f.sum(1, keepdims=True)
    expected = np.einsum("nqhw,qc->nchw", f, CENTERS)
    found = annealed_mean(torch.from_numpy(logits).float(), torch.from_numpy(BINS.centers), temperature)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_annealed_mean_of_a_cold_distribution_is_its_mode() -> None:
    logits = torch.zeros(1, len(BINS), 1, 1)
    logits[0, 200] = 1
    found = annealed_mean(logits, torch.from_numpy(BINS.centers), 0.01).flatten().numpy()
    np.testing.assert_allclose(found, CENTERS[200], atol=1e-3)
