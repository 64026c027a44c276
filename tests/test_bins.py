"""Bins, soft codes, prior, rebalancing, annealed mean and loss, each against its equation written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from model.bins import (
    LIMIT,
    annealed_mean,
    gamut_bins,
    prior_shift,
    rebalancing,
    smoothed_prior,
    soft_codes,
)
from model.losses import classification_loss

RNG = np.random.default_rng(0)
BINS = gamut_bins()
CODES = soft_codes(BINS)


def random_prior() -> np.ndarray:
    return smoothed_prior(RNG.random(len(BINS)) ** 8 * 1000, BINS)


def test_bins_are_the_corners_of_the_cells_that_srgb_reaches() -> None:
    level = np.linspace(0, 1, 52)  # inside of the cube, every fifth code
    cube = np.stack(np.meshgrid(level, level, level), axis=-1).reshape(-1, 1, 3)
    cells = np.unique(np.floor(rgb2lab(cube)[:, 0, 1:] / 10).astype(int), axis=0)
    corners = {(10 * (a + i), 10 * (b + j)) for a, b in cells for i in (0, 1) for j in (0, 1)}
    bins = {(int(a), int(b)) for a, b in BINS}
    assert corners <= bins
    assert len(bins) == len(BINS) == 309
    assert len(bins - corners) <= 8  # cells that only codes between every fifth reach
    assert [tuple(b) for b in BINS] == sorted(tuple(b) for b in BINS)


def test_every_colour_lies_within_its_five_bins_reach() -> None:
    ab = rgb2lab(RNG.random((1, 4000, 3)))[0, :, 1:]
    indices, _ = CODES(torch.from_numpy(ab.T[None, :, :, None]))
    distance = np.linalg.norm(BINS[indices[0, :, 0].numpy()] - ab[:, None], axis=-1)
    assert distance[:, 0].max() <= np.hypot(5, 5) + np.hypot(0.5, 0.5)


def test_soft_code_is_a_gaussian_over_the_five_nearest_bins() -> None:
    ab = RNG.integers(-80, 81, (50, 2))
    indices, shares = CODES(torch.from_numpy(ab.T[None, :, :, None].astype(np.float32)))
    for colour, picked, share in zip(ab, indices[0, :, 0].numpy(), shares[0, :, 0].numpy(), strict=True):
        squared = ((BINS.astype(np.float64) - colour) ** 2).sum(1)
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
    for source, count in zip(BINS.astype(np.float64), counts / counts.sum(), strict=True):
        kernel = np.exp(-((BINS - source) ** 2).sum(1) / (2 * 5.0**2))
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
    expected = np.einsum("nqhw,qc->nchw", f, BINS.astype(np.float64))
    found = annealed_mean(torch.from_numpy(logits).float(), torch.from_numpy(BINS), temperature)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_annealed_mean_of_a_cold_distribution_is_its_mode() -> None:
    logits = torch.zeros(1, len(BINS), 1, 1)
    logits[0, 200] = 1
    found = annealed_mean(logits, torch.from_numpy(BINS), 0.01).flatten().numpy()
    np.testing.assert_allclose(found, BINS[200], atol=1e-3)


def test_loss_is_the_weighted_cross_entropy_over_all_bins() -> None:
    ab = torch.from_numpy(RNG.uniform(-60, 60, (2, 2, 3, 5))).float()
    indices, shares = CODES(ab)
    logits = torch.from_numpy(RNG.normal(0, 2, (2, len(BINS), 3, 5))).requires_grad_()
    w = rebalancing(random_prior())
    z = np.zeros((2, 3, 5, len(BINS)))
    np.put_along_axis(z, indices.numpy(), shares.numpy().astype(np.float64), axis=-1)
    x = logits.detach().numpy().transpose(0, 2, 3, 1)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    v = w[z.argmax(-1)]
    expected = (v * -(z * log_p).sum(-1)).mean()
    loss = classification_loss(logits, indices, shares.double(), torch.from_numpy(w))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    gradient = (v[..., None] * (np.exp(log_p) - z) / v.size).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, atol=1e-8)
