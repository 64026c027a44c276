"""The exported graph in each precision, against the network in PyTorch, by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from skimage import color, data, transform
from torch import nn

from model import export
from model.bins import gamut_bins, no_bins
from model.engines.golden import reference
from model.engines.selftest import LIMITS, differences
from model.exported import cached_onnx
from model.lowering import _folded, lowered
from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig
from model.weights import Model

RNG = np.random.default_rng(0)


def package(net: nn.Module, sha256: str = "ab" * 32) -> Model:
    """The network with statistics and opinions, so that ab spreads."""
    for _ in range(3):
        net(torch.rand(2, 1, 64, 64) * 100)
    nn.init.normal_(net.head.weight, std=1.0)
    bins = gamut_bins() if net.config.bins else no_bins("lab")
    prior = np.full(len(bins), 1 / 313, np.float32)
    return Model("tiny", sha256, net.eval().requires_grad_(False), bins, prior, 0.38, {})


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    torch.manual_seed(0)
    return {
        "unet": package(UNet(UNetConfig(bins=313, widths=(8, 8, 8, 8, 8), encoder=(0, 0, 0, 1), decoder=(0, 0, 0)))),
        "eccv16": package(ECCV16(ECCV16Config(bins=313, width=4))),
        "colorunet": package(ColorUNet(ColorUNetConfig(bins=0, widths=(4, 8)))),
    }


@pytest.fixture(scope="module")
def halves(models: dict[str, Model]) -> dict[str, bytes]:
    """The graphs in float16, exported once as each takes seconds."""
    return {name: export.to_onnx(model, "fp16") for name, model in models.items()}


def pictures(h: int, w: int) -> np.ndarray:
    """L* (3, 1, h, w): noise, a photograph, and its inverse."""
    lightness = color.rgb2lab(transform.resize(data.astronaut(), (h, w)))[..., 0]
    return np.stack([RNG.random((h, w)) * 100, lightness, 100 - lightness]).astype(np.float32)[:, None]


def run(graph: bytes, lightness: np.ndarray, temperature: float) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {"lightness": lightness, "temperature": np.array(temperature, np.float32)}
    return session.run(["ab"], {i.name: inputs[i.name] for i in session.get_inputs()})[0]


@pytest.mark.parametrize("name", ["unet", "eccv16", "colorunet"])
def test_the_graph_in_float16_agrees_with_torch_in_float32(
    models: dict[str, Model], halves: dict[str, bytes], name: str
) -> None:
    for (h, w), temperature in (((64, 96), 0.38), ((96, 32), 1.0)):
        lightness = pictures(h, w)
        expected = reference(models[name], temperature, lightness)
        found = run(halves[name], lightness, temperature)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        difference = differences(lightness, expected, found)
        assert difference.mean() < LIMITS["fp16"].mean / 2
        assert np.percentile(difference, 99) < LIMITS["fp16"].p99 / 2
        assert differences(lightness, expected, 1.1 * expected).mean() > difference.mean()


@pytest.mark.parametrize("name", ["unet", "eccv16", "colorunet"])
def test_precision_lies_in_the_graph(halves: dict[str, bytes], name: str) -> None:
    inside, mean, ends = types(halves[name])
    assert set(inside) == {onnx.TensorProto.FLOAT16}
    assert set(mean) <= {onnx.TensorProto.FLOAT}
    assert set(ends) == {onnx.TensorProto.FLOAT}


def test_bfloat16_is_a_valid_graph(models: dict[str, Model]) -> None:
    inside, mean, ends = types(export.to_onnx(models["unet"], "bf16"))
    assert set(inside) == {onnx.TensorProto.BFLOAT16}
    assert set(mean) == set(ends) == {onnx.TensorProto.FLOAT}


def types(data: bytes) -> tuple[list[int], list[int], list[int]]:
    """Element types of a graph that passes the full check: inside the network, after it, and of inputs and outputs."""
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    after = {"Softmax", "Clip"}
    inside = [kinds[n.output[0]] for n in graph.node if n.op_type in ("ConvTranspose", "Relu", "MaxPool", "Resize")]
    mean = [kinds[n.output[0]] for n in graph.node if n.op_type in after]
    return inside, mean, [v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)]


def test_a_norm_after_a_convolution_costs_nothing(models: dict[str, Model]) -> None:
    """It is in the weights: no scaling is left of it, and in float32 the colours are the same."""
    lightness = pictures(64, 96)
    for name, scalings in (("unet", 0), ("eccv16", 7)):  # eccv16's norms come after the ReLU
        found = lowered(models[name], torch.float32)
        traced = [node.target for node in found.network.network.graph.nodes if node.op == "call_module"]
        kinds = [type(found.network.network.get_submodule(target)).__name__ for target in traced]
        assert kinds.count("_Affine") == scalings
        assert "BatchNorm2d" not in kinds
        np.testing.assert_allclose(
            reference(found, 0.38, lightness), reference(models[name], 0.38, lightness), atol=2e-3
        )


class _UsedTwice(nn.Module):
    """A convolution whose output goes through a norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.norm(torch.randn(8, 3, 16, 16) * 5 + 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return torch.relu(self.norm(x)) + x


def test_a_norm_stays_where_what_it_follows_is_used_without_it_too() -> None:
    torch.manual_seed(0)
    module, x = _UsedTwice().eval(), torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(_folded(module)(x), module(x))


def test_small_variances_survive_float16() -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(bins=313, widths=(8, 16, 16, 16, 16), encoder=(0, 0, 0, 0), decoder=(0, 0, 0)))
    model = package(net)
    with torch.no_grad():
        net.stem[1].running_var.fill_(1e-9)  # below what float16 holds
        net.stem[1].eps = 1e-12
        net.stem[0].weight.mul_(1e-4)
    lightness = pictures(64, 64)
    expected = reference(model, 0.38, lightness)
    found = reference(lowered(model, torch.float16), 0.38, lightness)
    assert np.isfinite(found).all()
    assert differences(lightness, expected, found).mean() < LIMITS["fp16"].mean


def test_the_model_itself_is_left_in_float32(models: dict[str, Model]) -> None:
    before = {k: v.clone() for k, v in models["unet"].network.state_dict().items()}
    lowered(models["unet"], torch.float16)
    after = models["unet"].network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_each_precision_is_cached_for_itself(
    models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []
    monkeypatch.setattr("model.export.to_onnx", lambda _, precision: made.append(precision) or precision.encode())
    for _ in range(2):
        assert [cached_onnx(models["unet"], p) for p in ("fp32", "fp16", "bf16")] == [b"fp32", b"fp16", b"bf16"]
    assert made == ["fp32", "fp16", "bf16"]
