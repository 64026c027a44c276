"""The TensorRT engine without a GPU: its calls against the real API, everything around them with fakes."""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trt_api import Reader, signatures, tensorrt

from model import engines
from model.bins import gamut_bins
from model.engines import base
from model.engines.golden import reference
from model.engines.plans import Machine, plan_folder
from model.engines.ranges import Ranges
from model.networks.unet import UNet, UNetConfig
from model.weights import Model
from pipeline.errors import EngineError, OutOfMemoryError

SOURCE = Path(__file__).parents[1] / "model" / "engines" / "tensorrt.py"
H200 = Machine("11.4.0.106", "580.159.04", "NVIDIA H200", "9.0")
PICTURES = (np.random.default_rng(0).random((5, 1, 32, 64)) * 100).astype(np.float32)


@pytest.fixture(scope="module")
def trt(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return tensorrt(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="module")
def module(trt: ModuleType) -> Iterator[Any]:
    """model.engines.tensorrt over the bindings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", trt)
        yield importlib.import_module("model.engines.tensorrt")


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    net = UNet(UNetConfig(bins=313, widths=(4, 8, 8, 8, 8), encoder=(0, 0, 0, 0), decoder=(0, 0, 0)))
    return Model("tiny", "ab" * 32, net.eval(), gamut_bins(), np.full(313, 1 / 313, np.float32), 0.38, {})


class FakeLane:
    """Computes as a lane would; runs out of memory for batches above `fits`."""

    fits = 16
    made: list[tuple[int, ...]]
    sizes: list[int]  # of the batches that were run
    busy = 0
    most_busy = 0
    lock = threading.Lock()

    def __init__(self, engine: bytes, shape: tuple[int, ...], temperature: float) -> None:
        assert (engine, temperature) == (b"plan", 0.38)
        if shape[0] > self.fits:
            raise RuntimeError("no execution context: Error Code 2: out of memory (no further information)")
        self.batch = shape[0]
        self.made.append(shape)

    def run(self, lightness: np.ndarray) -> np.ndarray:
        assert len(lightness) <= self.batch
        self.sizes.append(len(lightness))
        with self.lock:
            FakeLane.busy += 1
            FakeLane.most_busy = max(FakeLane.busy, FakeLane.most_busy)
        threading.Event().wait(0.02)
        with self.lock:
            FakeLane.busy -= 1
        return lightness[:, [0, 0], ::4, ::4] - 50


@pytest.fixture
def built(module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, ...]]:
    """Shapes that were compiled; the machine, compiler and lanes are fakes."""
    shapes: list[tuple[int, ...]] = []

    def build(onnx: bytes, shape: tuple[int, ...], precision: str, timings: bytes) -> tuple[bytes, bytes]:
        assert (onnx, timings) == (b"graph fp16", b"timed " * len(shapes))
        shapes.append(shape)
        return b"plan", timings + b"timed "

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "this_machine", lambda: H200)
    monkeypatch.setattr(module, "cached_onnx", lambda _, precision: f"graph {precision}".encode())
    monkeypatch.setattr(module, "build_plan", build)
    monkeypatch.setattr(module.trt, "Runtime", lambda _: SimpleNamespace(deserialize_cuda_engine=bytes))
    monkeypatch.setattr(module, "open_lane", FakeLane)
    FakeLane.fits, FakeLane.made, FakeLane.sizes, FakeLane.most_busy = 16, [], [], 0
    return shapes


def test_every_use_of_tensorrt_is_in_its_api(trt: ModuleType) -> None:
    found = Reader(trt).read(SOURCE.read_text("utf-8"))
    assert found.problems == []
    assert found.uses >= {
        "Builder.build_serialized_network",
        "IBuilderConfig.set_timing_cache",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.get_tensor_shape",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
        "ICudaEngine.create_execution_context",
        "IOptimizationProfile.set_shape",
        "IProgressMonitor.phase_start",
        "ITimingCache.serialize",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "ParserError.desc",
        "Runtime.deserialize_cuda_engine",
        "context.execute_async_v3()",
        "profile.set_shape()",
        "config.get_timing_cache().serialize()",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "trt.Bilder(log)",
        "trt.Builder()",
        "trt.BuilderFlag.FP64",
        "config.set_flag(trt.BuilderFlag.FP17)",
        "trt.Builder(log).create_network(1, 2)",
        "trt.Builder(log).create_network(flag=1)",
        "trt.Builder(log).create_builder_config().max_workspace_size = 1",
        "config.set_timing_cache(b'')",
        "context.execute_async_v2(1)",
        "context.execute_async_v3()",
        "context.execute_async_v3(stream=1)",
        "self.engine.create_execution_context().set_binding_shape(0, 1)",
        "class P(trt.IProgressMonitor):\n    def phase_start(self, name): pass",
    ],
)
def test_the_reader_sees_what_is_not_in_the_api(trt: ModuleType, wrong: str) -> None:
    start = "class E:\n  def f(self, context: trt.IExecutionContext, config: trt.IBuilderConfig):\n"
    start += "    self.engine: trt.ICudaEngine = g()\n"
    body = "\n".join("    " + line for line in wrong.splitlines())
    assert len(Reader(trt).read(start).problems) == 0
    assert len(Reader(trt).read(start + body).problems) == 1


def test_signatures_are_read_from_docstrings() -> None:
    doc = "f(*args, **kwargs)\nOverloaded.\n\n1. f(self: a.B, x: typing.Callable[[int, str], C], y: int = 0) -> a.D"
    (found,) = signatures(doc)
    assert (found.names, found.required, found.returns) == (("x", "y"), 1, "D")


def test_tensorrts_own_words_reach_the_error(module: Any) -> None:
    severity = module.trt.ILogger.Severity
    logger = module.Logger()
    logger.log(severity.WARNING, "slow")
    logger.log(severity.ERROR, "[executionContext.cpp::470] Error Code 2: OutOfMemory (no further information)")
    error = logger.failure("no execution context")
    assert str(error) == (
        "no execution context: [executionContext.cpp::470] Error Code 2: out of memory (no further information)"
    )
    assert isinstance(module.engine_error("key", error), OutOfMemoryError)
    assert str(logger.failure("again")) == "again: no reason given"
    assert module.Progress().step_complete("tactics", 1) is True


def test_a_build_says_which_phase_it_is_in(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "model")
    progress = module.Progress()
    progress.phase_start("Timing", "Building", 7)
    progress.phase_finish("Timing")
    assert caplog.messages == ["TensorRT: Building: Timing, 7 steps"]


def test_a_picture_size_is_compiled_once_and_kept(
    module: Any, model: Model, built: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    other = np.ascontiguousarray(PICTURES[:, :, :, :32])
    for _ in range(2):
        with module.TensorRTEngine(model, 0.38) as engine:
            np.testing.assert_array_equal(engine(PICTURES), PICTURES[:, [0, 0], ::4, ::4] - 50)
            assert engine(other).shape == (5, 2, 8, 8)
            assert engine(PICTURES).shape == (5, 2, 8, 16)
    assert built == [(16, 1, 32, 64), (16, 1, 32, 32)]
    assert len(list(plan_folder().glob("*.plan"))) == 2
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0].endswith("compiling for 16 pictures of 64x32; takes minutes, once on this machine")


def test_the_key_names_version_gpu_precision_weights_and_temperature(
    module: Any, model: Model, built: list[tuple[int, ...]]
) -> None:
    with module.TensorRTEngine(model, 0.38) as engine:
        assert engine.key == f"tensorrt-11.4.0.106-sm90/f16/{'ab' * 6}/T0.38"


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_are_compiled_from_the_graph_in_float16_and_named_by_their_ranges(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    compiled: list[tuple[bytes, str]] = []

    def build(onnx: bytes, _shape: object, precision: str, _timings: bytes) -> tuple[bytes, bytes]:
        compiled.append((onnx, precision))
        return b"plan", b""

    ranges = Ranges(model.sha256, {"stem.0": (-0.5, 0.5)})
    monkeypatch.setattr(module, "ranges_of", lambda _: ranges)
    monkeypatch.setattr(
        module, "eight_bit_graph", lambda graph, r, form: graph + b" in " + form.encode() * (r is ranges)
    )
    monkeypatch.setattr(module, "build_plan", build)
    with module.TensorRTEngine(model, 0.38, precision) as engine:
        engine(PICTURES)
        assert engine.key == f"tensorrt-11.4.0.106-sm90/{precision.replace('fp', 'f')}-{ranges.digest}/{'ab' * 6}/T0.38"
    assert compiled == [(f"graph fp16 in {precision}".encode(), precision)]


@pytest.mark.parametrize(("precision", "asks"), [("auto", False), ("int8", True), ("fp8", True)])
def test_it_is_opened_with_ranges_where_8_bits_are_asked_for(
    module: Any, model: Model, monkeypatch: pytest.MonkeyPatch, precision: Any, asks: bool
) -> None:
    opened: list[tuple[str, object]] = []

    class Engine(base.Engine):
        runtime = "fake"

        def __init__(self, model: Model, temperature: float, precision: Any, ranges: object) -> None:
            super().__init__(model, temperature, precision=precision)
            opened.append((precision, ranges))

        def compute(self, lightness: np.ndarray) -> np.ndarray:
            return reference(self.model, self.temperature, lightness)

    found = Ranges(model.sha256, {"stem.0": (-0.5, 0.5)})
    monkeypatch.setattr(engines, "has_tensorrt", lambda: True)
    monkeypatch.setattr(module, "TensorRTEngine", Engine)
    monkeypatch.setattr("model.engines.ranges.find_ranges", lambda _: (found, ("the cache: is damaged",)))
    engine, verdicts = engines.prove_engine(model, "tensorrt", precision=precision, sizes=[(32, 64)])
    assert opened == ([(precision, found)] if asks else [("fp16", None)])
    assert len(verdicts) == 1, "minutes of compiling are not spent unasked on every size"
    assert engine.notes == ("the cache: is damaged",) * asks
    other = Ranges(model.sha256, {})
    engine, _ = engines.prove_engine(model, "tensorrt", precision="int8", sizes=[(32, 64)], ranges=other)
    assert (opened[-1], engine.notes) == (("int8", other), ())


def test_without_tensorrt_it_says_what_to_do(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "has_tensorrt", lambda: False)
    with pytest.raises(EngineError, match="TensorRT is not installed; pip install tensorrt, or choose"):
        engines.prove_engine(model, "tensorrt")


def test_a_runtime_that_cannot_be_made_is_one_line(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(module.trt, "Runtime", broken)
    with pytest.raises(EngineError, match=r"^tensorrt-.*: pybind11::init\(\): factory function returned nullptr; try"):
        module.TensorRTEngine(model, 0.38)


def test_the_size_used_longest_ago_is_closed_when_there_are_too_many(
    module: Any, model: Model, built: list[tuple[int, ...]]
) -> None:
    sizes = [(32, 32 * n) for n in range(1, 10)]
    with module.TensorRTEngine(model, 0.38, lanes=1) as engine:
        for h, w in sizes[:8]:
            engine(np.zeros((1, 1, h, w), np.float32) + 60)
        engine(np.zeros((1, 1, *sizes[0]), np.float32) + 60)
        engine(np.zeros((1, 1, *sizes[8]), np.float32) + 60)
        assert [kind[1:] for kind in engine._lanes] == [*sizes[2:8], sizes[0], sizes[8]]
    assert len(FakeLane.made) == 9


def test_fp8_is_refused_where_the_gpu_has_none(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "this_machine", lambda: Machine("11.4.0.106", "580.159.04", "NVIDIA A100", "8.0"))
    with pytest.raises(EngineError, match="NVIDIA A100 has no FP8, which begins with Ada and Hopper; choose"):
        module.TensorRTEngine(model, 0.38, "fp8")


def test_memory_running_out_halves_the_batch(module: Any, model: Model, built: list[tuple[int, ...]]) -> None:
    FakeLane.fits = 3
    with module.TensorRTEngine(model, 0.38) as engine:
        np.testing.assert_array_equal(engine(PICTURES), PICTURES[:, [0, 0], ::4, ::4] - 50)
        assert engine.batch == 2
        assert FakeLane.made[-1] == (2, 1, 32, 64)
        FakeLane.fits = 0
        engine.close()
        with pytest.raises(OutOfMemoryError, match="not enough memory for one picture"):
            engine(PICTURES)


def test_one_picture_that_fits_alone_is_coloured(module: Any, model: Model, built: list[tuple[int, ...]]) -> None:
    FakeLane.fits = 1
    with module.TensorRTEngine(model, 0.38) as engine:
        assert engine(PICTURES[:1]).shape == (1, 2, 8, 16)
        assert engine.batch == 1


def test_several_batches_at_a_time_but_no_more_than_there_are_lanes(
    module: Any, model: Model, built: list[tuple[int, ...]]
) -> None:
    with module.TensorRTEngine(model, 0.38, lanes=2) as engine, ThreadPoolExecutor(6) as callers:
        for result in callers.map(engine, [PICTURES] * 12):
            np.testing.assert_array_equal(result, PICTURES[:, [0, 0], ::4, ::4] - 50)
    assert FakeLane.most_busy == 2
    assert len(FakeLane.made) == 2


def test_segments_in_flight_share_batches(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.engines.lanes._WINDOW", 20.0)
    with module.TensorRTEngine(model, 0.38) as engine, ThreadPoolExecutor(4) as callers:
        for result in callers.map(engine, [PICTURES[:4]] * 4):
            np.testing.assert_array_equal(result, PICTURES[:4, [0, 0], ::4, ::4] - 50)
    assert FakeLane.sizes == [16]


def test_memory_running_out_for_several_callers_costs_none_of_them_their_colour(
    module: Any, model: Model, built: list[tuple[int, ...]]
) -> None:
    FakeLane.fits = 3
    with module.TensorRTEngine(model, 0.38) as engine, ThreadPoolExecutor(4) as callers:
        for result in callers.map(engine, [PICTURES] * 8):
            np.testing.assert_array_equal(result, PICTURES[:, [0, 0], ::4, ::4] - 50)
    assert engine.batch in (1, 2)


def test_a_plan_that_the_runtime_refuses_is_compiled_anew(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with module.TensorRTEngine(model, 0.38) as engine:
        engine(PICTURES)
    answers: list[bytes | None] = [None, b"plan"]
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: answers.pop(0))
    monkeypatch.setattr(module.trt, "Runtime", lambda _: runtime)
    with module.TensorRTEngine(model, 0.38) as engine:
        engine(PICTURES)
    assert len(built) == 2


def test_tensorrts_failure_is_one_line(
    module: Any, model: Model, built: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> tuple[bytes, bytes]:
        raise RuntimeError("no plan could be built: myelin:\n no route")

    monkeypatch.setattr(module, "build_plan", build)
    with (
        module.TensorRTEngine(model, 0.38) as engine,
        pytest.raises(
            EngineError, match=r"no plan could be built: myelin: no route; try the precision fp32, or another"
        ),
    ):
        engine(PICTURES)


class FakeBuilder:
    """All that build_plan asks of TensorRT, with what goes wrong on request; `done` is what was asked, in order."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong
        self.done: list[object] = []
        self.cache: bytes | None = None
        self.progress_monitor: object = None
        self.num_errors = 1

    def create_network(self, flags: int) -> FakeBuilder:
        self.done.append(("network", flags))
        return self

    def parse(self, onnx: bytes) -> bool:
        self.done.append(("parse", onnx))
        return self.wrong != "graph"

    def get_error(self, _: int) -> Any:
        return SimpleNamespace(desc=lambda: "no such operator")

    def create_builder_config(self) -> FakeBuilder:
        return self

    def clear_flag(self, flag: object) -> None:
        self.done.append(("without", flag))

    def create_optimization_profile(self) -> FakeBuilder:
        return self

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.done.append((name, shapes))

    def add_optimization_profile(self, _: object) -> int:
        return -1 if self.wrong == "shape" else 0

    def create_timing_cache(self, timings: bytes) -> bytes | None:
        return None if timings and self.wrong == "unreadable timings" else timings

    def set_timing_cache(self, cache: bytes | None, ignore_mismatch: bool) -> bool:
        if cache is None:
            raise TypeError("incompatible function arguments")
        assert not ignore_mismatch, "another GPU's timings are no good"
        if cache and self.wrong == "foreign timings":
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        assert self.cache is not None
        return SimpleNamespace(serialize=lambda: self.cache + b" and new ones")

    def build_serialized_network(self, _network: object, _config: object) -> bytes | None:
        return None if self.wrong == "plan" else b"plan"


def build(module: Any, monkeypatch: pytest.MonkeyPatch, wrong: str, precision: str = "fp32") -> tuple[Any, FakeBuilder]:
    fake = FakeBuilder(wrong)
    monkeypatch.setattr(module.trt, "Builder", lambda _: fake)
    monkeypatch.setattr(module.trt, "OnnxParser", lambda _network, _logger: fake)
    return module.build_plan(b"graph", (16, 1, 160, 224), precision, b"timings"), fake


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_plan_is_strongly_typed_for_one_size_and_in_fp32_without_tf32(
    module: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    (plan, timings), fake = build(module, monkeypatch, "nothing", precision)
    assert (plan, timings) == (b"plan", b"timings and new ones")
    strongly_typed = 1 << int(module.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    exact = [("without", module.trt.BuilderFlag.TF32)] if precision == "fp32" else []
    shapes = ("lightness", ((16, 1, 160, 224),) * 3)
    assert fake.done == [("network", strongly_typed), ("parse", b"graph"), *exact, shapes]
    assert fake.progress_monitor is module._PROGRESS


@pytest.mark.parametrize("wrong", ["unreadable timings", "foreign timings"])
def test_timings_that_are_no_good_are_begun_anew(module: Any, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    assert build(module, monkeypatch, wrong)[0] == (b"plan", b" and new ones")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("graph", "the graph is refused (no such operator): "),
        ("shape", "the graph is not for (16, 1, 160, 224): "),
        ("plan", "no plan could be built: "),
    ],
)
def test_what_cannot_be_built_is_said(module: Any, monkeypatch: pytest.MonkeyPatch, wrong: str, words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(words)):
        build(module, monkeypatch, wrong)


class FakeContext:
    """An execution context of an engine with these tensors; refuses what it is told to."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.names = ["lightness", "temperature", "ab"]
        self.num_io_tensors = 3
        self.shape: tuple[int, ...] = (-1, 1, -1, -1)
        self.addresses: dict[str, int] = {}
        self.ran: list[int] = []

    def create_execution_context(self) -> FakeContext | None:
        return None if self.refuses == "context" else self

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def set_input_shape(self, _: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return self.refuses != "shape"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert name == "ab"
        n, _, h, w = self.shape
        return n, 2, h // 4, w // 4

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.refuses != name

    def execute_async_v3(self, stream: int) -> bool:
        self.ran.append(stream)
        return self.refuses != "to run"


def lane_of(module: Any, monkeypatch: pytest.MonkeyPatch, context: FakeContext) -> tuple[Any, ...]:
    """What a lane is made of, the GPU's tensors in main memory."""

    def here(make: Any) -> Any:
        return lambda value, device: make(value) if device == "cuda" else None

    stream = SimpleNamespace(cuda_stream=77)
    cuda = SimpleNamespace(Stream=lambda: stream)
    made = SimpleNamespace(cuda=cuda, zeros=here(torch.zeros), empty=here(torch.empty), tensor=here(torch.tensor))
    monkeypatch.setattr(module, "torch", made)
    monkeypatch.setattr(module, "Lane", lambda *parts: parts)
    return module.open_lane(context, (16, 1, 32, 64), 0.5)


def test_a_lane_gives_its_context_every_address_and_runs_in_its_own_stream(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = FakeContext()
    stream, source, output, enqueue = lane_of(module, monkeypatch, context)
    assert (source.shape, output.shape) == ((16, 1, 32, 64), (16, 2, 8, 16))
    kept = enqueue.args[2]
    assert {name: t.data_ptr() for name, t in kept.items()} == context.addresses, "and holds them"
    assert (kept["lightness"] is source, kept["ab"] is output, kept["temperature"].item()) == (True, True, 0.5)
    assert {t.dtype for t in kept.values()} == {torch.float32}
    enqueue()
    assert context.ran == [stream.cuda_stream]
    regression = FakeContext()
    regression.names, regression.num_io_tensors = ["lightness", "ab"], 2
    lane_of(module, monkeypatch, regression)
    assert set(regression.addresses) == {"lightness", "ab"}


@pytest.mark.parametrize(
    ("refuses", "words"),
    [
        ("context", "no execution context"),
        ("shape", "the plan is not for (16, 1, 32, 64)"),
        ("temperature", "the plan takes no temperature"),
        ("to run", "the plan does not run"),
    ],
)
def test_what_a_context_refuses_is_said(module: Any, monkeypatch: pytest.MonkeyPatch, refuses: str, words: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(words)):
        lane_of(module, monkeypatch, FakeContext(refuses))[3]()


def test_without_a_gpu_it_says_so(module: Any, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="finds no NVIDIA GPU"):
        module.TensorRTEngine(model, 0.38)


def test_a_tensorrt_that_is_too_old_is_refused(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.trt, "__version__", "10.7.0.post1")
    with pytest.raises(EngineError, match=r"10\.7\.0\.post1 is too old; install 10\.8"):
        module.this_machine()


def test_the_machine_is_described(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(module, "driver_version", lambda: "580.159.04")
    monkeypatch.setattr(module.trt, "__version__", "11.4.0.106")
    assert module.this_machine() == H200


@pytest.mark.parametrize(("code", "expected"), [(0, "580.159.04"), (9, None)])
def test_the_drivers_version_is_asked_of_nvml(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: str | None
) -> None:
    source = f"""
#include <string.h>
int nvmlInit_v2(void) {{ return 0; }}
int nvmlShutdown(void) {{ return 0; }}
int nvmlSystemGetDriverVersion(char *v, unsigned n) {{ strncpy(v, "580.159.04", n); return {code}; }}
"""
    library = tmp_path / f"nvml{code}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source.encode(), check=True)
    stub = ctypes.CDLL(str(library))
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: stub)
    if expected:
        assert module.driver_version() == expected
    else:
        with pytest.raises(EngineError, match=r"NVML codes \[0, 9, 0\]"):
            module.driver_version()


def test_without_a_driver_it_says_so(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        module.driver_version()
