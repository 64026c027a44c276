"""The shipped weights: generated scenes come out as anyone would paint them, and broken weights cannot be shipped.

The floors are held on photographs that scikit-image and scikit-learn install, none of which was trained on.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from model.baselines import all_grey
from model.bins import annealed_mean
from model.evaluate import coloured, compare
from model.measures import ClassWeights
from model.tuning import score_of
from model.weights import Model, load_model

Lightness = NDArray[np.float32]

H, W = 128, 160
DOWN, ACROSS = np.mgrid[0:H, 0:W] / np.array([H, W])[:, None, None]
RAW, REBALANCED, COLOURFUL = 0.5, 3.0, 0.3  # floors: points of AuC above grey, share of the truth's colourfulness


def texture(seed: int, coarsest: int = 8, power: float = 0.3) -> NDArray[np.float64]:
    """Noise (H, W) of every size from a pixel to the coarsest, variance 1; the higher the power, the smoother."""
    rng = np.random.default_rng(seed)
    total = np.zeros((H, W))
    for cell in (2**k for k in range(coarsest.bit_length())):
        total += cell**power * cv2.resize(rng.standard_normal((H // cell + 1, W // cell + 1)), (W, H))
    return total / total.std()


def skyline(seed: int, height: float, rough: float) -> NDArray[np.float64]:
    """How far down (W,) hills begin."""
    waves = np.arange(1, 6)[:, None]
    return height + rough * (
        np.sin(2 * np.pi * (waves * ACROSS[0] + np.random.default_rng(seed).random((5, 1)))) / waves
    ).sum(0)


def under_sky(ground: NDArray[np.float64], horizon: float | NDArray[np.float64], sky: float = 70) -> Lightness:
    """L* (H, W) of a ground under a sky that brightens toward the horizon, softened as a lens does."""
    scene = np.where(horizon > DOWN, sky + 16 * DOWN, ground) + np.random.default_rng(0).standard_normal((H, W))
    return cv2.GaussianBlur(scene.clip(0, 100).astype(np.float32), (3, 3), 0.7)


GRASS = 42 + 9 * texture(2)
SEA_AND_SAND = np.where(DOWN < 0.65, 48 + 5 * texture(4) + 3 * np.sin(60 * DOWN), 76 + 3 * texture(5, 4))
CROWN = 1 + 0.25 * texture(7, 16, 1) > (ACROSS - 0.5) ** 2 / 0.09 + (DOWN - 0.4) ** 2 / 0.1
SNOW = np.where(skyline(3, 0.57, 0.1) > DOWN, 88 + 4 * texture(10), 38 + 14 * texture(11, 32, 0.6))
ROAD = np.where(np.abs(ACROSS - 0.5) < 0.5 * DOWN - 0.15, 45 + 2 * texture(12, 2), 40 + 9 * texture(13))
FAR_HILLS = np.where(skyline(8, 0.6, 0.06) > DOWN, 48 + 6 * texture(15), 40 + 9 * texture(16))
SCENES: dict[str, Lightness] = {
    "meadow": under_sky(GRASS, 0.45),
    "clouds over a meadow": under_sky(GRASS, 0.5, 62)
    + (np.clip(6 * texture(1, 64, 1), 0, 15) * (DOWN < 0.5)).astype("f"),
    "sea and sand": under_sky(SEA_AND_SAND, 0.35),
    "tree": under_sky(np.where(CROWN & (DOWN < 0.75), 30 + 12 * texture(8), GRASS), np.where(CROWN, 0.0, 0.75)),
    "snow on mountains": under_sky(SNOW, skyline(3, 0.45, 0.1)),
    "road": under_sky(ROAD, 0.4),
    "forest": under_sky(30 + 14 * texture(14, 16, 0.5), skyline(5, 0.35, 0.06), 78),
    "hills": under_sky(FAR_HILLS, skyline(7, 0.4, 0.08)),
}


@pytest.fixture(scope="module", params=["default", "fast"])
def shipped(request: pytest.FixtureRequest) -> Model:
    return load_model(request.param)


@pytest.fixture(scope="module")
def photographs() -> list[NDArray[np.uint8]]:
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photographs")
    images = pytest.importorskip("sklearn.datasets", reason="scikit-learn brings the photographs")
    own = [images.load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    return [*own, data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]


def colours(model: Model) -> Callable[[Lightness], Lightness]:
    """The network without an engine, which would itself refuse some of the damages."""

    def predict(lightness: Lightness) -> Lightness:
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(lightness))
            return annealed_mean(logits, torch.from_numpy(model.bins.centers), model.temperature).numpy()

    return predict


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_coloured_as_one_would_paint_it(shipped: Model, name: str) -> None:
    ab = coloured(colours(shipped), SCENES[name])
    assert np.isfinite(ab).all()
    assert np.hypot(*ab.T).mean() > 5  # not grey
    assert ab.std((0, 1)).max() > 4  # nor one colour
    assert np.abs(ab).max() < 100
    sky, ground = ab[: H // 5].mean((0, 1)), ab[-H // 5 :].mean((0, 1))
    assert sky[1] < -8  # blue
    assert ground[1] > sky[1] + 10  # as nothing on the ground is
    assert np.abs(sky[0]) < 12


@pytest.mark.parametrize("name", ["tree", "snow on mountains", "hills"])
def test_grass_is_green(shipped: Model, name: str) -> None:
    """Where something tells it from the sea, which noise under a sky may be, too."""
    a, b = coloured(colours(shipped), SCENES[name])[-H // 4 :].mean((0, 1))
    assert a < -1
    assert b > 5


def measured(model: Model, pictures: list[NDArray[np.uint8]]) -> dict[str, float]:
    """What the floors are held against."""
    default = load_model("default")
    weights = ClassWeights(default.bins.centers, default.prior)
    ways = {"truth": None, "gray": all_grey, "model": colours(model)}
    found = compare(ways, pictures, weights, area=H * H, replicates=0, threads=1)
    score = score_of(found["model"], found["gray"], found["truth"])
    return {
        "raw": score.raw - RAW,
        "rebalanced": score.rebalanced - REBALANCED,
        "colourful": score.colourful - COLOURFUL,
    }


def test_the_shipped_weights_are_above_the_floors(shipped: Model, photographs: list[NDArray[np.uint8]]) -> None:
    above = measured(shipped, photographs)
    assert min(above.values()) > 0, above


def no_head(network: nn.Module) -> None:
    network.head.weight.zero_()


def random_weights(network: nn.Module) -> None:
    torch.manual_seed(0)
    for kernel in (p for p in network.parameters() if p.ndim > 1):
        kernel.copy_(torch.randn_like(kernel) * kernel.std())


def noisy_weights(network: nn.Module) -> None:
    torch.manual_seed(0)
    for kernel in (p for p in network.parameters() if p.ndim > 1):
        kernel.add_(torch.randn_like(kernel) * kernel.std())


def features_in_another_order(network: nn.Module) -> None:
    network.head.weight.copy_(network.head.weight.roll(1, 1))


def bins_in_another_order(network: nn.Module) -> None:
    network.head.weight.copy_(network.head.weight.roll(9, 0))
    network.head.bias.copy_(network.head.bias.roll(9, 0))


@pytest.mark.parametrize(
    "damage", [no_head, random_weights, noisy_weights, features_in_another_order, bins_in_another_order]
)
def test_damaged_weights_are_below(
    default: Model, photographs: list[NDArray[np.uint8]], damage: Callable[[nn.Module], None]
) -> None:
    network = copy.deepcopy(default.network)
    with torch.no_grad():
        damage(network)
    assert min(measured(dataclasses.replace(default, network=network), photographs).values()) < 0


@pytest.mark.parametrize("centers", [lambda ab: ab[:, ::-1], lambda ab: -ab], ids=["a and b swapped", "negative"])
def test_so_are_wrong_bins(
    default: Model, photographs: list[NDArray[np.uint8]], centers: Callable[[Lightness], Lightness]
) -> None:
    bins = dataclasses.replace(default.bins, centers=centers(default.bins.centers))
    assert min(measured(dataclasses.replace(default, bins=bins), photographs).values()) < 0
