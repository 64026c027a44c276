"""Distillation: the teacher's loss against the mean of the photographs' loss over colours drawn from the teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.bins import Bins, gamut_bins, prior_shift
from model.data import in_memory
from model.held_out import HeldOut
from model.losses import ObjectiveConfig, bin_weights, classification_loss
from model.networks.unet import UNet, UNetConfig
from model.recipe import BinsConfig, DataConfig, PackageConfig, TrainRecipe
from model.schedule import Stage, TrainingConfig
from model.task import fresh_state, make_task
from model.teacher import make_teacher
from model.train import fit, gradients
from model.weights import Model, load_model, save_model
from pipeline.errors import RecipeError

TINY = {"widths": (8, 16, 16, 16, 16), "encoder": (0, 0, 0, 0), "decoder": (0, 0, 0)}
Q = 20
BINS = Bins("lab", np.unique(np.random.default_rng(0).integers(-9, 10, (40, 2)) * 10, axis=0)[:Q])
CPU = torch.device("cpu")


def model(bins: Bins = BINS, taken_back: float = 0.3, **objective: float) -> Model:
    """A network with random weights, packed as the trainer does it."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(len(bins), **TINY)).eval().requires_grad_(False)
    network.head.weight.mul_(30)
    prior = np.random.default_rng(1).random(len(bins)) ** 3
    recipe = {"objective": dataclasses.asdict(ObjectiveConfig(**objective)), "package": {"taken_back": taken_back}}
    metadata = {"training": json.dumps({"recipe": recipe})}
    return Model("teacher", "", network, bins, (prior / prior.sum()).astype(np.float32), 0.38, metadata)


def test_the_teachers_loss_is_the_expectation_of_the_photographs_loss() -> None:
    packed, lightness = model(uniform=0.7), torch.rand(2, 1, 32, 32) * 100
    weights = np.random.default_rng(2).random(Q) + 0.5
    output = torch.randn(2, Q, 8, 8, dtype=torch.float64)
    teacher = make_teacher(packed, BINS, weights, CPU)
    with torch.inference_mode():
        logits = packed.network(lightness).double()
    trained = bin_weights(ObjectiveConfig(uniform=0.7), packed.prior.astype(np.float64))
    p = torch.softmax(logits, 1) / torch.from_numpy(trained ** (1 - 0.3))[:, None, None]
    p /= p.sum(1, keepdim=True)
    expected = 0.0
    for q in range(Q):  # as if this colour were the truth in every place, as often as the teacher says
        truth, all_of_it = torch.full((2, 8, 8, 1), q), torch.ones(2, 8, 8, 1)
        for n, y, x in np.ndindex(2, 8, 8):
            cell = slice(n, n + 1), slice(None), slice(y, y + 1), slice(x, x + 1)
            index, share = truth[n : n + 1, y : y + 1, x : x + 1], all_of_it[n : n + 1, y : y + 1, x : x + 1]
            loss = classification_loss(output[cell], index, share, torch.from_numpy(weights))
            expected += float(p[n, q, y, x] * loss) / (2 * 8 * 8)
    assert teacher.loss(output, lightness).item() == pytest.approx(expected, rel=1e-5)


def test_a_pupil_that_says_what_the_teacher_says_has_nothing_left_to_learn() -> None:
    packed, lightness = model(taken_back=0.15), torch.rand(2, 1, 32, 32) * 100
    weights = bin_weights(ObjectiveConfig(), packed.prior.astype(np.float64))
    teacher = make_teacher(packed, BINS, weights, CPU)
    with torch.inference_mode():
        logits = packed.network(lightness) - torch.from_numpy(prior_shift(weights, 0.15)).float()[:, None, None]
    output = logits.clone().requires_grad_(True)
    teacher.loss(output, lightness).backward()
    assert output.grad is not None
    assert output.grad.abs().max() < 1e-7
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_other_bins_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"objective\.teacher: teacher has 20 bins in lab, expected the recipe's 313"):
        make_teacher(model(), gamut_bins(), np.ones(313), CPU)


def recipe(**objective: object) -> TrainRecipe:
    return TrainRecipe(
        name="pupil",
        network={"name": "unet", **TINY},
        base=None,
        bins=BinsConfig(),
        objective=ObjectiveConfig(**objective),  # type: ignore[arg-type]
        data=DataConfig(augmentation="plain"),
        training=TrainingConfig(epochs=1, stages=(Stage(0.0, 32, 4),)),
        package=PackageConfig(),
    )


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    packed = model(gamut_bins())
    path = tmp_path / "teacher.safetensors"
    training = json.loads(packed.metadata["training"])
    save_model(
        path,
        network=packed.network,
        bins=packed.bins,
        prior=packed.prior,
        temperature=packed.temperature,
        training=training,
        metrics={},
    )
    return str(path)


def photographs() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), np.uint8))


def test_it_has_its_share_of_the_loss_but_not_of_the_held_out_one(teacher: str) -> None:
    photos = in_memory(photographs())
    alone, taught = make_task(recipe(), photos), make_task(recipe(teacher=teacher, taught=0.25), photos)
    assert taught.teacher is not None
    state = fresh_state(taught, None)
    network = state.network.eval()
    lightness, chroma = taught.inputs(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8), 0)
    own, both = (gradients(task, network, lightness, chroma).item() for task in (alone, taught))
    said = taught.teacher.loss(network(lightness), lightness).item()
    assert both == pytest.approx(0.75 * own + 0.25 * said, rel=1e-5)
    assert HeldOut(taught).loss(state) == HeldOut(alone).loss(state)


def test_a_pupil_is_trained_and_its_package_names_the_teacher(teacher: str, tmp_path: Path) -> None:
    path = fit(recipe(teacher=teacher, taught=0.25), in_memory(photographs()), tmp_path / "run")
    said = json.loads(load_model(str(path)).metadata["training"])["recipe"]["objective"]
    assert (said["teacher"], said["taught"]) == (teacher, 0.25)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"taught": 0.0}, "taught above 0"), ({"taught": 1.5}, "at most 1"), ({"kind": "l2", "teacher": "x"}, "teacher")],
)
def test_mistakes_are_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ObjectiveConfig(**wrong)  # type: ignore[arg-type]
