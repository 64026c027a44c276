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

from model.bins import gamut_bins
from model.networks.unet import UNet, UNetConfig
from model.weights import FORMAT, PRETRAINED, available, load_model, save_model
from pipeline.errors import EngineError

TINY = UNetConfig(bins=309, widths=(4, 8, 8, 8, 8), encoder=(1, 0, 0, 1), decoder=(0, 0, 1))
PRIOR = torch.full((309,), 1 / 309)


def tiny() -> UNet:
    torch.manual_seed(0)
    net = UNet(TINY)
    net(torch.rand(4, 1, 64, 64) * 100)  # gives batch normalisation statistics of its own
    return net.eval()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("package") / "tiny.safetensors"
    bins = torch.from_numpy(gamut_bins())
    save_model(
        path, network=tiny(), bins=bins, prior=PRIOR, temperature=0.38, training={"hours": 1}, metrics={"auc": 2}
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
    np.testing.assert_array_equal(model.bins.numpy(), gamut_bins())
    assert json.loads(model.metadata["training"]) == {"hours": 1}
    assert json.loads(model.metadata["metrics"]) == {"auc": 2}
    assert model.metadata["format"] == FORMAT
    assert "Lab" in model.metadata["space"]
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def test_small_variances_survive(tmp_path: Path) -> None:
    net = tiny()
    net.stem[1].running_var.fill_(1e-9)  # 0 in float16
    path = tmp_path / "v.safetensors"
    bins = torch.from_numpy(gamut_bins())
    save_model(path, network=net, bins=bins, prior=PRIOR, temperature=1.0, training={}, metrics={})
    assert load_model(str(path)).network.stem[1].running_var[0].item() == pytest.approx(1e-9)


def test_the_default_model_is_small_and_complete() -> None:
    if "default" not in available():
        pytest.skip("no default weights in this checkout")
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
            {"bins": 309, "widths": [4, 8, 8, 8, 8], "encoder": [1, 0, 0, 1], "decoder": [0, 0, 1]} | values
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
    "weight not a number": (put("network.head.bias", torch.full((309,), torch.nan)), "NaN"),
    "weight of integers": (put("network.head.bias", torch.ones(309, dtype=torch.int32)), "floating-point"),
    "bins misshapen": (put("bins", torch.ones(5, 2)), "expected 309 bins"),
    "prior misshapen": (put("prior", torch.ones(5)), "expected 309 bins"),
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
