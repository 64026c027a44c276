"""`reelcolor evaluate` as a shell sees it: the table, the documents, the sheet, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from pictures import encoded, scene, tar
from PIL import Image
from test_classifier import classifier

from jobs.chosen import Chosen, bootstrap_units
from jobs.evaluate import class_weights
from jobs.evaluating_cli import evaluate
from model.bins import gamut_bins, no_bins
from model.data import in_memory
from model.networks.unet import UNet, UNetConfig
from model.weights import load_model, save_model

BINS = gamut_bins()
PRIOR = np.exp(-(BINS.centers**2).sum(1) / 900) + 1e-4
PRIOR /= PRIOR.sum()


def package(path: Path, bins: int, prior: np.ndarray = PRIOR) -> Path:
    torch.manual_seed(0)
    net = UNet(UNetConfig(bins=bins, widths=(4, 8, 8, 8, 8), encoder=(0, 0, 0, 0), decoder=(0, 0, 0)))
    net(torch.rand(4, 1, 64, 64) * 100)
    torch.nn.init.normal_(net.head.weight, std=0.3 if bins else 0.1)
    kind, known = (BINS, prior) if bins else (no_bins("yuv"), np.empty(0))
    save_model(path, network=net, bins=kind, prior=known, temperature=0.38, training={}, metrics={})
    return path


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with models, a classifier and photographs in two folders of a tar; also the cache."""
    root = tmp_path_factory.mktemp("evaluate")
    package(root / "tiny.safetensors", 313)
    package(root / "regression.safetensors", 0)
    package(root / "uniform.safetensors", 313, np.full(313, 1 / 313))
    classifier(root / "means.onnx", ["n", 3, "h", "w"])
    names = [f"{'cats' if i % 2 else 'dogs'}/{i}.png" for i in range(40)]
    tar(root / "photos.tar", {name: encoded(scene(i, 80, 100 + 20 * (i % 3))) for i, name in enumerate(names)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield root


def call(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, list(map(str, arguments)))


@pytest.fixture(scope="module")
def results(place: Path) -> tuple[Result, Path]:
    (place / "labels.csv").write_text("cats,0\ndogs,2\n7.png,1\n")
    out = place / "results"
    models = [place / "tiny.safetensors", place / "regression.safetensors"]
    options = ["--data", place / "photos.tar", "--all", "--size", 64, "--temperature", 0.38, "--temperature", 1]
    judged = ["--classifier", place / "means.onnx", "--labels", place / "labels.csv"]
    result = call(*models, *options, *judged, "-o", out)
    assert result.exit_code == 0, result.output
    return result, out


@pytest.fixture(scope="module")
def document(results: tuple[Result, Path]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((results[1] / "results.json").read_text())
    return loaded


def test_every_way_has_a_row_of_every_measure(document: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["truth", "gray", "random", "tiny T=0.38", "tiny T=1", "regression"]
    assert rows["regression"]["temperature"] is None  # it has none, and so one row
    assert rows["truth"]["values"].keys() == {"colourfulness", "chroma", "top1"}
    assert rows["gray"]["values"]["chroma"]["value"] == 0
    for name, row in rows.items():
        if name != "truth":
            assert row["values"].keys() == document["measures"].keys()
            assert all(v["low"] <= v["value"] <= v["high"] for v in row["values"].values())
    assert rows["tiny T=1"]["values"]["chroma"]["value"] < rows["tiny T=0.38"]["values"]["chroma"]["value"]
    apart = rows["random"]["against_gray"]["auc"]["value"]
    assert apart == pytest.approx(rows["random"]["values"]["auc"]["value"] - rows["gray"]["values"]["auc"]["value"])
    assert rows["gray"]["against_gray"] == rows["truth"]["against_gray"] == {}


def test_the_document_says_what_was_measured_on_what(document: dict[str, Any], place: Path) -> None:
    assert document["pictures"] == 40
    assert document["data"] == [str(place / "photos.tar")]
    assert document["weights"] == "prior of tiny, 313 bins"
    assert document["bootstrap"]["drawn"].startswith("40 groups")
    assert [row["sha256"][:2] for row in document["rows"] if row["kind"] == "model"]


def test_gray_is_named_blue_by_the_classifier_and_labels_decide(document: dict[str, Any]) -> None:
    gray = next(row for row in document["rows"] if row["name"] == "gray")
    assert gray["values"]["top1"]["value"] == pytest.approx(50)  # dogs; the means of the channels make grey the third


def test_the_table_is_the_same_on_the_terminal_and_in_markdown(results: tuple[Result, Path]) -> None:
    result, out = results
    markdown = (out / "results.md").read_text()
    shown = [line for line in result.stdout.splitlines() if line.startswith("tiny T=1")]
    assert len(shown) == 1
    for cell in shown[0].split("  "):
        assert cell.strip() in markdown
    apart = markdown.partition("## Difference from gray, picture by picture\n\n")[2].partition("\n\n")[0]
    assert "against truth" not in apart  # the same as that of colourfulness
    assert apart.count("\n") == 5  # heading, rule, random, tiny twice, regression
    assert "photos.tar: 40 pictures" in markdown


def test_the_sheet_shows_truth_grey_and_each_model(results: tuple[Result, Path]) -> None:
    sheet = np.asarray(Image.open(results[1] / "sheet.png"))
    assert sheet.shape[1] > 5 * 64  # truth, gray, twice tiny, regression
    assert np.ptp(sheet.astype(int), axis=-1).max() > 50


def test_without_a_prior_over_ab_the_data_weigh(place: Path) -> None:
    photos = in_memory([scene(seed) for seed in range(8)])
    tiny, uniform, regression = (load_model(str(place / f"{n}.safetensors")) for n in ("tiny", "uniform", "regression"))
    assert class_weights([regression, tiny], photos)[1] == "prior of tiny, 313 bins"
    weights, whose = class_weights([regression, uniform], photos)
    assert whose == "prior of the data, 313 bins"
    common, rare = np.argmax(weights.prior), np.argmin(weights.prior)
    assert weights(weights.centers[[common, rare]]).tolist() == [1 / weights.prior[common], 1 / weights.prior[rare]]


def test_only_what_is_held_out_unless_all(place: Path) -> None:
    options = ["--data", place / "photos.tar", "--size", 32, "--baselines", "none", "--json", "-o", place / "held"]
    result = call(place / "regression.safetensors", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert 0 < found["pictures"] < 10
    assert [row["name"] for row in found["rows"]] == ["truth", "regression"]
    folder = call(place / "regression.safetensors", *options, "--split", "folder")
    assert json.loads(folder.stdout)["pictures"] == 20  # cats or dogs


def test_a_repeated_measurement_is_the_same(place: Path) -> None:
    options = ["--data", place / "photos.tar", "--count", 5, "--size", 64, "--all", "--json", "-o", place / "again"]
    one, two = (call(place / "tiny.safetensors", *options) for _ in range(2))
    assert json.loads(one.stdout)["pictures"] == 5
    assert one.stdout == two.stdout
    assert "Too few for intervals" in (place / "again" / "results.md").read_text()
    assert "±" not in (place / "again" / "results.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--baselines", "grey"], 2, "'grey' is not one of gray, random"),
        (["--baselines", ""], 2, "an argument is empty"),
        (["--labels", "labels.csv"], 2, "give --classifier"),
        (["--temperature", "0"], 2, "0.01"),
        (["--classifier", "none.onnx"], 1, "none.onnx: no such file"),
        (["--classifier", "photos.tar"], 1, "not an ONNX graph"),
        (["--classifier", "means.onnx", "--labels", "high.csv"], 1, "class 3, but"),
        (["--classifier", "means.onnx", "--labels", "other.csv"], 1, "name none of the pictures"),
        (["-o", "photos.tar"], 1, "photos.tar: cannot be written"),
        (["--data", "missing"], 1, "missing"),
        (["--data", "empty"], 1, "empty"),
        (["--data", "grey"], 1, "grey"),
    ],
)
def test_bad_input_is_one_clear_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(place)
    Path("high.csv").write_text("cats,3\n")
    Path("other.csv").write_text("birds,1\n")
    Path("empty").mkdir(exist_ok=True)
    Path("grey").mkdir(exist_ok=True)
    for i in range(3):
        Path(f"grey/{i}.png").write_bytes(encoded(scene(i)[..., :1].repeat(3, axis=-1)))
    data = [] if "--data" in arguments else ["--data", "photos.tar"]
    out = [] if "-o" in arguments else ["-o", "out"]
    result = call("tiny.safetensors", *data, *arguments, *out)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == (4 if code == 2 else 1)


def test_a_model_that_is_none_is_said_before_any_picture_is_read(place: Path) -> None:
    result = call("no-such-model", "--data", place / "missing", "-o", place / "out")
    assert result.exit_code == 1
    assert "no-such-model" in result.stderr


def test_pictures_of_a_group_are_drawn_together_where_there_are_groups_enough() -> None:
    photos = in_memory([scene(0)] * 24, groups=[str(i // 2) for i in range(24)])
    assert bootstrap_units(Chosen(photos, np.array([0, 1, 2])))[0] == ["0", "1", "2"]
    units, words = bootstrap_units(Chosen(photos, np.arange(24)[::-1]))
    assert units == [str(i // 2) for i in range(24)][::-1]
    assert words.startswith("12 groups")
    few = in_memory([scene(0)] * 24, groups=["film"] * 24)
    units, words = bootstrap_units(Chosen(few, np.arange(24)))
    assert len(set(units)) == 24
    assert "too narrow" in words


def test_help_shows_an_example() -> None:
    assert "reelcolor evaluate default --data" in call("--help").stdout
