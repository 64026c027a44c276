"""Ways to colour compared on pictures whose answer is known, and the sums against pooled pixels."""

from __future__ import annotations

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest

from model.baselines import BorrowedColour, all_grey
from model.bins import gamut_bins
from model.evaluate import (
    Judge,
    coloured,
    compare,
    evaluate,
    intervals,
    pictured,
    resized,
    shown,
    truth_of,
)
from model.measures import ClassWeights, credit, delta_e_2000, ssim
from model.tally import MEASURES
from pipeline.color import lab_to_rgb, rgb_to_lab
from pipeline.quality import colourfulness, psnr

RNG = np.random.default_rng(0)
CENTERS = gamut_bins().centers
UNIFORM = ClassWeights(CENTERS, np.full(len(CENTERS), 1 / len(CENTERS)))
AREA = 64 * 64


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((64, 64, 3), colour, np.uint8)


def scenes(count: int) -> list[np.ndarray]:
    """Pictures of soft blobs of colour, of different shapes."""
    shapes = itertools.cycle([(64, 64), (48, 90), (90, 48)])
    small = (RNG.integers(0, 256, (5, 5, 3), np.uint8) for _ in range(count))
    return [
        cv2.resize(blobs, shape, interpolation=cv2.INTER_CUBIC) for blobs, shape in zip(small, shapes, strict=False)
    ]


def sepia(lightness: np.ndarray) -> np.ndarray:
    return all_grey(lightness) + np.array([8, 20], np.float32)[:, None, None]


def test_the_truth_scores_a_hundred_and_grey_does_not() -> None:
    picture = plain((180, 90, 60))
    ab = rgb_to_lab(picture[0, 0] / 255)[1:]

    def truth(lightness: np.ndarray) -> np.ndarray:
        return all_grey(lightness) + ab[:, None, None].astype(np.float32)

    best = evaluate(truth, [picture], UNIFORM, AREA)
    assert best["auc"] == pytest.approx(100, abs=0.4)
    assert best["auc_rebalanced"] == pytest.approx(best["auc"])
    assert best["psnr"] > 60
    assert best["ssim"] == pytest.approx(1, abs=1e-4)
    assert best["delta_e"] < 0.01
    assert best["colourfulness_difference"] == pytest.approx(0, abs=0.05)
    grey = evaluate(all_grey, [picture], UNIFORM, AREA)
    assert grey["auc"] == pytest.approx(100 * (1 - np.hypot(*ab) / 150), abs=0.4)
    assert grey["chroma"] == 0
    assert grey["colourfulness"] == pytest.approx(0, abs=0.02)
    assert grey["colourfulness_difference"] == pytest.approx(-colourfulness(picture), abs=0.05)
    assert grey["psnr"] < 25


def test_sums_over_pictures_are_the_measures_of_the_pooled_pixels() -> None:
    pictures = scenes(6)
    weights = ClassWeights(CENTERS, RNG.random(len(CENTERS)) + 0.1)
    found = evaluate(sepia, pictures, weights, AREA)
    truths = [truth_of(picture, weights, AREA) for picture in pictures]
    labs = [np.dstack([t.lab[..., 0], np.full_like(t.lab[..., 1:], (8, 20))]) for t in truths]
    shapes = {lab.shape for lab in labs}
    assert len(shapes) == 3
    errors = np.concatenate(
        [np.hypot(*(a - t.lab)[..., 1:].reshape(-1, 2).T) for a, t in zip(labs, truths, strict=True)]
    )
    weight = np.concatenate([t.weight.ravel() for t in truths])
    differences = np.concatenate([delta_e_2000(t.lab, a).ravel() for a, t in zip(labs, truths, strict=True)])
    rgbs = [(np.clip(lab_to_rgb(a), 0, 1), t.rgb) for a, t in zip(labs, truths, strict=True)]
    expected = {
        "auc": 100 * credit(errors).mean(),
        "auc_rebalanced": 100 * np.average(credit(errors), weights=weight),
        "psnr": np.mean([psnr(a, b, 1.0) for a, b in rgbs]),
        "ssim": np.mean([ssim(a, b) for a, b in rgbs]),
        "delta_e": differences.mean(),
        "colourfulness": np.mean([colourfulness(a) for a, _ in rgbs]),
        "colourfulness_difference": np.mean([colourfulness(a) - colourfulness(b) for a, b in rgbs]),
        "chroma": np.hypot(8, 20),
    }
    assert found.keys() == expected.keys() | {"delta_e_p90"} == MEASURES.keys() - {"top1"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert found["delta_e_p90"] == pytest.approx(np.percentile(differences, 90), abs=0.1)


def test_rebalancing_raises_what_rare_colours_weigh() -> None:
    picture = plain((128, 128, 128))
    picture[:, :8] = (220, 30, 30)  # an eighth is red
    weights = ClassWeights(CENTERS, np.where(np.abs(CENTERS).max(1) < 15, 0.1, 1e-4))
    grey = evaluate(all_grey, [picture], weights, AREA)
    assert grey["auc"] > 90
    assert grey["auc_rebalanced"] < 60


def test_differences_are_paired_and_agree_with_a_bootstrap_over_pictures() -> None:
    pictures = scenes(60)
    found = compare({"truth": None, "gray": all_grey, "sepia": sepia}, pictures, UNIFORM, area=32 * 32, replicates=400)
    assert list(found) == ["truth", "gray", "sepia"]
    assert found["truth"].keys() == {"colourfulness", "chroma"}
    alone, apart = intervals(found["sepia"])["delta_e"], intervals(found["sepia"], found["gray"])["delta_e"]
    each = np.array(
        [[evaluate(way, [p], UNIFORM, 32 * 32, threads=1)["delta_e"] for way in (sepia, all_grey)] for p in pictures]
    )
    pixels = np.array([resized(p, 32 * 32)[..., 0].size for p in pictures])
    drawn = np.random.default_rng(1).integers(0, 60, (4000, 60))
    means = (each[drawn] * pixels[drawn, None]).sum(1) / pixels[drawn].sum(1)[:, None]
    expected = np.percentile(means[:, 0], [2.5, 97.5])
    assert (alone.low, alone.high) == pytest.approx(tuple(expected), abs=0.25 * np.ptp(expected))
    expected = np.percentile(means[:, 0] - means[:, 1], [2.5, 97.5])
    assert (apart.low, apart.high) == pytest.approx(tuple(expected), abs=0.25 * np.ptp(expected))
    assert all(found.low == found.high == 0 for found in intervals(found["gray"], found["gray"]).values())


def test_pictures_of_one_unit_are_drawn_together() -> None:
    pictures = [picture for picture in scenes(8) for _ in range(8)]
    apart = compare({"gray": all_grey}, pictures, UNIFORM, area=32 * 32, replicates=300)
    units = [str(i // 8) for i in range(64)]
    together = compare({"gray": all_grey}, pictures, UNIFORM, area=32 * 32, replicates=300, units=units)
    assert np.nanstd(together["gray"]["auc"]) > 2 * apart["gray"]["auc"].std()
    assert together["gray"]["auc"][0] == apart["gray"]["auc"][0]
    one = compare({"gray": all_grey}, pictures[:8], UNIFORM, area=32 * 32, units=units[:8])
    assert intervals(one["gray"])["auc"].low is None


def test_the_number_of_threads_does_not_matter() -> None:
    pictures = scenes(40)
    one, four = (
        compare({"random": BorrowedColour(pictures)}, pictures, UNIFORM, area=32 * 32, replicates=9, threads=threads)
        for threads in (1, 4)
    )
    for name, values in one["random"].items():
        np.testing.assert_array_equal(values, four["random"][name])


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    class Endless:
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> np.ndarray:
            return np.full((32, 32, 3), index % 256, np.uint8)

    def peak(count: int) -> int:
        tracemalloc.start()
        compare({"gray": all_grey}, Endless(count), UNIFORM, area=32 * 32, replicates=5, threads=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(128) < 1.05 * peak(32)


def test_a_judge_counts_what_it_names_rightly() -> None:
    def reddish(rgb: np.ndarray) -> int:
        return int(rgb[..., 0].mean() > rgb[..., 2].mean() + 0.05)

    red, blue = plain((200, 80, 80)), plain((80, 80, 200))
    pictures = [red, blue, red, blue]
    told = compare(
        {"truth": None, "sepia": sepia, "gray": all_grey}, pictures, UNIFORM, judge=Judge(reddish, [1, 0, 0, None])
    )
    assert {name: values["top1"][0] for name, values in told.items()} == {
        "truth": pytest.approx(200 / 3),
        "sepia": pytest.approx(100 / 3),
        "gray": pytest.approx(200 / 3),
    }
    untold = compare({"truth": None, "sepia": sepia, "gray": all_grey}, pictures, UNIFORM, judge=Judge(reddish))
    assert [values["top1"][0] for values in untold.values()] == [100, 50, 50]


def test_borrowed_colour_is_another_pictures_at_a_quarter() -> None:
    donor = np.full((30, 50, 3), (10, 120, 200), np.uint8)
    ab = BorrowedColour([donor])(np.zeros((2, 1, 64, 96), np.float32))
    assert ab.shape == (2, 2, 16, 24)
    np.testing.assert_allclose(ab[1, :, 5, 5], rgb_to_lab(donor[0, 0] / 255)[1:], atol=1e-3)


def test_no_picture_borrows_of_itself() -> None:
    pictures = [resized(picture, 64 * 64) for picture in scenes(4)]
    borrowed = BorrowedColour(pictures)
    for picture in pictures:
        lab = rgb_to_lab(picture / 255).astype(np.float32)
        own = cv2.resize(lab[..., 1:], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        found = borrowed(np.ascontiguousarray(lab[None, None, ..., 0]))[0].transpose(1, 2, 0)
        assert np.abs(found - own).mean() > 5
    with pytest.raises(ValueError, match="got none"):
        BorrowedColour([])


def test_colour_is_enlarged_to_the_lightness() -> None:
    assert coloured(all_grey, np.zeros((32, 64))).shape == (32, 64, 2)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_colour_comes_at_a_networks_own_scale(scale: int) -> None:
    def ramp(lightness: np.ndarray) -> np.ndarray:
        small = lightness[..., ::scale, ::scale] * 0.5
        return np.concatenate([small, -small], axis=1)

    lightness = np.linspace(0, 80, 64, dtype=np.float32)[None].repeat(64, 0)
    ab = coloured(ramp, lightness)
    np.testing.assert_allclose(ab[32, 8:-8], (lightness[32, 8:-8, None] * [0.5, -0.5]), atol=1.3)


def test_a_sheets_row_holds_truth_and_each_way() -> None:
    picture = plain((180, 90, 60))
    truth, grey, tinted = pictured({"gray": all_grey, "sepia": sepia}, [picture], AREA)[0]
    np.testing.assert_array_equal(truth, picture)
    assert np.ptp(grey.astype(int), axis=-1).max() == 0
    assert tinted[0, 0, 0] > tinted[0, 0, 2]
    lightness = rgb_to_lab(picture / 255)[..., 0]
    np.testing.assert_allclose(
        rgb_to_lab(shown(lightness, coloured(sepia, lightness)) / 255)[..., 0], lightness, atol=0.5
    )
