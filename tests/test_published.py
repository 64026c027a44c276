"""Import of published weights: the colours of the release's own forward pass, and nothing unaccounted for."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.bins import annealed_mean
from model.engines import open_engine
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.published import import_eccv16, import_published
from model.weights import Model, load_model
from pipeline.errors import EngineError, RecipeError, StorageError


def convolutions(*channels: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """3×3 convolutions from each number of channels to the next, a ReLU after each, the stride in the last."""
    layers: list[nn.Module] = []
    for i, o in pairwise(channels):
        layers += [nn.Conv2d(i, o, 3, 1, dilation, dilation), nn.ReLU(True)]
    layers[-2].stride = (stride, stride)
    return layers


class Release(nn.Module):
    """richzhang/colorization, colorizers/eccv16.py, by its layers, up to where it enlarges ab four times."""

    def __init__(self) -> None:
        super().__init__()
        self.model1 = nn.Sequential(*convolutions(1, 64, 64, stride=2), nn.BatchNorm2d(64))
        self.model2 = nn.Sequential(*convolutions(64, 128, 128, stride=2), nn.BatchNorm2d(128))
        self.model3 = nn.Sequential(*convolutions(128, 256, 256, 256, stride=2), nn.BatchNorm2d(256))
        self.model4 = nn.Sequential(*convolutions(256, 512, 512, 512), nn.BatchNorm2d(512))
        self.model5 = nn.Sequential(*convolutions(512, 512, 512, 512, dilation=2), nn.BatchNorm2d(512))
        self.model6 = nn.Sequential(*convolutions(512, 512, 512, 512, dilation=2), nn.BatchNorm2d(512))
        self.model7 = nn.Sequential(*convolutions(512, 512, 512, 512), nn.BatchNorm2d(512))
        up = [nn.ConvTranspose2d(512, 256, kernel_size=4, stride=2, padding=1), nn.ReLU(True)]
        self.model8 = nn.Sequential(*up, *convolutions(256, 256, 256), nn.Conv2d(256, 313, kernel_size=1))
        self.softmax = nn.Softmax(dim=1)
        self.model_out = nn.Conv2d(313, 2, kernel_size=1, bias=False)

    def forward(self, lightness: Tensor) -> Tensor:
        x = (lightness - 50.0) / 100.0
        for i in range(1, 9):
            x = getattr(self, f"model{i}")(x)
        return self.model_out(self.softmax(x)) * 110.0


@pytest.fixture(scope="module")
def release() -> Release:
    """The release with weights of chance, strong enough to have opinions."""
    torch.manual_seed(0)
    net = Release()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.0)
    nn.init.normal_(net.model8[6].weight, std=0.1)
    net.model_out.weight.data[:, :, 0, 0] = torch.randint(-10, 11, (2, 313)) / 11
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def imported(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("published")
    torch.save(release.state_dict(), folder / "colorization.pth")
    return import_eccv16(folder / "colorization.pth", folder / "zhang.safetensors")


def pictures(h: int = 64, w: int = 64) -> Tensor:
    return torch.rand(2, 1, h, w, generator=torch.Generator().manual_seed(1)) * 100


def colours(model: Model, lightness: Tensor) -> Tensor:
    return annealed_mean(model.network(lightness), torch.from_numpy(model.bins.centers), model.temperature)


def test_the_state_dict_is_the_networks_own_and_a_table_of_bins(release: Release) -> None:
    with torch.device("meta"):
        own = ECCV16(ECCV16Config())
    theirs = {name: tensor.shape for name, tensor in release.state_dict().items() if name != "model_out.weight"}
    assert {name: tensor.shape for name, tensor in own.state_dict().items()} == theirs


def test_colours_are_those_of_the_releases_forward(release: Release, imported: Model) -> None:
    with torch.inference_mode():
        expected = release(pictures())
        found = colours(imported, pictures())
    assert expected.std() > 3
    assert (found - expected).abs().mean() < 0.5  # float16 weights
    assert (found - expected).abs().mean() <= 2 * float(
        json.loads(imported.metadata["metrics"])["float16_mean_delta_ab"]
    )


def test_mapped_back_the_weights_are_the_releases_rounded(release: Release, imported: Model) -> None:
    """The other way: our network and bins, under the release's names, compute the same in the release's code."""
    theirs = dict(imported.network.state_dict()) | {
        "model_out.weight": torch.from_numpy(imported.bins.centers).T[:, :, None, None] / 110
    }
    again = Release().eval()
    again.load_state_dict(theirs)
    for name, tensor in release.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-6, rtol=1e-3, check_dtype=False)
    with torch.inference_mode():
        expected = colours(imported, pictures())
        torch.testing.assert_close(again(pictures()), expected, atol=1e-3, rtol=1e-4)


def test_the_package_says_where_it_is_from_and_what_its_temperature_means(imported: Model) -> None:
    assert imported.temperature == 1.0
    assert (imported.metadata["network"], json.loads(imported.metadata["config"])["bins"]) == ("eccv16", 313)
    training = json.loads(imported.metadata["training"])
    assert "plain softmax" in training["temperature"]
    assert "not the authors' file" in training["source"]
    assert (training["data"], training["licence"]) == ("unknown", "unknown")
    assert len(training["imported_sha256"]) == 64
    assert imported.prior.tolist() == pytest.approx([1 / 313] * 313)


@pytest.mark.slow
def test_it_runs_in_the_cpu_engine(imported: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for shape in ((64, 64), (32, 96)):  # the exported graph takes any
        picture = pictures(*shape)[:1]
        with torch.inference_mode():
            expected = colours(imported, picture).numpy()
        with open_engine(imported, "openvino", threads=1, precision="fp32") as engine:
            np.testing.assert_allclose(engine(picture.numpy()), expected, atol=0.05)


# Damage, on state dicts of the right names and shapes whose tensors repeat one number, so that files stay small.


def flat_state() -> dict[str, Any]:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Release().state_dict().items()}
    whole = {name for name in shapes if name.endswith("num_batches_tracked")}
    return {name: torch.tensor(5) if name in whole else torch.full((1,), 0.01).expand(s) for name, s in shapes.items()}


class Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch executed",)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.pop(name)


def having(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.update({name: value})


BIAS = "model8.6.bias"
DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (without("model5.2.weight"), "1 tensors are missing, such as model5.2.weight"),
    "no table of bins": (without("model_out.weight"), "model_out.weight"),
    "unknown": (having("model9.0.weight", torch.zeros(1)), "unknown to the network, such as 'model9.0.weight'"),
    "a key that is no name": (having(7, torch.zeros(1)), "unknown to the network, such as '7'"),
    "wrong shape": (having(BIAS, torch.zeros(314)), "model8.6.bias has shape (314,), expected (313,)"),
    "more dimensions": (having(BIAS, torch.zeros(313, 1)), "model8.6.bias has shape"),
    "NaN": (having(BIAS, torch.full((313,), torch.nan)), "model8.6.bias holds what is no finite number"),
    "whole numbers": (having(BIAS, torch.zeros(313, dtype=torch.int64)), "model8.6.bias holds what is no finite"),
    "sparse": (having(BIAS, torch.zeros(313).to_sparse()), "model8.6.bias is no plain tensor"),
    "a list": (having(BIAS, [0.0] * 313), "model8.6.bias is no plain tensor"),
    "a counter misshapen": (having("model1.4.num_batches_tracked", torch.zeros(9)), "num_batches_tracked has shape"),
    "negative variance": (having("model7.6.running_var", torch.full((512,), -1.0)), "its colours change by inf"),
    "too large for float16": (having("model8.6.weight", torch.full((1,), 1e6).expand(313, 256, 1, 1)), "by inf in ab"),
    "bins not ab/110": (having("model_out.weight", torch.full((2, 313, 1, 1), 60.0)), "which is no ab/110"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_the_published_state_dict_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    spoil, reason = DAMAGE[damage]
    state = flat_state()
    spoil(state)
    torch.save(state, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").stat().st_size < 1 << 20
    refused(tmp_path / "x.pth", reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.zeros(2)], "holds a list, not a state dict"),
        ({"state_dict": {}, "epoch": 3}, "tensors are missing"),
        (Code(), "without running code"),
        (nn.Conv2d(1, 1, 1), "without running code"),
    ],
)
def test_files_that_hold_something_else(
    content: object, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", reason)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 and no more", pickle.dumps(Code())])
def test_files_that_are_no_weights_at_all(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", "cannot be read as PyTorch weights alone")
    assert not (tmp_path / "executed").exists()


def refused(path: Path, reason: str) -> None:
    with pytest.raises(EngineError) as e:
        import_eccv16(path, path.with_name("out.safetensors"))
    message = str(e.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "give the state dict that the authors published" in message
    assert "\n" not in message
    assert not path.with_name("out.safetensors").exists()


def test_counters_may_be_absent_as_older_pytorch_wrote_none(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in flat_state().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    import_eccv16(tmp_path / "old.pth", tmp_path / "out.safetensors")
    assert load_model(str(tmp_path / "out.safetensors")).network.model8[6].bias.eq(0.01).all()


def test_an_output_is_never_replaced_and_is_a_package_by_name(tmp_path: Path) -> None:
    (tmp_path / "out.safetensors").write_bytes(b"precious")
    with pytest.raises(EngineError, match="is there already"):
        import_published(tmp_path / "x.pth", "eccv16", tmp_path / "out.safetensors")
    with pytest.raises(RecipeError, match=r"ends in \.safetensors"):
        import_published(tmp_path / "x.pth", "eccv16", tmp_path / "out.pth")
    with pytest.raises(EngineError, match="no such file"):
        import_published(tmp_path / "x.pth", "eccv16", tmp_path / "new.safetensors")
    torch.save(flat_state(), tmp_path / "flat.pth")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        import_published(tmp_path / "flat.pth", "eccv16", tmp_path / "file" / "new.safetensors")
