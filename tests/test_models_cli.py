"""`reelcolor models` as a shell sees it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_unet

from jobs.cli import main
from jobs.models_cli import models
from model import registry
from model.bins import gamut_bins, no_bins
from model.complexity import complexity
from model.engines import selftest
from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.published import IMPORTERS
from model.weights import save_model

TRAINING = {"sources": {"museum": {"photographs": 3, "licence": "CC0-1.0"}}, "samples": 12}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


def document(*arguments: object) -> dict[str, object]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    loaded: dict[str, object] = json.loads(result.stdout)
    return loaded


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_package(path: Path) -> Path:
    prior, metrics = np.full(313, 1 / 313), {"auc": 91.5}
    kind = {"network": tiny_unet(), "bins": gamut_bins(), "prior": prior, "temperature": 0.38}
    save_model(path, **kind, training=TRAINING, metrics=metrics)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$REELCOLOR_MODELS, holding the model `film`; nothing else is known."""
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(registry, "PRETRAINED", tmp_path / "shipped")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("REELCOLOR_MODELS", str(tmp_path / "models"))
    return write_package(tmp_path / "models" / "film.safetensors").parent


def test_list_names_every_model_and_fetches_nothing(folder: Path, tmp_path: Path) -> None:
    film = folder / "film.safetensors"
    (tmp_path / "shipped" / "own.safetensors").write_bytes(film.read_bytes())
    (folder / "torn.safetensors").write_bytes(film.read_bytes()[:-9])
    digest = "0123456789abcdef" * 4
    (folder / "registry.toml").write_text(f'[far]\nsha256 = "{digest}"\nurls = ["http://127.0.0.1:1/far"]\n')
    found = {d["name"]: d for d in document("list")["models"]}
    assert list(found) == ["far", "film", "own", "torn"]
    assert {n: d["origin"] for n, d in found.items()} == {
        "far": "registry",
        "film": "folder",
        "own": "shipped",
        "torn": "folder",
    }
    assert found["film"] | {"urls": None} == {
        "name": "film",
        "origin": "folder",
        "path": str(film),
        "bytes": film.stat().st_size,
        "sha256": sha256(film),
        "network": "unet",
        "urls": None,
        "problem": None,
    }
    assert (found["far"]["sha256"], found["far"]["bytes"], found["far"]["problem"]) == (digest, None, None)
    assert "not a complete safetensors file" in found["torn"]["problem"]

    words = call("list").output.splitlines()
    assert words[0].split() == ["name", "from", "network", "size", "SHA-256"]
    assert words[1].split() == ["far", "registry", "to", "be", "fetched", digest]
    assert words[2].split()[:3] == ["film", "REELCOLOR_MODELS", "unet"]
    assert words[-1].startswith(f"PROBLEM: {folder}/torn.safetensors: ")


def test_list_fetches_nothing_even_where_the_cached_copy_is_damaged(folder: Path) -> None:
    away = write_package(folder.parent / "away.safetensors")
    (folder / "registry.toml").write_text(f'[far]\nsha256 = "{sha256(away)}"\nurls = ["{away.as_uri()}"]\n')
    cached = Path(registry.locate("far").path)
    cached.write_bytes(cached.read_bytes()[:-1])
    found = {d["name"]: d for d in document("list")["models"]}
    assert "not a complete safetensors file" in found["far"]["problem"]
    assert document("verify", "far")["sha256"] == sha256(away)  # this does fetch


def test_show_says_what_the_package_says(folder: Path) -> None:
    shown = document("show", "film")
    assert (shown["network"], shown["bins"], shown["temperature"]) == ("unet", 313, 0.38)
    assert (shown["training"], shown["metrics"]) == (TRAINING, {"auc": 91.5})
    assert shown["sha256"] == sha256(folder / "film.safetensors")
    words = call("show", folder / "film.safetensors").output
    for told in ("CC0-1.0", "91.5", "annealed mean", "313 bins", str(shown["sha256"]), "CIE Lab"):
        assert told in words


def test_show_says_of_a_regression_that_it_has_no_bins_and_no_temperature(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    net = ColorUNet(ColorUNetConfig(bins=0, widths=(4, 4)))
    save_model(path, network=net, bins=no_bins("yuv"), prior=np.empty(0), training={}, metrics={})
    shown = document("show", path)
    assert (shown["bins"], shown["scale"], shown["network"]) == (0, 1, "colorunet")
    assert shown["flops_256"] == complexity(net).flops
    words = call("show", path).output
    for told in ("colour itself", "that of the input", "has no effect", "BT.601"):
        assert told in words


def test_verify_tries_the_package_in_the_engine(folder: Path) -> None:
    checked = document("verify", "film")
    assert checked["problems"] == []
    assert str(checked["engine"]).startswith("openvino-")
    assert checked["sha256"] == sha256(folder / "film.safetensors")
    assert checked["registered_sha256"] is None
    result = call("verify", "film")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "sound")
    assert "none on record" in result.output


def test_verify_holds_a_package_to_the_registered_hash(folder: Path, tmp_path: Path) -> None:
    film = folder / "film.safetensors"
    (folder / "registry.toml").write_text(f'[film]\nsha256 = "{sha256(film)}"\nurls = []\n')
    assert "as registered" in call("verify", "film").output
    for own in (film, tmp_path / "shipped" / "film.safetensors"):  # a shipped one is held to it, too
        (folder / "registry.toml").write_text(f'[film]\nsha256 = "{"0" * 64}"\nurls = []\n')
        own.write_bytes(film.read_bytes())
        result = call("verify", "film")
        assert (result.exit_code, result.output.splitlines()[-1]) == (1, "not sound")
        assert f"PROBLEM: {own}: its SHA-256 is {sha256(own)}" in result.output


def test_verify_finds_damage_and_an_engine_that_computes_otherwise(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(selftest.LIMITS, "fp32", selftest.Limits(-1, -1))
        result = call("verify", "film", "--json")
        assert result.exit_code == 1
        assert "differs from the reference" in json.loads(result.stdout)["problems"][0]
    film = folder / "film.safetensors"
    film.write_bytes(film.read_bytes()[:-1])
    result = call("verify", "film")
    assert result.exit_code == 1
    assert "PROBLEM" in result.output


def test_a_name_that_leads_nowhere_is_one_line_and_exit_1() -> None:
    for command in ("show", "verify"):
        result = call(command, "nonsense")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: nonsense: no such model; known: film")
        assert result.stderr.count("\n") == 1


def test_metadata_of_any_kind_is_shown_and_cannot_drive_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    write_package(path)
    with safe_open(path, "pt") as f:
        tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        metadata = dict(f.metadata())
    save_file(tensors, path, metadata | {"training": '{"a": [1', "metrics": '{"x\\u001b[2J": null}'})
    result = call("show", path)
    assert result.exit_code == 0
    assert '{"a": [1' in result.output
    assert "\x1b" not in result.output


def test_import_writes_a_package_and_shows_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = ECCV16(ECCV16Config()).state_dict() | {"model_out.weight": torch.rand(2, 313, 1, 1) - 0.5}
    torch.save(weights, tmp_path / "published.pth")
    output = tmp_path / "models" / "zhang.safetensors"
    arguments = ("import", tmp_path / "published.pth", "--network", "eccv16", "-o", output)
    shown = document(*arguments)
    assert (shown["network"], shown["parameters"], shown["temperature"]) == ("eccv16", 32_235_385, 1.0)
    assert "plain softmax" in str(shown["temperature_means"])
    assert "zhang" in {d["name"] for d in document("list")["models"]}
    again = call(*arguments)
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_import_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"no weights")
    result = call("import", tmp_path / "x.pth", "--network", "eccv16", "-o", tmp_path / "x.safetensors")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/x.pth: ")
    assert result.stderr.count("\n") == 1
    misnamed = call("import", tmp_path / "x.pth", "--network", "eccv16", "-o", tmp_path / "x.onnx")
    assert (misnamed.exit_code, "ends in .safetensors" in misnamed.stderr) == (2, True)


def test_every_network_that_can_be_imported_is_offered() -> None:
    option = next(p for p in models.commands["import"].params if p.name == "network")
    assert list(option.type.choices) == list(IMPORTERS)
