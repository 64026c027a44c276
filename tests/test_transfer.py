"""A network that begins where another ended: which weights it keeps, and what its new outputs say."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bins import Bins, gamut_bins, no_bins, prior_shift
from model.losses import ObjectiveConfig, bin_weights
from model.networks.colorunet import ColorUNetConfig
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig
from model.transfer import extended
from model.weights import Model, load_model, save_model
from pipeline.errors import RecipeError

RNG = np.random.default_rng(0)
CENTERS = np.unique(RNG.integers(-9, 10, (40, 2)) * 10, axis=0)[:20]
PICTURE = torch.rand(1, 1, 64, 64) * 100
SMALL = UNetConfig(bins=20, widths=(4, 8, 8, 8, 8), encoder=(1, 0, 0, 1), decoder=(0, 0, 1))


def base(bins: Bins | None = None) -> Model:
    torch.manual_seed(0)
    bins = Bins("lab", CENTERS) if bins is None else bins
    net = UNet(UNetConfig(len(bins), SMALL.widths, SMALL.encoder, SMALL.decoder))
    net(torch.rand(4, 1, 64, 64) * 100)  # gives batch normalisation statistics of its own
    return Model("base", "", net.eval().requires_grad_(False), bins, np.full(len(bins), 0.05, np.float32), 0.38, {})


def test_bins_that_both_have_keep_what_they_say_wherever_they_stand() -> None:
    new = np.array([[110, 110], [-110, 5]])
    order = RNG.permutation(22)
    bins = Bins("lab", np.concatenate([CENTERS, new])[order])
    bias = torch.arange(22.0)
    made = extended(base(), bins, bias)
    with torch.inference_mode():
        before, after = base().network(PICTURE), made.eval()(PICTURE)
    for row, source in enumerate(order):
        expected = before[:, source] if source < 20 else torch.full_like(before[:, 0], float(row))
        torch.testing.assert_close(after[:, row], expected)


def test_what_is_made_can_be_trained_and_the_base_is_left_alone() -> None:
    model = base()
    kept = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    made = extended(model, model.bins, torch.zeros(20), SMALL)
    assert made.training
    assert all(p.requires_grad for p in made.parameters())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, kept[name])


@pytest.mark.parametrize(
    ("bins", "source"),
    [(no_bins(), Bins("lab", CENTERS)), (Bins("yuv", CENTERS), Bins("lab", CENTERS)), (no_bins("yuv"), no_bins("lab"))],
    ids=["regression from classes", "classes of another space", "regression in another space"],
)
def test_a_head_of_another_kind_begins_anew_on_the_same_body(bins: Bins, source: Bins) -> None:
    made = extended(base(source), bins, torch.arange(float(len(bins) or 2)))
    with torch.inference_mode():
        assert torch.equal(made.eval()(PICTURE)[0, :, 3, 3], torch.arange(float(len(bins) or 2)))
    for name, tensor in base(source).network.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(made.state_dict()[name], tensor)


def test_a_regression_goes_on_in_its_space() -> None:
    model = base(no_bins("yuv"))
    made = extended(model, no_bins("yuv"), torch.zeros(2))
    with torch.inference_mode():
        assert torch.equal(made.eval()(PICTURE), model.network(PICTURE))


def test_the_shipped_model_goes_to_fewer_bins_and_back() -> None:
    model, bins = dataclasses.replace(load_model("default"), metadata={}), gamut_bins()
    assert np.array_equal(model.bins.centers, bins.centers)
    fewer = Bins("lab", bins.centers[4:])
    smaller = dataclasses.replace(model, network=extended(model, fewer, torch.zeros(309)), bins=fewer)
    made = extended(smaller, bins, torch.full((313,), -9.0)).eval()
    with torch.inference_mode():
        before, after = model.network(PICTURE), made(PICTURE)
    torch.testing.assert_close(after[:, 4:], before[:, 4:])
    assert (after[:, :4] == -9).all()


def test_what_was_taken_back_of_the_rebalancing_is_put_back(tmp_path: Path) -> None:
    model = base()
    prior = RNG.dirichlet(np.ones(20)).astype(np.float32)
    objective = ObjectiveConfig(uniform=0.7, cap=6)
    shift = torch.from_numpy(prior_shift(bin_weights(objective, prior.astype(np.float64)), 0.4)).float()
    assert shift.abs().max() > 0.1
    packed = copy.deepcopy(model.network)
    assert packed.head.bias is not None
    packed.head.bias.add_(shift)
    recipe = {"objective": dataclasses.asdict(objective), "package": {"taken_back": 0.4}}
    path = tmp_path / "packed.safetensors"
    save_model(path, network=packed, bins=model.bins, prior=prior, training={"recipe": recipe}, metrics={})
    made = extended(load_model(str(path)), Bins("lab", CENTERS[::-1]), torch.zeros(20))
    assert made.head.bias is not None
    torch.testing.assert_close(made.head.bias.flip(0), model.network.head.bias)


@pytest.mark.parametrize("recipe", [{"package": {"taken_back": 0.4}}, {"package": 3}, {"package": {"taken_back": "x"}}])
def test_a_base_that_does_not_say_what_it_was_trained_for_is_refused(recipe: dict[str, object]) -> None:
    model = dataclasses.replace(base(), metadata={"training": json.dumps({"recipe": recipe})})
    with pytest.raises(
        RecipeError, match=r"^base: its package does not say what it was trained for .*; choose another$"
    ):
        extended(model, model.bins, torch.zeros(20))


def test_eccv16_keeps_its_body_too() -> None:
    torch.manual_seed(0)
    bins = Bins("lab", CENTERS)
    net = ECCV16(ECCV16Config(bins=20, width=4)).eval()
    made = extended(Model("z", "", net, bins, np.full(20, 0.05, np.float32), 1.0, {}), bins, torch.zeros(20)).eval()
    with torch.inference_mode():
        assert torch.equal(made(PICTURE), net(PICTURE))


@pytest.mark.parametrize(
    "config", [UNetConfig(bins=20), ColorUNetConfig(bins=20), UNetConfig(20, SMALL.widths, (2, 2, 2, 2), SMALL.decoder)]
)
def test_a_base_of_another_network_or_size_is_refused(config: UNetConfig | ColorUNetConfig) -> None:
    with pytest.raises(RecipeError, match=r"^base: cannot be the base, it is UNetConfig.*choose another base") as e:
        extended(base(), Bins("lab", CENTERS), torch.zeros(20), config)
    assert "\n" not in str(e.value)
