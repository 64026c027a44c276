"""Choosing how vivid a network is: on photographs that the report does not use, by a rule, and never for the worse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import scene

from model.baselines import all_grey
from model.data import in_memory
from model.engines import open_engine
from model.evaluate import compare
from model.losses import ObjectiveConfig, bin_weights
from model.measures import ClassWeights
from model.tuning import Score, Setting, better, choose, halves, repack, score_of, sweep
from model.weights import Model, load_model, save_model

PICTURES = [scene(seed, 128, 160) for seed in range(3)]


@pytest.fixture
def packed(model: Model, tmp_path: Path) -> Model:
    """A network that says of itself what it was trained for, with a fifth of the rebalancing taken back."""
    prior = np.random.default_rng(0).dirichlet(np.ones(len(model.bins))).astype(np.float32) + 1e-4
    prior /= prior.sum()
    recipe = {"objective": dataclasses.asdict(ObjectiveConfig(uniform=0.3)), "package": {"taken_back": 0.2}}
    path = tmp_path / "packed.safetensors"
    training = {"recipe": recipe, "hours": 2}
    save_model(
        path, network=model.network, bins=model.bins, prior=prior, training=training, metrics={}, temperature=0.5
    )
    return load_model(str(path))


def weights_of(model: Model) -> ClassWeights:
    return ClassWeights(model.bins.centers, model.prior)


def test_the_halves_are_alike_in_size_and_share_no_group() -> None:
    groups = [f"{i // 2}.mkv" for i in range(2000)]
    photos = in_memory([np.zeros((1, 1, 3), np.uint8)] * 2000, [f"{i}.png" for i in range(2000)], groups)
    held_out = photos.split()[1]
    chooses, reports = halves(photos, held_out)
    assert sorted([*chooses, *reports]) == sorted(held_out)
    assert abs(len(chooses) - len(reports)) < 0.4 * len(held_out)
    assert not {groups[i] for i in chooses} & {groups[i] for i in reports}


def test_a_setting_scores_as_the_package_that_is_made_with_it(packed: Model, tmp_path: Path) -> None:
    setting = Setting(0.7, 0.9)
    (expected,) = sweep(packed, [setting], PICTURES, weights_of(packed)).values()
    path = tmp_path / "again.safetensors"
    repack(packed, setting, path, {"pictures": 3})
    again = load_model(str(path))
    assert again.temperature == 0.7
    training = json.loads(again.metadata["training"])
    assert training["recipe"]["package"] == {"temperature": 0.7, "taken_back": 0.9}
    assert training["hours"] == 2
    assert json.loads(again.metadata["metrics"]) == {"pictures": 3}
    with open_engine(again, "torch") as engine:
        ways = {"truth": None, "gray": all_grey, "again": engine}
        found = compare(ways, PICTURES, weights_of(packed), area=192**2, replicates=0)
    measured = score_of(found["again"], found["gray"], found["truth"])
    assert measured.raw == pytest.approx(expected.raw, abs=0.3)
    assert measured.rebalanced == pytest.approx(expected.rebalanced, abs=0.5)
    assert measured.colourful == pytest.approx(expected.colourful, abs=0.02)
    other = sweep(packed, [Setting(0.7, 0.2)], PICTURES, weights_of(packed))[Setting(0.7, 0.2)]
    assert abs(other.raw - expected.raw) + abs(other.colourful - expected.colourful) > 0.02


def test_the_bias_moves_by_the_share_that_is_taken_back(packed: Model, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    repack(packed, Setting(0.38, 0.5), path, {})
    after, before = load_model(str(path)).network.head.bias, packed.network.head.bias
    assert after is not None
    assert before is not None
    weighed = bin_weights(ObjectiveConfig(uniform=0.3), packed.prior.astype(np.float64))
    np.testing.assert_allclose((after - before).numpy(), -0.3 * np.log(weighed), atol=1e-5)


def test_the_calmest_of_those_that_hold_is_chosen() -> None:
    scores = {
        Setting(0.38, 0.3): Score(1.4, 10, 0.70),
        Setting(0.38, 0.2): Score(1.2, 11, 0.76),  # holds, but with too little to spare
        Setting(0.38, 0.1): Score(0.9, 12, 0.83),
        Setting(0.38, 0.0): Score(0.5, 12.6, 0.90),
    }
    assert choose(scores) == Setting(0.38, 0.1)
    greyer = {setting: dataclasses.replace(score, raw=-1.5) for setting, score in scores.items()}
    assert choose(greyer) == Setting(0.38, 0.0)


@pytest.mark.parametrize(
    ("score", "holds"),
    [
        (Score(-1.0, 5.0, 0.75), True),
        (Score(-1.1, 9.0, 1.0), False),
        (Score(1.0, 4.9, 1.0), False),
        (Score(1.0, 9.0, 0.74), False),
        (Score(1.0, 9.0, 1.26), False),
    ],
)
def test_what_is_fit_to_be_shipped(score: Score, holds: bool) -> None:
    assert score.holds() is holds


def measured(rebalanced: float, colourful: float, spread: float = 0.1) -> dict[str, NDArray[np.float64]]:
    drawn = np.concatenate([[0.0], np.random.default_rng(0).normal(0, spread, 400)])
    return {"auc": 90 + 0 * drawn, "auc_rebalanced": rebalanced + drawn, "colourfulness": colourful + 0 * drawn}


def test_only_what_is_better_beyond_doubt_or_mends_a_fault_replaces_the_shipped() -> None:
    gray, truth = measured(58, 0, spread=0), measured(100, 40, spread=0)
    shipped = measured(68, 32, spread=0)
    assert better(measured(69, 32), shipped, gray, truth)[0]
    assert not better(measured(68.1, 32), shipped, gray, truth)[0]
    assert not better(measured(67, 32), shipped, gray, truth)[0]
    assert not better(measured(72, 28), shipped, gray, truth)[0]  # too grey
    assert better(measured(67, 32), measured(68, 28), gray, truth)[0]  # what is shipped is too grey
    assert better(measured(69, 32), shipped, gray, truth)[1].value == pytest.approx(1)
