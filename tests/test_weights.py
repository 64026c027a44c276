"""The model package: what is written is what is read, and nothing else is believed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.bins import gamut_bins, no_bins
from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.unet import UNet, UNetConfig
from model.registry import PRETRAINED
from model.spaces import Space
from model.weights import FORMAT, load_model, save_model
from pipeline.errors import EngineError

TINY = UNetConfig(bins=313, widths=(4, 8, 8, 8, 8), encoder=(1, 0, 0, 1), decoder=(0, 0, 1))
BINS = gamut_bins()
PRIOR = np.full(313, 1 / 313)


def tiny() -> UNet:
    torch.manual_seed(0)
    net = UNet(TINY)
    net(torch.rand(4, 1, 64, 64) * 100)  # gives batch normalisation statistics of its own
    return net.eval()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("package") / "tiny.safetensors"
    save_model(
        path, network=tiny(), bins=BINS, prior=PRIOR, temperature=0.38, training={"hours": 1}, metrics={"auc": 2}
    )
    return path.read_bytes()


@pytest.fixture
def package(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(content)
    return path


def rewritten(path: Path, tensors: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> Path:
    """The package with some tensors or metadata replaced, or dropped where None."""
    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
    old = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    new = {k: v for k, v in (load_file(path) | (tensors or {})).items() if v is not None}
    save_file(new, path, {k: v for k, v in (old | (metadata or {})).items() if v is not None})
    return path


def test_a_package_computes_what_the_network_did(package: Path) -> None:
    model = load_model(str(package))
    picture = torch.rand(1, 1, 64, 32) * 100
    with torch.inference_mode():
        torch.testing.assert_close(model.network(picture), tiny()(picture), atol=2e-2, rtol=1e-2)  # float16 weights
    assert not model.network.training
    assert (model.name, model.temperature) == ("tiny", 0.38)
    assert model.sha256 == hashlib.sha256(package.read_bytes()).hexdigest()
    np.testing.assert_array_equal(model.bins.centers, BINS.centers)
    np.testing.assert_allclose(model.prior, PRIOR, rtol=1e-6)
    assert json.loads(model.metadata["training"]) == {"hours": 1}
    assert json.loads(model.metadata["metrics"]) == {"auc": 2}
    assert model.metadata["format"] == FORMAT
    assert model.bins.space == model.metadata["space"] == "lab"
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def test_small_variances_survive(tmp_path: Path) -> None:
    net = tiny()
    net.stem[1].running_var.fill_(1e-9)  # 0 in float16
    path = tmp_path / "v.safetensors"
    save_model(path, network=net, bins=BINS, prior=PRIOR, temperature=1.0, training={}, metrics={})
    assert load_model(str(path)).network.stem[1].running_var[0].item() == pytest.approx(1e-9)


def test_a_package_of_format_1_is_read_as_lab(package: Path) -> None:
    now = load_model(str(package))
    words = "CIE Lab, D65, 2 degrees; input L* 0..100, output a* b*"
    then = load_model(str(rewritten(package, metadata={"format": "reelcolor-model/1", "space": words})))
    assert then.bins.space == "lab"
    np.testing.assert_array_equal(then.bins.centers, now.bins.centers)


@pytest.mark.parametrize("space", ["lab", "yuv"])
def test_a_regression_has_no_bins_but_a_space(tmp_path: Path, space: Space) -> None:
    path = tmp_path / "r.safetensors"
    net = ColorUNet(ColorUNetConfig(bins=0, widths=(4, 8))).eval()
    save_model(path, network=net, bins=no_bins(space), prior=np.empty(0), training={}, metrics={})
    model = load_model(str(path))
    assert (model.bins.space, len(model.bins), model.prior.shape) == (space, 0, (0,))
    picture = torch.rand(1, 1, 32, 32) * 100
    with torch.inference_mode():
        torch.testing.assert_close(model.network(picture), net(picture), atol=2e-3, rtol=1e-2)


def test_what_does_not_fit_together_is_not_written(tmp_path: Path) -> None:
    for bins, prior in ((BINS, PRIOR[:-1]), (no_bins(), PRIOR), (no_bins(), PRIOR[:0])):
        with pytest.raises(ValueError, match="expected 313 bins"):
            save_model(tmp_path / "x.safetensors", network=tiny(), bins=bins, prior=prior, training={}, metrics={})
    assert not list(tmp_path.iterdir())


def test_the_default_model_is_small_and_complete() -> None:
    path = PRETRAINED / "default.safetensors"
    assert path.stat().st_size <= 16 << 20
    model = load_model()
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(model.metadata["training"])["samples"] > 0
    assert model.prior.sum().item() == pytest.approx(1, abs=1e-4)


def drop(name: str) -> Callable[[Path], object]:
    return lambda p: rewritten(p, tensors={name: None})


def put(name: str, value: torch.Tensor) -> Callable[[Path], object]:
    return lambda p: rewritten(p, tensors={name: value})


def meta(**values: str | None) -> Callable[[Path], object]:
    return lambda p: rewritten(p, metadata=values)


def config(**values: object) -> Callable[[Path], object]:
    return meta(
        config=json.dumps(
            {"bins": 313, "widths": [4, 8, 8, 8, 8], "encoder": [1, 0, 0, 1], "decoder": [0, 0, 1]} | values
        )
    )


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "not a complete safetensors file"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "not a complete safetensors file"),
    "text": (lambda p: p.write_text("hello, this is no model at all"), "not a complete safetensors file"),
    "pickle": (lambda p: torch.save({"a": torch.ones(2)}, p), "not a complete safetensors file"),
    "endless header": (lambda p: p.write_bytes(b"\xff" * 64), "not a complete safetensors file"),
    "no metadata": (lambda p: save_file({"a": torch.ones(1)}, p), "expected a package of format"),
    "other format": (meta(format="reelcolor-model/9"), "reelcolor-model/9"),
    "no bins": (drop("bins"), "'bins' is missing"),
    "no config": (meta(config=None), "'config' is missing"),
    "config not JSON": (meta(config="{"), "Expecting property name"),
    "config not an object": (meta(config="[1]"), "not an object"),
    "config of another network": (config(depth=3), "depth"),
    "endless config": (config(encoder=[10**9, 1, 1, 1]), "0 to 64 blocks"),
    "config too wide": (config(widths=[4, 8, 8, 8, 4096]), "has shape"),
    "unknown network": (meta(network="resnet"), "resnet"),
    "weight missing": (drop("network.head.weight"), "head.weight"),
    "weight unknown": (put("network.extra", torch.ones(1)), "extra"),
    "weight misshapen": (put("network.head.bias", torch.ones(5)), "head.bias has shape"),
    "weight not a number": (put("network.head.bias", torch.full((313,), torch.nan)), "NaN"),
    "weight of integers": (put("network.head.bias", torch.ones(313, dtype=torch.int32)), "floating-point"),
    "bins of no colour": (put("bins", torch.full((313, 2), 1e4)), "expected centres"),
    "space unknown": (meta(space="cmyk"), "cmyk"),
    "no space": (meta(space=None), "'space' is missing"),
    "bins misshapen": (put("bins", torch.ones(5, 2)), "expected 313 bins"),
    "prior misshapen": (put("prior", torch.ones(5)), "expected 313 bins"),
    "temperature 0": (meta(temperature="0"), "positive temperature"),
    "temperature nan": (meta(temperature="nan"), "positive temperature"),
    "temperature a word": (meta(temperature="warm"), "warm"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_package_is_refused_in_one_line(package: Path, damage: str) -> None:
    spoil, reason = DAMAGE[damage]
    spoil(package)
    with pytest.raises(EngineError) as e:
        load_model(str(package))
    message = str(e.value)
    assert message.startswith(f"{package}: ")
    assert reason in message
    assert "get the model package again" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nonsense", "no such model; known:"),
        ("x.safetensors", "no such file"),
        ("../default", "no such model"),
        ("", "no such"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        load_model(name)


def test_a_folder_is_not_a_package(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(EngineError, match="is a folder"):
        load_model(str(tmp_path / "a.safetensors"))
