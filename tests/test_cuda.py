"""The engines on an NVIDIA GPU: what can be run without one, and marked gpu the real thing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from model import engines
from model.bins import gamut_bins
from model.engines import lanes, prove_engine
from model.engines.cuda import CudaEngine, colour, cuda_graph
from model.engines.fused import fuse
from model.engines.golden import golden_frames, reference
from model.engines.selftest import LIMITS, differences
from model.lowering import called
from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig
from model.precision import Precision
from model.weights import Model, load_model
from pipeline.errors import EngineError


def package(net: torch.nn.Module) -> Model:
    torch.manual_seed(0)
    for _ in range(3):
        net(torch.rand(4, 1, 64, 64) * 100)
    torch.nn.init.normal_(net.head.weight, std=1.0)
    net = net.eval().requires_grad_(False)
    return Model("tiny", "ab" * 32, net, gamut_bins(), np.full(313, 1 / 313, np.float32), 0.38, {})


@pytest.fixture(scope="module", params=["unet", "colorunet", "eccv16"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    if request.param == "colorunet":
        return package(ColorUNet(ColorUNetConfig(bins=313, widths=(4, 8, 8))))
    if request.param == "eccv16":
        return package(ECCV16(ECCV16Config(width=8)))
    return package(UNet(UNetConfig(bins=313, widths=(8, 16, 16, 16, 16), encoder=(1, 0, 0, 1), decoder=(0, 0, 1))))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_graph_in_channels_last_and_each_precision_is_the_reference(model: Model, precision: str) -> None:
    frames = golden_frames(32, 64)
    expected = reference(model, 0.38, frames)
    graph = cuda_graph(model, precision, torch.device("cpu"))
    output = torch.empty(expected.shape)
    colour(graph, torch.from_numpy(frames), torch.tensor(0.38), output)
    difference = differences(frames, expected, output.numpy())
    assert difference.mean() <= LIMITS[precision].mean
    assert np.percentile(difference, 99) <= LIMITS[precision].p99
    weights = [p for p in graph.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def plain_relu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *shape: Any) -> torch.Tensor:
    return torch.relu(torch.conv2d(x, weight, bias, *shape))


def plain_add_relu(
    x: torch.Tensor, weight: torch.Tensor, z: torch.Tensor, alpha: float, bias: torch.Tensor, *shape: Any
) -> torch.Tensor:
    assert x.is_contiguous(memory_format=torch.channels_last)
    return torch.relu(torch.conv2d(x, weight, bias, *shape) + alpha * z)


@pytest.mark.parametrize("name", ["unet", "eccv16"])
def test_each_relu_after_a_convolution_is_in_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The graph says the same, with cuDNN's calls by what PyTorch says of them, and no ReLU is left."""
    torch.manual_seed(0)
    blocks = UNetConfig(bins=313, widths=(8, 16, 16, 16, 16), encoder=(1, 1, 0, 2), decoder=(1, 0, 1))
    model = package(UNet(blocks) if name == "unet" else ECCV16(ECCV16Config(width=4)))
    calls = Counter[str]()
    for call, plain in (("cudnn_convolution_relu", plain_relu), ("cudnn_convolution_add_relu", plain_add_relu)):
        monkeypatch.setattr(
            torch, call, lambda *x, call=call, plain=plain: calls.update([call]) or plain(*x), raising=True
        )
    graph = cuda_graph(model, "bf16", torch.device("cpu"))
    pictures, temperature = torch.from_numpy(golden_frames(64, 96)), torch.tensor(0.38)
    with torch.inference_mode():
        expected = graph(pictures, temperature)
        assert not calls
        fuse(graph)
        found = graph(pictures, temperature)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    added, left = (6, 0) if name == "unet" else (0, 1)  # the one after eccv16's transposed convolution stays
    assert calls == Counter(cudnn_convolution_relu=12 if added else 21, cudnn_convolution_add_relu=added)
    traced = graph.network.network
    modules = [called(traced, node) for node in traced.graph.nodes]
    functions = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert sum(isinstance(m, torch.nn.ReLU) for m in modules) + functions.count(torch.nn.functional.relu) == left


class FakeCuda:
    """Streams and graphs that compute at once; `recordable` says whether a graph can be recorded."""

    def __init__(self, recordable: bool) -> None:
        self.recordable = recordable
        self.done: list[str] = []
        self.OutOfMemoryError = torch.cuda.OutOfMemoryError
        self.stream = contextlib.nullcontext

    def current_stream(self) -> FakeCuda:
        return self

    def synchronize(self) -> None:
        self.done.append("waited")

    def CUDAGraph(self) -> Any:  # noqa: N802
        return SimpleNamespace(replay=lambda: self.done.append("replayed"))

    @contextlib.contextmanager
    def graph(self, _graph: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert (stream, capture_error_mode) == (self, "thread_local")
        self.done.append("recording")
        yield
        if not self.recordable:
            raise RuntimeError("operation not permitted when stream is capturing")


def unpinned(shape: tuple[int, ...], pin_memory: bool) -> torch.Tensor:
    assert pin_memory
    return torch.zeros(shape)


@pytest.mark.parametrize("recordable", [True, False])
def test_a_lane_runs_once_records_and_then_replays(monkeypatch: pytest.MonkeyPatch, recordable: bool) -> None:
    fake = FakeCuda(recordable)
    here = SimpleNamespace(
        cuda=fake,
        zeros=unpinned,
        empty=unpinned,
        from_numpy=torch.from_numpy,
    )
    monkeypatch.setattr(lanes, "torch", here)
    source, output = torch.zeros(4, 1, 32, 32), torch.zeros(4, 2, 8, 8)

    def enqueue() -> None:
        fake.done.append("enqueued")
        output.copy_(source[:, [0, 0], ::4, ::4])

    lane = lanes.Lane(fake, source, output, enqueue)
    assert fake.done == ["waited", "enqueued", "waited", "recording", "enqueued"]
    fake.done.clear()
    pictures = np.random.default_rng(0).random((3, 1, 32, 32)).astype(np.float32)
    found = lane.run(pictures)
    assert found.shape == (3, 2, 8, 8)
    if recordable:
        assert fake.done == ["replayed", "waited"]
    else:
        assert fake.done == ["enqueued", "waited"]
        np.testing.assert_array_equal(found, pictures[:, [0, 0], ::4, ::4])
        lane.run(1 - pictures)
        np.testing.assert_array_equal(found, pictures[:, [0, 0], ::4, ::4])  # it is the caller's own


def test_memory_running_out_while_recording_is_not_taken_for_a_graph_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(recordable=True)

    def no_room(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    fake.graph = no_room
    here = SimpleNamespace(
        cuda=fake,
        zeros=unpinned,
        empty=unpinned,
    )
    monkeypatch.setattr(lanes, "torch", here)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        lanes.Lane(fake, torch.zeros(4, 1, 32, 32), torch.zeros(4, 2, 8, 8), lambda: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(model: Model) -> None:
    with pytest.raises(EngineError, match="finds no NVIDIA GPU; choose the device cpu"):
        CudaEngine(model, 0.38)


class Here:
    """A lane on the CPU: the network in whole batches, filled up with what was there before."""

    def __init__(self, model: Model, batch: int, h: int, w: int) -> None:
        self.graph = cuda_graph(model, "fp32", torch.device("cpu"))
        self.source = torch.rand(batch, 1, h, w) * 100
        self.output = torch.empty(batch, 2, h // model.network.scale, w // model.network.scale)

    def run(self, lightness: np.ndarray) -> np.ndarray:
        self.source[: len(lightness)] = torch.from_numpy(lightness)
        colour(self.graph, self.source, torch.tensor(0.38), self.output)
        return self.output[: len(lightness)].numpy().copy()


class OnTheCPU(lanes.LaneEngine):
    runtime = "lanes-on-the-cpu/f32"

    def open_lanes(self, batch: int, h: int, w: int, count: int) -> list[Any]:
        return [Here(self.model, batch, h, w) for _ in range(count)]


def test_a_pictures_colour_does_not_depend_on_whom_it_shares_a_batch_with(model: Model) -> None:
    pictures = (np.random.default_rng(0).random((12, 1, 32, 64)) * 100).astype(np.float32)
    with OnTheCPU(model, 0.38, batch=4, precision="fp32", lanes=2) as engine:
        alone = np.concatenate([engine(p[None]) for p in pictures])
        np.testing.assert_array_equal(engine(pictures), alone)
        np.testing.assert_allclose(alone, reference(model, 0.38, pictures), atol=1e-2)
        with ThreadPoolExecutor(4) as callers:
            cuts = [slice(i, i + 1 + i % 5) for i in (*range(10), *range(10))]
            for cut, found in zip(cuts, callers.map(engine, [pictures[cut] for cut in cuts]), strict=True):
                np.testing.assert_array_equal(found, alone[cut])


needs_tensorrt = pytest.mark.skipif(not engines.has_tensorrt(), reason="TensorRT is not installed")


@pytest.mark.gpu
@needs_tensorrt
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_on_a_gpu_eight_bits_are_proven(precision: Precision) -> None:
    if precision == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no FP8")
    opened, verdicts = prove_engine(load_model("default"), "tensorrt", precision=precision, sizes=[(160, 224)])
    with opened:
        assert [(v.precision, v.problem) for v in verdicts] == [(precision, "")]


@pytest.mark.gpu
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("engine", ["torch", pytest.param("tensorrt", marks=needs_tensorrt)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_on_a_gpu_each_precision_is_proven_and_does_not_depend_on_the_batch(
    model: Model, engine: str, precision: str
) -> None:
    opened, verdicts = prove_engine(model, engine, device="cuda", precision=precision, sizes=[(64, 96)])
    with opened:
        assert [(v.precision, v.problem) for v in verdicts] == [(precision, "")]
        pictures = (np.random.default_rng(0).random((20, 1, 64, 96)) * 100).astype(np.float32)
        together = opened(pictures)
        np.testing.assert_array_equal(together, np.concatenate([opened(p[None]) for p in pictures]))
        with ThreadPoolExecutor(4) as callers:
            for found in callers.map(opened, [pictures] * 8):
                np.testing.assert_array_equal(found, together)
