"""Training on pictures whose colour follows from their lightness: it must learn, stop on time, and go on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from model.bins import gamut_bins, rebalancing, soft_codes
from model.checkpoint import State, load_checkpoint, load_trained, save_checkpoint
from model.data import Photos
from model.networks.unet import UNet, UNetConfig
from model.train import TrainConfig, bin_counts, fit, update_average
from pipeline.errors import InputError

TINY = UNetConfig(bins=309, widths=(8, 16, 16, 16, 16), encoder=(0, 0, 0, 0), decoder=(0, 0, 0))
CONFIG = TrainConfig(minutes=0.05, stages=((0.0, 32, 8), (0.5, 64, 4)), checkpoint_minutes=0.01)


def two_colours(count: int = 30) -> Photos:
    """Dark pictures are blue, light ones orange."""
    pictures = np.zeros((count, 64, 64, 3), np.uint8)
    pictures[::2] = (20, 40, 120)
    pictures[1::2] = (250, 190, 120)
    names = tuple(f"{i}.png" for i in range(count))
    return Photos(pictures.ravel(), names, np.full((count, 2), 64), np.arange(count) * 64 * 64 * 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of at least 200 steps: on a busy machine the budget is doubled, and the run goes on."""
    folder, minutes = tmp_path_factory.mktemp("run"), 0.06
    path = fit(two_colours(), folder, dataclasses.replace(CONFIG, minutes=minutes), TINY)
    while load_trained(path).step < 200:
        minutes *= 2
        path = fit(two_colours(), folder, dataclasses.replace(CONFIG, minutes=minutes), TINY)
    return path


def test_the_schedule_warms_up_and_ends_at_nothing() -> None:
    config = TrainConfig(minutes=60)
    rates = [config.rate(p) for p in np.linspace(0, 1, 201)]
    assert max(rates) == pytest.approx(config.learning_rate, rel=0.01)
    assert rates[0] < 0.1 * config.learning_rate
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
    assert config.rate(0.5) == pytest.approx(config.learning_rate / 2)
    assert [config.stage(p) for p in (0, 0.59, 0.6, 0.99, 1.01)] == [(96, 48)] * 2 + [(128, 32)] + [(160, 20)] * 2


def test_it_learns_which_colour_goes_with_which_lightness(run: Path) -> None:
    trained = load_trained(run)
    bins = trained.bins.numpy()
    with torch.inference_mode():
        logits = trained.network(torch.tensor([18.0, 81.0])[:, None, None, None].expand(2, 1, 32, 32))
    dark, light = bins[logits.mean((2, 3)).argmax(1).numpy()]
    assert dark[1] < -20  # blue: b* of (20, 40, 120) is -45
    assert light[1] > 20  # orange: b* of (250, 190, 120) is 43


def test_it_stops_on_time_and_says_how_far_it_came(tmp_path: Path) -> None:
    trained = load_trained(fit(two_colours(), tmp_path, dataclasses.replace(CONFIG, minutes=0.02), TINY))
    assert 0.02 * 60 <= trained.seconds < 20  # the last step may overrun on a busy machine
    assert trained.samples >= 4 * trained.step > 0
    assert trained.config["minutes"] == 0.02
    assert trained.prior.sum() == pytest.approx(1)


def test_a_finished_run_is_not_trained_further_and_a_longer_one_goes_on(run: Path) -> None:
    before = load_trained(run)
    spent = before.seconds / 60
    same = load_trained(fit(two_colours(), run.parent, dataclasses.replace(CONFIG, minutes=spent), TINY))
    assert same.step == before.step
    longer = load_trained(fit(two_colours(), run.parent, dataclasses.replace(CONFIG, minutes=spent + 0.01), TINY))
    assert longer.step > before.step
    assert longer.samples > before.samples


def test_a_checkpoint_restores_network_average_and_optimizer(tmp_path: Path) -> None:
    def made() -> State:
        net = UNet(TINY)
        return State(net, {k: v.clone() for k, v in net.state_dict().items()}, torch.optim.AdamW(net.parameters(), 0.1))

    def step(state: State) -> None:
        state.optimizer.zero_grad()
        state.network(torch.linspace(0, 100, 2048).reshape(2, 1, 32, 32)).square().mean().backward()
        state.optimizer.step()
        state.step += 1
        update_average(state, 0.5)

    state = made()
    step(state)
    tables = {"bins": torch.from_numpy(gamut_bins()), "prior": torch.full((309,), 1 / 309)}
    save_checkpoint(state, tmp_path / "c.safetensors", tables, {"uniform": 0.5})
    restored = made()
    load_checkpoint(restored, tmp_path / "c.safetensors")
    for s in (state, restored):
        step(s)  # momentum counts from here on
    assert restored.step == 2
    for a, b in ((state.network.state_dict(), restored.network.state_dict()), (state.average, restored.average)):
        assert all(torch.equal(a[k], b[k]) for k in a)
    with safe_open(tmp_path / "c.safetensors", "pt") as f:
        assert json.loads(f.metadata()["config"]) == {"uniform": 0.5}


def test_taking_back_the_rebalancing_shifts_the_head_alone(run: Path) -> None:
    plain, shifted = load_trained(run), load_trained(run)
    shifted.take_back(0.5)
    expected = -0.5 * np.log(rebalancing(plain.prior.numpy(), plain.config["uniform"]))
    found = (shifted.network.head.bias - plain.network.head.bias).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(InputError, match=r"last\.safetensors: not a checkpoint"):
        fit(two_colours(), tmp_path, CONFIG, TINY)


def test_trouble_with_the_photographs_reaches_the_caller(tmp_path: Path) -> None:
    photos = two_colours()
    broken = dataclasses.replace(photos, pixels=photos.pixels[: 64 * 64 * 3 * 5])
    with pytest.raises(ValueError, match="reshape"):
        fit(broken, tmp_path, CONFIG, TINY)


def test_average_is_exponential(tmp_path: Path) -> None:
    net = UNet(TINY)
    state = State(
        net, {k: torch.zeros_like(v) for k, v in net.state_dict().items()}, torch.optim.AdamW(net.parameters())
    )
    value = net.head.weight.detach().clone()
    for n in range(1, 4):
        update_average(state, 0.9)
        torch.testing.assert_close(state.average["head.weight"], value * (1 - 0.9**n))


def test_counts_are_the_area_of_each_colour() -> None:
    counts = bin_counts(two_colours(), np.arange(30), soft_codes(gamut_bins()), 309, np.random.default_rng(0))
    assert counts.sum() == pytest.approx(30 * 16 * 16, rel=1e-5)
    half = gamut_bins()[:, 1] < 0
    assert counts[half].sum() == pytest.approx(15 * 16 * 16, rel=1e-3)
