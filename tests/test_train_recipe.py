"""Training recipes: those shipped, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.losses import ObjectiveConfig
from model.networks import NETWORKS
from model.recipe import load_recipe, shipped
from model.schedule import Stage
from pipeline.errors import RecipeError

WHOLE = """
[network]
name = "unet"
widths = [16, 32, 32, 64, 64]

[bins]
kind = "gamut"

[objective]
kind = "smooth_l1"

[data]
short-edge = 128
augmentation = "plain"
sources = [{ path = "dives", weight = 2, licence = "CC0" }, { path = "/films/a.mkv" }]

[training]
epochs = 3
stages = [{ begin = 0.0, size = 64, batch = 16 }]
learning-rate = 1e-3
patience = 3

[package]
taken_back = 0.5
"""


def written(tmp_path: Path, text: str = WHOLE) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_recipe_is_read_whole(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path))
    assert recipe.name == "mine"
    assert recipe.network == {"name": "unet", "widths": (16, 32, 32, 64, 64)}
    assert recipe.objective == ObjectiveConfig(kind="smooth_l1")
    assert recipe.training.stages == (Stage(0.0, 64, 16),)
    assert (recipe.training.epochs, recipe.training.patience, recipe.training.learning_rate) == (3.0, 3, 1e-3)
    assert recipe.package.taken_back == 0.5
    first, second = recipe.data.sources
    assert (first.path, first.weight, first.licence) == (str(tmp_path / "dives"), 2.0, "CC0")
    assert second.path == "/films/a.mkv"


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path))
    assert recipe.within(None, None) is recipe
    assert recipe.within(5.0, None).training.minutes == 5
    assert recipe.within(5.0, None).training.epochs is None
    assert [s.path for s in recipe.on(["photos.zip"]).data.sources] == ["photos.zip"]
    assert recipe.on([]).data.sources == recipe.data.sources
    assert recipe.beginning_with("default").base == "default"
    with pytest.raises(RecipeError, match="either minutes or epochs"):
        recipe.within(1.0, 1.0)


@pytest.mark.parametrize("name", ["colorunet", "default", "eccv16", "fast", "refine", "underwater"])
def test_the_shipped_ones(name: str) -> None:
    assert name in shipped()
    recipe = load_recipe(name).on(["photos"]).beginning_with(None)
    assert recipe.objective.classifies
    if recipe.network is not None:
        keys = {key: value for key, value in recipe.network.items() if key != "name"}
        assert NETWORKS[recipe.network["name"]][0](bins=3, **keys).bins == 3


def test_colorunet_is_as_published() -> None:
    recipe = load_recipe("colorunet")
    assert (recipe.bins.kind, recipe.bins.count, recipe.bins.space) == ("frequent", 32, "yuv")
    assert (recipe.objective.uniform, recipe.data.augmentation, recipe.data.short_edge) == (0.3, "colorunet", 256)
    training = recipe.training
    assert (training.learning_rate, training.patience, training.evaluate_epochs) == (1e-4, 3, 1)
    assert training.stages == (Stage(0.0, 256, 48),)
    assert {training.rate(p) for p in (0, 0.5, 1)} == {1e-4}


def test_underwater_goes_on_from_the_default() -> None:
    recipe = load_recipe("underwater")
    assert (recipe.base, recipe.network) == ("default", None)
    assert recipe.training.minutes is not None
    assert recipe.training.minutes < 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[network]", "[netwrok]"), r"no such key 'netwrok' \(did you mean 'network'\?\)"),
        (("learning-rate", "learning-rat"), r"no such key training\.learning-rat \(did you mean 'learning-rate'\?\)"),
        (("weight = 2", "wait = 2"), r"no such key data\.sources\[0\]\.wait \(did you mean 'weight'\?\)"),
        (("widths =", "width ="), r"no such key network\.width \(did you mean 'widths'\?\)"),
        (("widths = ", "bins = 4\nwidths = "), r"no such key network\.bins"),
        (('name = "unet"', 'name = "vgg"'), r"network\.name expects one of unet, eccv16, colorunet; got 'vgg'"),
        (('name = "unet"', ""), r"network\.name expects one of"),
        (('"smooth_l1"', '"l3"'), r"objective\.kind expects one of classification, l2, l1, smooth_l1; got 'l3'"),
        (("epochs = 3", 'epochs = "3"'), r"training\.epochs expects a number, got '3'"),
        (("epochs = 3", "epochs = true"), r"training\.epochs expects a number, got True"),
        (("patience = 3", "patience = 2.5"), r"training\.patience expects a whole number, got 2\.5"),
        (("epochs = 3", ""), r"\[training\]: expected either minutes or epochs"),
        (("epochs = 3", "epochs = 3\nminutes = 4"), r"\[training\]: expected either minutes or epochs"),
        (("size = 64", "size = 72"), r"training\.stages expects sizes in multiples of 32, got 72"),
        (
            ("stages = [{ begin = 0.0, size = 64, batch = 16 }]", "stages = 4"),
            r"training\.stages expects a list, got 4",
        ),
        (("begin = 0.0, ", ""), r"training\.stages\[0\].*begin"),
        (("short-edge = 128", "short-edge = 8"), r"\[data\]: expected a short-edge of 32"),
        (("taken_back = 0.5", "taken_back = 5"), r"\[package\]: expected a temperature"),
        (("[package]", "package = 3\n[other]"), r"no such key 'other'|package expects a table"),
        (("[network]", "["), r"is not TOML"),
        (("[network]", "[" * 100_000), r"is not TOML"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    assert change[0] in WHOLE
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(written(tmp_path, WHOLE.replace(*change)))
    assert str(caught.value).startswith(str(tmp_path / "mine.toml"))
    assert "\n" not in str(caught.value)


def test_crops_of_eccv16_are_those_of_the_paper() -> None:
    assert load_recipe("eccv16").training.stages[0].size == 176


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'defualt' \(did you mean 'default'\?\); there are colorunet, "):
        load_recipe("defualt")
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read: No such file"):
        load_recipe(str(tmp_path / "none.toml"))


def test_without_pictures_or_network_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="recipe default names no pictures; add --data PATH"):
        load_recipe("default").on([])
    recipe = load_recipe(written(tmp_path, "[training]\nminutes = 1\n"))
    with pytest.raises(RecipeError, match=r"mine has no \[network\]; give it one, or --base MODEL"):
        recipe.beginning_with(None)
    assert recipe.beginning_with("default").network is None
