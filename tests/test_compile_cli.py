"""`reelcolor compile` as a shell sees it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from skimage import data, transform
from tiny import tiny_unet

from jobs.compiling import calibration_pictures, default_sizes, parse_sizes
from jobs.compiling_cli import _DEVICES, compile_command
from jobs.recipe import PRECISIONS
from model import engines
from model.bins import gamut_bins
from model.cache import cache_folder
from model.engines import prove_engine, selftest
from model.engines.golden import reference
from model.engines.openvino import has_bf16
from model.engines.torch import TorchEngine
from model.outline import outlined
from model.weights import save_model
from pipeline.errors import StorageError
from pipeline.infer import network_sizes
from pipeline.storage import sha256_file


def call(*arguments: object) -> Result:
    return CliRunner().invoke(compile_command, [*map(str, arguments)])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "film.safetensors"
    prior = np.full(313, 1 / 313, np.float32)
    save_model(path, network=tiny_unet(), bins=gamut_bins(), prior=prior, temperature=0.38, training={}, metrics={})
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of pieces of scikit-image's colour photographs."""
    path = tmp_path_factory.mktemp("photographs") / "photographs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, picture in (("astronaut", data.astronaut()), ("coffee", data.coffee()), ("cat", data.chelsea())):
            for i, x in enumerate((0, 120)):
                piece = transform.resize(picture[:240, x : x + 260], (170, 190))
                file = io.BytesIO()
                Image.fromarray((piece * 255).astype(np.uint8)).save(file, "PNG")
                archive.writestr(f"{name}{i}.png", file.getvalue())
    return path


def test_it_compiles_checks_and_leaves_the_graph_in_the_cache(package: Path, cache: Path) -> None:
    result = call(package, "--device", "cpu", "--shapes", "64x96,32x64", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["engine"].startswith("openvino-")
    assert document["engine"].endswith("/T0.38")
    assert (document["model"], document["passed"]) == ("film", True)
    assert document["precision"] == ("bf16" if has_bf16() else "fp32")
    assert [(c["height"], c["width"], c["problem"]) for c in document["checks"]] == [(64, 96, ""), (32, 64, "")]
    limits = selftest.LIMITS[document["precision"]]
    assert all(0 <= c["mean"] <= c["p99"] <= min(c["largest"], limits.p99) for c in document["checks"])
    assert list((cache / "reelcolor").glob(f"{document['sha256']}-fp32-*.onnx"))


def test_words_name_the_engine_and_how_near_it_is(package: Path) -> None:
    result = call(package, "--precision", "fp32", "--shapes", "64x96", "--temperature", "0.5", "--device", "cpu")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith("film (")
    assert first.endswith("/T0.5")
    assert second.startswith("  64x96 fp32, golden frames: ΔE2000 from the reference 0.0")


def test_a_fallback_is_shown_and_fails_a_check(
    package: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Rounding(engines.Engine):
        runtime = "rounding-1/x"

        def compute(self, lightness: np.ndarray) -> np.ndarray:
            ab = reference(self.model, self.temperature, lightness)
            return ab if self.precision == "fp32" else ab * 1.5

    def made(wish: engines._Wish) -> tuple[engines.Engine, list[selftest.Verdict]]:
        return selftest.open_proven(
            lambda p: Rounding(wish.model, wish.temperature, precision=p), ["fp16", "fp32"], wish.sizes
        )

    monkeypatch.setattr(engines, "_openvino", made)
    arguments = (package, "--device", "cpu", "--precision", "fp16", "--shapes", "64x96")
    result = call(*arguments)
    assert result.exit_code == 0
    assert "  64x96 fp16, golden frames: FAILED: rounding-1/x/" in result.stdout
    assert "  64x96 fp32, golden frames: ΔE2000 from the reference 0.000" in result.stdout
    assert "fp32 is used instead" in caplog.text
    assert result.stderr.count("fp32 is used instead") == 1
    assert call(*arguments, "--check").exit_code == 1
    document = json.loads(call(*arguments, "--json").stdout)
    assert (document["precision"], document["passed"], document["checks"][1]["problem"]) == ("fp32", False, "")


def test_int8_is_calibrated_on_photographs_and_from_then_on_used_by_itself(
    package: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(selftest.LIMITS, "int8", selftest.Limits(8, 40))  # for a network of random weights
    making = ("--device", "cpu", "--precision", "int8", "--calibrate", photographs, "--shapes", "64x96")
    result = call(package, *making, "-o", tmp_path / "film.ranges.json")
    assert result.exit_code == 0, result.output
    assert "/int8-" in result.stdout
    assert result.stderr.count("film in INT8 is tested at every size of picture") == 1
    for h, w in ((64, 96), *network_sizes()):
        assert f"  {h}x{w} int8, golden frames: ΔE2000 from the reference " in result.stdout
    assert "160x160 int8, 1 photographs held out of the calibration: " in result.stdout
    assert "this machine's CPU uses INT8 for it, from T = 0.38 on" in result.stdout
    written = json.loads((tmp_path / "film.ranges.json").read_bytes())
    assert (written["weights"], written["coldest"]) == (sha256_file(package), 0.38)
    again = call(package, "--device", "cpu", "--shapes", "64x96")
    assert again.stdout.splitlines()[0] == result.stdout.splitlines()[0]
    assert len(again.stdout.splitlines()) == 2, "its other sizes are proven"
    colder = json.loads(call(package, "--device", "cpu", "--temperature", "0.37", "--shapes", "64x96", "--json").stdout)
    assert colder["precision"] != "int8"


def kept_ranges() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache_folder().glob("*.ranges")}


def failing_at(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    """Lets 8 bits pass everywhere else."""
    usual = selftest._judged

    def judged(engine: engines.Engine, held_against: Any, at: tuple[int, int], pictures: str) -> selftest.Verdict:
        if engine.precision != "int8":
            return usual(engine, held_against, at, pictures)
        problem = "differs from the reference" if at == size else ""
        return selftest.Verdict(engine.key, "int8", *at, 0.5, 2.0, 3.0, problem, pictures)

    monkeypatch.setattr(selftest, "_judged", judged)


@pytest.mark.parametrize("where", [(96, 384), (160, 160)], ids=["at a size not asked for", "on photographs"])
def test_ranges_that_do_not_pass_are_neither_written_nor_kept(
    package: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[int, int]
) -> None:
    failing_at(monkeypatch, where)
    arguments = ("--device", "cpu", "--precision", "int8", "--calibrate", photographs, "--shapes", "64x96")
    before = kept_ranges()
    result = call(package, *arguments, "-o", tmp_path / "film.ranges.json")
    assert result.exit_code == 1
    assert f"  {where[0]}x{where[1]} int8, " in result.stdout
    assert result.stdout.count("FAILED: differs from the reference") == 1
    assert result.stdout.endswith(
        "  NOT CALIBRATED, these ranges are neither kept nor written: differs from the reference\n"
    )
    assert not list(tmp_path.iterdir())
    assert kept_ranges() == before


def test_ranges_that_cannot_be_kept_are_written_all_the_same(
    package: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("cache: no space left")

    failing_at(monkeypatch, (0, 0))
    monkeypatch.setattr("model.engines.ranges.keep_ranges", full)
    arguments = ("--device", "cpu", "--precision", "int8", "--calibrate", photographs, "--shapes", "64x96")
    result = call(package, *arguments, "-o", tmp_path / "film.ranges.json")
    assert result.exit_code == 1
    assert "cache: no space left" in result.stderr
    assert json.loads((tmp_path / "film.ranges.json").read_bytes())["weights"] == sha256_file(package)


def test_what_another_engine_has_passed_with_is_not_taken_for_proven_on_the_cpu(
    package: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.engines.prove_engine", lambda model, **_: (TorchEngine(model, 0.38, 1), []))
    output = tmp_path / "film.ranges.json"
    result = call(package, "--precision", "int8", "--calibrate", photographs, "-o", output)
    assert result.exit_code == 0
    assert result.stdout.endswith("  calibrated for --precision int8\n")
    assert json.loads(output.read_bytes())["coldest"] is None
    with prove_engine(outlined(str(package)), "openvino", sizes=[(32, 32)])[0] as engine:
        assert engine.precision != "int8"


def test_what_no_engine_could_be_made_with_is_refused_before_ranges_are_measured(
    package: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.compiling._calibrated", lambda *_: pytest.fail("measures"))
    result = call(package, "--device", "cpu", "--precision", "fp8", "--calibrate", photographs)
    assert result.exit_code == 1
    assert "fp8 takes TensorRT" in result.stderr


def test_calibration_pictures_are_lightness_and_the_same_every_time(photographs: Path) -> None:
    pictures, others = calibration_pictures(str(photographs))
    assert len(pictures) + len(others) == 6
    assert pictures.shape[1:] == others.shape[1:] == (1, 160, 160)
    assert len(others) >= 1
    assert pictures.dtype == np.float32
    assert 20 < pictures.mean() < 80
    assert pictures.min() >= 0
    assert pictures.max() <= 100.01
    np.testing.assert_array_equal(pictures, calibration_pictures(str(photographs))[0])
    assert all(np.abs(other - pictures).max((1, 2, 3)).min() > 5 for other in others), "none is in both parts"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--shapes", "64"], 2, "expected HEIGHTxWIDTH such as 160x224, got '64'"),
        (["--shapes", "64x-96"], 2, "expected HEIGHTxWIDTH"),
        (["--shapes", "64x90"], 2, "expected multiples of 32, got 64x90"),
        (["--shapes", "0x64"], 2, "expected multiples of 32"),
        (["--calibrate", "x.zip"], 2, "give --precision int8, too"),
        (["--precision", "int8", "-o", "x.onnx"], 2, "give --calibrate, too"),
        (["--device", "cpu", "--precision", "fp16"], 1, "choose bf16 or fp32"),
        (["--device", "cpu", "--precision", "int8"], 1, "no ranges for 8 bits on this machine"),
        (["--device", "cpu", "--precision", "fp8"], 1, "fp8 takes TensorRT on an NVIDIA GPU"),
        (["--device", "cuda", "--precision", "int8"], 1, "int8 on a GPU takes TensorRT"),
    ],
)
def test_what_cannot_be_is_one_line(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = call(package, *arguments)
    assert result.exit_code == code
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(package: Path) -> None:
    result = call(package, "--device", "cuda")
    assert result.exit_code == 1
    assert "NVIDIA GPU" in result.stderr


def test_sizes_and_choices() -> None:
    assert parse_sizes("160x224, 128X256") == [(160, 224), (128, 256)]
    assert default_sizes() == [(160, 224), (128, 256)]
    assert set(_DEVICES) == set(engines.get_args(engines.Device))
    assert set(PRECISIONS) == {"auto", *engines.get_args(engines.Precision)}
