"""Objectives, each against its formula written out in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.bins import Bins, gamut_bins, no_bins, rebalancing, smoothed_prior
from model.losses import (
    Classification,
    ObjectiveConfig,
    averaged,
    bin_weights,
    classification_loss,
    initial_bias,
    make_objective,
)
from model.networks import NETWORKS, NetworkConfig
from model.networks.colorunet import ColorUNetConfig
from model.networks.eccv16 import ECCV16Config
from model.networks.unet import UNetConfig
from model.spaces import Space, rgb_to_space

RNG = np.random.default_rng(0)
BINS = gamut_bins()
UV = Bins("yuv", np.unique(RNG.integers(-6, 7, (60, 2)) * 10, axis=0)[:32])


def random_prior(bins: Bins) -> np.ndarray:
    return smoothed_prior(RNG.random(len(bins)) ** 8 * 1000, bins)


def softly_coded(colour: np.ndarray, bins: Bins) -> np.ndarray:
    """Z (Q,) of one whole-numbered colour (§2.1)."""
    squared = ((bins.centers.astype(np.float64) - colour) ** 2).sum(1)
    z = np.exp(-squared / (2 * 5.0**2)) * (np.argsort(np.argsort(squared, kind="stable"), kind="stable") < 5)
    return z / z.sum()


@pytest.mark.parametrize("bins", [BINS, UV], ids=["gamut", "frequent"])
@pytest.mark.parametrize(
    "config", [ObjectiveConfig(), ObjectiveConfig(rebalance=False), ObjectiveConfig(uniform=0.3, cap=1.5)]
)
def test_classification_is_equation_2_with_weights_of_equation_4(bins: Bins, config: ObjectiveConfig) -> None:
    prior = random_prior(bins)
    truth = RNG.integers(-60, 61, (2, 2, 3, 5)).astype(np.float64)
    logits = RNG.normal(0, 2, (2, len(bins), 3, 5))
    w = 1 / ((1 - config.uniform) * prior + config.uniform / len(bins)) if config.rebalance else np.ones(len(bins))
    w /= (prior * w).sum()
    if config.cap:
        w = np.minimum(w, config.cap)
        assert w.max() == config.cap
        w /= (prior * w).sum()
    expected = []
    for n, y, x in np.ndindex(2, 3, 5):
        z = softly_coded(truth[n, :, y, x], bins)
        log_p = logits[n, :, y, x] - np.log(np.exp(logits[n, :, y, x]).sum())
        expected.append(w[z.argmax()] * -(z * log_p).sum())
    found = make_objective(config, bins, prior).loss(torch.from_numpy(logits), torch.from_numpy(truth))
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize(("space", "unit"), [("lab", 110), ("yuv", 128)])
@pytest.mark.parametrize("kind", ["l2", "l1", "smooth_l1"])
def test_regressions_are_their_formulas_per_pixel(kind: str, space: str, unit: float) -> None:
    truth = RNG.uniform(-80, 80, (2, 2, 8, 12))
    output = (truth + RNG.normal(0, 3, truth.shape)) / unit
    difference = output - truth / unit
    each = {
        "l2": difference**2 / 2,
        "l1": np.abs(difference),
        "smooth_l1": unit
        * np.where(np.abs(difference) < 1 / unit, difference**2 / 2, np.abs(difference) / unit - 0.5 / unit**2),
    }[kind]
    objective = make_objective(ObjectiveConfig(kind=kind), no_bins(space), np.empty(0))
    found = objective.loss(torch.from_numpy(output), torch.from_numpy(truth))
    assert found.item() == pytest.approx(each.sum(1).mean(), rel=1e-5)


def test_truth_is_averaged_over_the_cells_of_the_output() -> None:
    truth = RNG.uniform(-80, 80, (2, 2, 16, 24))
    cells = truth.reshape(2, 2, 4, 4, 6, 4).mean((3, 5))
    np.testing.assert_allclose(averaged(torch.from_numpy(truth), torch.empty(2, 9, 4, 6)).numpy(), cells)
    objective = make_objective(ObjectiveConfig(kind="l1"), no_bins(), np.empty(0))
    assert objective.loss(torch.from_numpy(cells / 110), torch.from_numpy(truth)).item() == pytest.approx(0, abs=1e-6)
    full = torch.from_numpy(truth)
    assert averaged(full, torch.empty(2, 9, 16, 24)) is full


def test_gradient_of_classification_is_the_weighted_difference_of_distributions() -> None:
    truth = torch.from_numpy(RNG.uniform(-60, 60, (2, 2, 3, 5))).float()
    indices, shares = BINS.soft_codes()(truth)
    logits = torch.from_numpy(RNG.normal(0, 2, (2, len(BINS), 3, 5))).requires_grad_()
    w = rebalancing(random_prior(BINS))
    z = np.zeros((2, 3, 5, len(BINS)))
    np.put_along_axis(z, indices.numpy(), shares.numpy().astype(np.float64), axis=-1)
    x = np.exp(logits.detach().numpy().transpose(0, 2, 3, 1))
    v = w[indices[..., 0].numpy()]
    classification_loss(logits, indices, shares.double(), torch.from_numpy(w)).backward()
    gradient = (v[..., None] * (x / x.sum(-1, keepdims=True) - z) / v.size).transpose(0, 3, 1, 2)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), gradient, atol=1e-8)


def test_a_head_begins_with_what_its_loss_would_have_it_say_of_every_place() -> None:
    """The bias is where the mean gradient over the data's own colours vanishes, for one kind of pixel a bin."""
    prior = random_prior(BINS)
    for config in (ObjectiveConfig(), ObjectiveConfig(rebalance=False)):
        w = bin_weights(config, prior)
        p = torch.softmax(initial_bias(config, prior).double(), 0).numpy()
        gradient = (prior * w).sum() * p - prior * w
        np.testing.assert_allclose(gradient, 0, atol=1e-8)
    assert initial_bias(ObjectiveConfig(kind="l2"), np.empty(0)).tolist() == [0, 0]


def test_low_precision_is_no_matter_for_the_loss() -> None:
    objective = make_objective(ObjectiveConfig(), BINS, random_prior(BINS)).to(torch.device("cpu"))
    assert isinstance(objective, Classification)
    logits = torch.randn(1, len(BINS), 2, 2).bfloat16()
    truth = torch.zeros(1, 2, 8, 8)
    assert objective.loss(logits, truth).dtype == torch.float32
    torch.testing.assert_close(objective.loss(logits, truth), objective.loss(logits.float(), truth))


@pytest.mark.parametrize("kind", ["classification", "l2", "l1", "smooth_l1"])
@pytest.mark.parametrize(
    ("config", "space"),
    [
        (UNetConfig(36, (8, 8, 8, 8, 8), (0, 0, 0, 0), (0, 0, 0)), "lab"),
        (ECCV16Config(36, 8), "lab"),
        (ColorUNetConfig(36, (8, 8)), "lab"),
        (ColorUNetConfig(36, (8, 8)), "yuv"),
    ],
    ids=["unet", "eccv16", "colorunet", "colorunet-yuv"],
)
def test_every_network_learns_every_objective(config: NetworkConfig, kind: str, space: Space) -> None:
    """A picture of a bright and a dark half in two colours, which its lightness tells."""
    torch.manual_seed(0)
    rgb = torch.zeros(2, 32, 64, 3, dtype=torch.uint8) + torch.tensor([230, 160, 60], dtype=torch.uint8)
    rgb[:, :, 32:] = torch.tensor([20, 60, 130], dtype=torch.uint8)
    lightness, truth = rgb_to_space(space, rgb)
    grid = np.stack(np.meshgrid(np.arange(-50, 60, 20), np.arange(-50, 60, 20)), axis=-1).reshape(-1, 2)
    bins = Bins(space, grid) if kind == "classification" else no_bins(space)
    prior = np.full(len(bins), 1 / 36)[: len(bins)]
    objective = make_objective(ObjectiveConfig(kind=kind), bins, prior)
    (network_type,) = (made for made_config, made in NETWORKS.values() if made_config is type(config))
    network = network_type(replace(config, bins=len(bins))).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = objective.loss(network(lightness), truth)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("wrong", [{"kind": "l3"}, {"uniform": 1.5}, {"uniform": float("nan")}, {"cap": 0.5}])
def test_an_objective_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ObjectiveConfig(**wrong)


def test_bins_and_kind_must_fit() -> None:
    prior = random_prior(BINS)
    for config, bins, p in (
        (ObjectiveConfig(), no_bins(), np.empty(0)),
        (ObjectiveConfig(kind="l2"), BINS, prior),
        (ObjectiveConfig(), BINS, prior[1:]),
    ):
        with pytest.raises(ValueError, match="expected bins and prior"):
            make_objective(config, bins, p)
