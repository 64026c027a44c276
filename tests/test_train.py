"""Training on pictures whose colour follows from their lightness: it must learn, stop, go on exactly, and fail well."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from model.bins import rebalancing
from model.data import Photos, in_memory
from model.losses import ObjectiveConfig
from model.packing import averaged
from model.progress import Report
from model.recipe import BinsConfig, DataConfig, PackageConfig, TrainRecipe
from model.schedule import Stage, TrainingConfig
from model.spaces import to_ab
from model.task import fresh_state, make_task
from model.train import fit
from model.weights import Model, load_model
from pipeline.errors import EngineError, InputError, RecipeError, StorageError

TINY = {"name": "unet", "widths": (8, 16, 16, 16, 16), "encoder": (0, 0, 0, 0), "decoder": (0, 0, 0)}
RECIPE = TrainRecipe(
    name="tiny",
    network=TINY,
    base=None,
    bins=BinsConfig(),
    objective=ObjectiveConfig(uniform=0.7),
    data=DataConfig(augmentation="film"),
    training=TrainingConfig(epochs=10, stages=(Stage(0.0, 32, 8), Stage(0.5, 64, 4)), evaluate_epochs=2.5, average=0.9),
    package=PackageConfig(),
)


def recipe(**changes: Any) -> TrainRecipe:
    """The tiny recipe with other values in [training] or, by the name of a field, anywhere."""
    fields = {f.name for f in dataclasses.fields(TrainRecipe)}
    training = {key: value for key, value in changes.items() if key not in fields}
    others = {key: value for key, value in changes.items() if key in fields}
    return dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, **training), **others)


def two_colours(count: int = 40) -> Photos:
    """Dark pictures are blue, light ones orange."""
    colours = ((20, 40, 120), (250, 190, 120))
    return in_memory([np.full((64, 64, 3), colours[i % 2], np.uint8) for i in range(count)])


def losses(made: TrainRecipe, out: Path, **options: Any) -> list[float]:
    """The loss of every step."""
    seen: list[float] = []

    def hear(report: Report) -> None:
        if report.held_out is None:
            seen.append(report.loss)

    fit(made, two_colours(), out, report=hear, **options)
    return seen


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    fit(recipe(epochs=20.0, evaluate_epochs=5.0), two_colours(), folder)
    return folder


def found_ab(model: Model) -> np.ndarray[Any, Any]:
    """What a model makes of a dark and of a light grey: (2, 2) ab."""
    from model.engines import open_engine

    lightness = np.broadcast_to(np.array([18, 81], np.float32)[:, None, None, None], (2, 1, 32, 32)).copy()
    with open_engine(model, "torch", threads=1) as engine:
        return engine(lightness).mean((2, 3))


def test_it_learns_which_colour_goes_with_which_lightness(run: Path) -> None:
    dark, light = found_ab(load_model(str(run / "tiny.safetensors")))
    assert dark[1] < -20  # blue: b* of (20, 40, 120) is -45
    assert light[1] > 20  # orange: b* of (250, 190, 120) is 43


def test_a_run_leaves_its_files(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert {"tiny.safetensors", "best.safetensors", "last.safetensors", "metrics.csv", "loss.png"} <= names
    assert len([name for name in names if name.startswith("samples-")]) == 4
    with (run / "metrics.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    measured = [float(row["held_out"]) for row in rows if row["held_out"]]
    assert len(measured) == 4
    assert min(measured) < measured[0]
    assert all(math.isfinite(float(row["loss"])) and float(row["speed"]) >= 0 for row in rows)


def test_the_package_says_how_it_was_made(run: Path) -> None:
    model = load_model(str(run / "tiny.safetensors"))
    training, metrics = json.loads(model.metadata["training"]), json.loads(model.metadata["metrics"])
    assert training["recipe"]["training"]["epochs"] == 20
    assert training["samples"] >= 20 * 32
    assert training["photographs"]
    assert {"held_out_loss", "auc", "auc_rebalanced", "delta_e"} <= metrics.keys()
    assert len(model.bins) == 313


def test_the_first_loss_is_that_of_guessing_by_the_prior() -> None:
    """A fresh head says how common colours are; the truth here is two colours, of weight 1/2 each."""
    task = make_task(recipe(precision="fp32"), two_colours())
    state = fresh_state(task, None)
    rgb = torch.tensor([[20, 40, 120], [250, 190, 120]], dtype=torch.uint8)[:, None, None].expand(2, 32, 32, 3)
    state.network.head.weight.data.zero_()  # type: ignore[union-attr]
    loss = task.loss(state.network, *task.inputs(rgb, 0)).item()
    weights = rebalancing(task.prior, 0.7)
    codes = task.bins.soft_codes()
    expected = 0.0
    for colour in task.inputs(rgb, 0)[1][:, :, :1, :1]:
        picked, shares = (part[0, 0, 0].numpy() for part in codes(colour[None]))
        expected -= weights[picked[0]] * (shares * np.log((task.prior * weights)[picked])).sum() / 2
    assert loss == pytest.approx(expected, rel=1e-4)


def test_taking_back_the_rebalancing_shifts_the_head_alone() -> None:
    task = make_task(recipe(), two_colours())
    state = fresh_state(task, None)
    plain = averaged(task, state)
    shifted = averaged(dataclasses.replace(task, recipe=recipe(package=PackageConfig(taken_back=0.5))), state)
    expected = -0.5 * np.log(rebalancing(task.prior, 0.7))
    found = (shifted.network.head.bias - plain.network.head.bias).detach().numpy()  # type: ignore[union-attr,operator]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["l2", "l1", "smooth_l1"])
def test_regressions_learn_it_too(tmp_path: Path, kind: Any) -> None:
    made = recipe(objective=ObjectiveConfig(kind=kind), epochs=20.0, evaluate_epochs=20.0)
    dark, light = found_ab(load_model(str(fit(made, two_colours(), tmp_path))))
    assert dark[1] < -15
    assert light[1] > 15


def test_frequent_bins_in_yuv(tmp_path: Path) -> None:
    network = {"name": "colorunet", "widths": (8, 16)}
    made = recipe(
        network=network, bins=BinsConfig("frequent", 2), data=DataConfig(augmentation="colorunet"), evaluate_epochs=5.0
    )
    model = load_model(str(fit(made, two_colours(), tmp_path)))
    assert model.bins.space == "yuv"
    assert len(model.bins) == 2
    centers = torch.from_numpy(model.bins.centers)[:, :, None, None]
    ab = to_ab("yuv", torch.tensor([18.0, 81.0])[:, None, None, None], centers)
    assert {bool(b > 0) for b in ab[:, 1, 0, 0]} == {False, True}


def test_the_same_seed_gives_the_same_losses_and_another_does_not(tmp_path: Path) -> None:
    short = recipe(epochs=2.0)
    first = losses(short, tmp_path / "a")
    assert losses(short, tmp_path / "b") == first
    assert losses(recipe(epochs=2.0, seed=1), tmp_path / "c") != first


def test_a_finished_run_is_not_trained_further_and_a_longer_one_goes_on(run: Path) -> None:
    assert losses(recipe(epochs=20.0, evaluate_epochs=5.0), run, resume=True) == []
    assert len(losses(recipe(epochs=21.0, evaluate_epochs=5.0), run, resume=True)) in (8, 9, 10)


def test_it_stops_on_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    made = recipe(epochs=None, minutes=0.02)
    reports: list[Report] = []
    fit(made, two_colours(), tmp_path, report=reports.append)
    assert time.monotonic() - begun < 30  # the last step may overrun on a busy machine
    assert reports[-1].seconds + 0.3 >= 0.02 * 60
    assert reports[0].progress < reports[-1].progress == 1


def test_patience_ends_it_early(tmp_path: Path) -> None:
    """With a rate of next to nothing the held-out loss stays, so every evaluation after the first disappoints."""
    reports: list[Report] = []
    made = recipe(learning_rate=1e-30, weight_decay=0.0, average=0.0, patience=2, evaluate_epochs=1.0)
    frozen = dataclasses.replace(made, data=DataConfig(augmentation="plain"), objective=ObjectiveConfig(kind="l2"))
    fit(frozen, two_colours(), tmp_path, report=reports.append)
    measured = [r.held_out for r in reports if r.held_out is not None]
    best = measured.index(min(measured))
    assert len(measured) == best + 3 < 10
    assert reports[-1].progress < 0.9


@pytest.fixture(scope="module")
def base(run: Path) -> Model:
    return load_model(str(run / "tiny.safetensors"))


def test_a_base_is_where_it_begins(tmp_path: Path, base: Model) -> None:
    made = recipe(network=None, epochs=1.0, learning_rate=1e-9, data=DataConfig(augmentation="plain"))
    tuned = load_model(str(fit(made, two_colours(), tmp_path, base=base)))
    assert json.loads(tuned.metadata["training"])["base"] == {"name": base.name, "sha256": base.sha256}
    np.testing.assert_allclose(found_ab(tuned), found_ab(base), atol=2)


def test_regression_begins_from_a_classification(tmp_path: Path, base: Model) -> None:
    task = make_task(recipe(network=None, objective=ObjectiveConfig(kind="l2")), two_colours())
    network = fresh_state(task, base).network
    torch.testing.assert_close(network.stem[0].weight, base.network.stem[0].weight)  # type: ignore[index,union-attr]
    assert network.head.out_channels == 2  # type: ignore[union-attr]
    made = recipe(network=None, objective=ObjectiveConfig(kind="l2"), epochs=1.0)
    assert load_model(str(fit(made, two_colours(), tmp_path, base=base))).network.config.bins == 0  # type: ignore[union-attr]


def test_a_run_begins_with_the_shipped_weights() -> None:
    base = load_model("default")
    network = fresh_state(make_task(recipe(network=None), two_colours()), base).network
    torch.testing.assert_close(network.head.weight.detach(), base.network.head.weight)  # type: ignore[union-attr]


def test_a_base_of_other_sizes_is_refused(tmp_path: Path, base: Model) -> None:
    other = TINY | {"widths": (8, 16, 16, 16, 32)}
    with pytest.raises(RecipeError, match=r"choose another base"):
        fit(recipe(network=other), two_colours(), tmp_path, base=base)
    with pytest.raises(RecipeError, match=r"the recipe asks for ECCV16"):
        fit(recipe(network={"name": "eccv16"}), two_colours(), tmp_path, base=base)


def test_a_loss_that_is_not_a_number_ends_it_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    made = recipe(checkpoint_minutes=1e-9, clip=1e30, learning_rate=1e20, warmup=0.0)
    with pytest.raises(EngineError, match=r"the loss is .* at step .*; the checkpoint before it is kept: lower"):
        fit(made, two_colours(), tmp_path)
    with safe_open(tmp_path / "last.safetensors", "pt") as f:
        assert int(f.metadata()["step"]) >= 1
        assert all(torch.isfinite(f.get_tensor(name)).all() for name in f.keys())  # noqa: SIM118


def test_a_run_in_the_way_is_not_overwritten(run: Path) -> None:
    before = (run / "last.safetensors").read_bytes()
    with pytest.raises(RecipeError, match=r"has a run already; --resume"):
        fit(recipe(), two_colours(), run)
    with pytest.raises(RecipeError, match=r"recipe\.training\.seed 0, not 5"):
        fit(recipe(evaluate_epochs=5.0, seed=5), two_colours(), run, resume=True)
    with pytest.raises(RecipeError, match=r"pictures [0-9a-f]+, not"):
        fit(recipe(evaluate_epochs=5.0), two_colours(42), run, resume=True)
    assert (run / "last.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(InputError, match=r"last\.safetensors: not a whole checkpoint"):
        fit(recipe(), two_colours(), tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file.*cannot be written"):
        fit(recipe(epochs=1.0), two_colours(), tmp_path / "file" / "out")


def test_trouble_with_the_photographs_reaches_the_caller(tmp_path: Path) -> None:
    photos = two_colours()
    task = dataclasses.replace(photos, pixels=photos.pixels[: 64 * 64 * 3 * 5])
    with pytest.raises(ValueError, match="reshape"):
        fit(recipe(objective=ObjectiveConfig(kind="l2")), task, tmp_path)
