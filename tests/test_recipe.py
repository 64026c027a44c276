"""Recipes: what the command line and a TOML file may say, and what they are told when they say it wrong."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from jobs.plan import encoder_settings
from jobs.recipe import Recipe, make_recipe, parse_fps, parse_limits
from pipeline.errors import RecipeError
from pipeline.limits import Limits


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'codec = "hevc"\ncrf = 20\nsegment-seconds = 5\nrecolor = true\nfps = "24000/1001"\n')
    recipe = make_recipe(file, {"crf": 22.0, "codec": None, "recolor": None})
    assert recipe == Recipe(codec="hevc", crf=22.0, segment_seconds=5.0, recolor=True, fps=Fraction(24000, 1001))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('codek = "hevc"', r"recipe\.toml: no such key 'codek' \(did you mean 'codec'\?\)"),
        ('codec = "h265"', "expects one of h264"),
        ("saturation = 3", "--saturation expects 0 to 2, got 3"),
        ('saturation = "high"', "saturation expects a number, got 'high'"),
        ("recolor = 1", "recolor expects true or false, got 1"),
        ("crf = true", "crf expects a number, got True"),
        ("model = 3", "model expects a string"),
        ("workers = 4", "workers says how to run.*command line"),
        ("temperature = 0", "--temperature expects 0.01 to 2, got 0"),
        ("segment-seconds = 0.5", "--segment-seconds expects 1 to 3600, got 0.5"),
        ("segment-seconds = 5\nsegment_seconds = 6", "given twice"),
        ("fps = 0", "--fps expects more than 0"),
        ("fps = true", "fps expects a number"),
        ("temperature = nan", "--temperature expects"),
        ('precision = "fp4"', "--precision expects one of auto, fp32, fp16, bf16, int8, fp8; got 'fp4'"),
        ("[section]\ncrf = 3", "no such key 'section'"),
        ("limits = 3", r"limits expects a table such as \[limits\]"),
        ("[limits]\nimage-pixel = 3", r"no such limit 'image-pixel' \(did you mean 'image-pixels'\?\)"),
        ("[limits]\nratio = 0", "limit ratio expects a whole number from 1 on, got 0"),
        ("[limits]\nratio = 1.5", "limit ratio expects a whole number"),
        ("crf =", "is not TOML"),
        (f"crf = {'9' * 5000}", "is not TOML"),
        (f"crf = {'[' * 100_000}", "is not TOML"),
        (f"crf = {'9' * 400}", "crf expects a number, got a larger one than there is"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        make_recipe(toml(tmp_path, text), {})


def test_limits_come_from_both_and_make_another_recipe(tmp_path: Path) -> None:
    file = toml(tmp_path, "[limits]\nimage-pixels = 7\nratio = 8")
    recipe = make_recipe(file, {"limits": parse_limits(["ratio=9", "image_pages=10"])})
    assert recipe.limits == Limits(image_pixels=7, ratio=9, image_pages=10)
    assert recipe.digest() != Recipe().digest()
    for text in ("ratio", "ratio=much", "ratio=-1", "=3", "rati=3"):
        with pytest.raises(RecipeError, match=r"KEY=NUMBER|no such limit"):
            parse_limits([text])


def test_what_editors_put_before_the_text_is_no_mistake(tmp_path: Path) -> None:
    assert make_recipe(toml(tmp_path, "\ufeffcrf = 20\r\n"), {}).crf == 20


def test_a_recipe_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read: No such file"):
        make_recipe(tmp_path / "none.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="is not TOML"):
        make_recipe(tmp_path / "binary.toml", {})


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("25", Fraction(25)),
        ("24000/1001", Fraction(24000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("16.67", Fraction(1667, 100)),
        ("12.5", Fraction(25, 2)),
        ("18", Fraction(18)),
    ],
)
def test_rates(text: str, fps: Fraction) -> None:
    assert parse_fps(text) == fps


@pytest.mark.parametrize("text", ["", "fast", "25/0", "inf", "nan"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match="--fps expects a rate"):
        parse_fps(text)


def test_digest_tells_recipes_apart() -> None:
    recipes = [Recipe(), Recipe(crf=20), Recipe(recolor=True), Recipe(fps=Fraction(25)), Recipe(model="x")]
    recipes.append(Recipe(precision="fp32"))
    assert len({recipe.digest() for recipe in recipes}) == len(recipes)
    assert Recipe().digest() == Recipe().digest()


def test_profile_and_codec_make_the_encoder() -> None:
    access = encoder_settings(Recipe())
    assert (access.codec, access.crf, access.preset) == ("h264", 18.0, "medium")
    assert encoder_settings(Recipe(profile="preservation")).codec == "ffv1"
    other = encoder_settings(Recipe(codec="hevc", preset="fast"))
    assert (other.codec, other.crf, other.preset) == ("hevc", None, "fast")
    assert encoder_settings(Recipe(crf=0)).crf == 0


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(profile="mezzanine", crf=18), "prores has no CRF"),
        (Recipe(crf=60), "CRF of h264 lies in 0..51, got 60"),
        (Recipe(codec="av1", preset="medium"), "preset 'medium' is not one of av1's"),
    ],
)
def test_quality_is_held_against_the_codec(recipe: Recipe, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        encoder_settings(recipe)
