"""Where everything was made once, an engine is opened without PyTorch, and held against the same reference."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from skimage import data

from jobs.cli import main
from model import engines
from model.cache import cache_folder
from model.engines import open_engine
from model.engines.golden import golden, golden_frames, reference
from model.engines.selftest import check
from model.outline import outlined
from model.sealed import keep, unsealed
from model.weights import Model, load_model, save_model
from pipeline.errors import EngineError

ROOT = Path(__file__).parents[1]
NOT_ASKED = "the network was asked again"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def package(model: Model, tmp_path: Path) -> str:
    return packed(model, tmp_path / "tiny.safetensors", 0.38)


def packed(model: Model, path: Path, temperature: float) -> str:
    parts = {"network": model.network, "bins": model.bins, "prior": model.prior}
    save_model(path, **parts, training={}, metrics={}, temperature=temperature)
    return str(path)


def unasked(*_: object) -> None:
    raise AssertionError(NOT_ASKED)


def kept(cache: Path) -> Path:
    (path,) = (cache / "golden").iterdir()
    return path


def test_what_is_kept_is_what_pytorch_computes(package: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = golden_frames(64, 96)
    expected = reference(load_model(package), 0.38, frames)
    assert np.ptp(expected) > 10
    first = golden(outlined(package), 0.38, 64, 96)
    monkeypatch.setattr("model.weights.read_package", unasked)
    again = golden(outlined(package), 0.38, 64, 96)
    for found in (first, again):
        np.testing.assert_array_equal(found[0], frames)
        np.testing.assert_array_equal(found[1], expected)


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


def under_another_header(**other: object) -> Callable[[Path], None]:
    """The right content, said to be of something else."""

    def harm(path: Path) -> None:
        data = path.read_bytes()
        length = int.from_bytes(data[49:53], "little")
        header = json.loads(data[53 : 53 + length])
        assert other.keys() <= header.keys()
        keep(path, header | other, unsealed(path, header))

    return harm


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is truncated or was changed"),
    "empty": (lambda path: path.write_bytes(b""), "is no file of this version's cache"),
    "changed": (changed, "is truncated or was changed"),
    "of other weights": (under_another_header(weights="cd" * 32), "is of weights cdcdcd"),
    "of another size": (under_another_header(size=[96, 64]), "is of size [96, 64], not [64, 96]"),
    "of a temperature nearly the same": (under_another_header(temperature=0.38000001), "is of temperature 0.38000001"),
    "of another PyTorch": (under_another_header(torch="2.1.0"), "is of torch 2.1.0"),
    "of another version": (under_another_header(reelcolor="0.0.9"), "is of reelcolor 0.0.9"),
    "of older frames": (under_another_header(frames=0), "is of frames 0"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_does_not_fit_is_made_anew_with_one_line(
    package: str, cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    caplog.set_level(logging.INFO, "model")
    outline = outlined(package)
    expected = golden(outline, 0.38, 64, 96)[1]
    sound = kept(cache).read_bytes()
    change, words = HARMS[harm]
    change(kept(cache))
    for _ in range(2):  # the second time what was made anew is there
        np.testing.assert_array_equal(golden(outline, 0.38, 64, 96)[1], expected)
    assert kept(cache).read_bytes() == sound
    (line,) = [r.getMessage() for r in caplog.records]
    assert f"{kept(cache)}: {words}" in line
    assert line.endswith("; it is made anew")


def test_other_weights_temperatures_and_sizes_have_references_of_their_own(
    model: Model, package: str, tmp_path: Path, cache: Path
) -> None:
    other = packed(model, tmp_path / "other.safetensors", 0.5)
    wanted = [(package, 0.38, 64), (other, 0.38, 64), (package, 0.5, 64), (package, 0.38, 32)]
    for one, temperature, h in wanted:
        golden(outlined(one), temperature, h, 64)
    assert len(list((cache / "golden").iterdir())) == 4


def test_an_engine_is_held_against_what_is_kept(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outline = outlined(package)
    with open_engine(outline, "openvino", precision="fp32") as engine:
        assert check(engine, 64, 96).problem == ""
        monkeypatch.setattr("model.engines.golden.reference", unasked)
        assert check(engine, 64, 96).problem == ""
        assert "differs from the reference" in check(Shifted(engine), 64, 96).problem


class Shifted(engines.Engine):
    """An engine's colours, a cell off."""

    runtime = "shifted-1/f32"

    def __init__(self, engine: engines.Engine) -> None:
        super().__init__(engine.model, engine.temperature)
        self._engine = engine

    def compute(self, lightness: np.ndarray) -> np.ndarray:
        return np.roll(self._engine(lightness), 1, axis=3)


def test_the_second_run_needs_no_pytorch(package: str, tmp_path: Path) -> None:
    photograph = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).convert("L").save(photograph)
    arguments = ["colorize", str(photograph), "--model", package, "--precision", "fp32", "-o"]
    assert CliRunner().invoke(main, [*arguments, str(tmp_path / "first")]).exit_code == 0
    code = f"""
import sys
from jobs.cli import main
main({[*arguments, str(tmp_path / "second")]!r}, standalone_mode=False)
print("LOADED", *(name for name, module in sys.modules.items() if module))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split("LOADED")[1].split())
    assert "openvino" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "ray", "openvino_telemetry"}
    first, second = (np.asarray(Image.open(tmp_path / folder / "cat.png")) for folder in ("first", "second"))
    np.testing.assert_array_equal(first, second)
    assert np.ptp(first.astype(int), axis=2).max() > 10


def test_an_outline_is_what_the_model_says_and_reads_its_weights_when_asked(
    package: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "model")
    model = load_model(package)
    with monkeypatch.context() as patch:
        for count in range(3):
            outline = outlined(package)
            for name in ("name", "sha256", "temperature", "scale", "classes"):
                assert getattr(outline, name) == getattr(model, name)
            if not count:
                patch.setattr("model.weights.read_package", unasked)
    assert outline.whole() is outline.whole()
    assert torch.equal(outline.whole().network.head.weight, model.network.head.weight)
    (path,) = cache.glob("*.outline")
    changed(path)
    assert outlined(package).scale == 4
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: is truncated or was changed; the model package is read anew"
    ]


def test_a_package_that_changes_is_another_model_and_not_read_as_the_first(
    model: Model, package: str, tmp_path: Path, cache: Path
) -> None:
    outlined(package)
    before = outlined(package)
    packed(model, Path(package), 0.5)
    after = outlined(package)
    assert (before.temperature, after.temperature) == (0.38, 0.5)
    assert before.sha256 != after.sha256
    with pytest.raises(EngineError, match="changed while it was read"):
        before.whole()
    Path(package).write_bytes(Path(package).read_bytes()[:1000])
    with pytest.raises(EngineError, match="not a complete safetensors file"):
        outlined(package)
    assert len(list(cache.glob("*.outline"))) == 2
    with pytest.raises(EngineError, match="no such file"):
        outlined(str(tmp_path / "gone.safetensors"))


def test_pytorch_is_asked_for_a_gpu_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(engines.ctypes, "CDLL", missing)
    assert not engines._has_gpu()
    asked: list[str] = []
    monkeypatch.setattr(engines.ctypes, "CDLL", asked.append)
    assert engines._has_gpu()
    assert asked == ["libcuda.so.1"]
