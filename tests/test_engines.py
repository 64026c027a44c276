"""Engines: the same colour from each, whatever the batch, threads or size, and never a silent failure."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from skimage import data
from skimage.color import lab2rgb, rgb2lab
from skimage.transform import resize

from model import export
from model.bins import Bins, annealed_mean, no_bins
from model.cache import cache_folder
from model.engines import base, open_engine
from model.engines import openvino as openvino_engine
from model.engines.openvino import OpenVINOEngine, has_bf16
from model.engines.torch import TorchEngine
from model.exported import cached_onnx
from model.networks import Network, network_name
from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.unet import UNet, UNetConfig
from model.weights import Model
from pipeline.errors import EngineError, OutOfMemoryError

RNG = np.random.default_rng(0)
PICTURES = (RNG.random((5, 1, 64, 96)) * 100).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield cache_folder()


def colours(model: Model, pictures: np.ndarray, temperature: float) -> np.ndarray:
    """What the model's network and bins say of them, both of ab."""
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(pictures))
        return annealed_mean(logits, torch.from_numpy(model.bins.centers), temperature).numpy()


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[base.Engine]:
    with open_engine(model, "openvino", precision="fp32") as opened:
        yield opened


class Broken(base.Engine):
    """Returns what it is told to, or fails as it is told to, above a number of pictures."""

    def __init__(self, model: Model, result: object, above: int = 0) -> None:
        super().__init__(model, 0.38)
        self.result = result
        self.above = above
        self.sizes: list[int] = []

    runtime = "broken-1/f32"

    def compute(self, lightness: np.ndarray) -> np.ndarray:
        self.sizes.append(len(lightness))
        if len(lightness) > self.above:
            if isinstance(self.result, Exception):
                raise base.engine_error(self.key, self.result)
            n, _, h, w = lightness.shape
            return np.full((n, 2, h // 4, w // 4), self.result, np.float32)
        return lightness[:, [0, 0], ::4, ::4] - 50


def test_openvino_agrees_with_the_network_in_torch(model: Model, engine: base.Engine) -> None:
    expected = colours(model, PICTURES, 0.38)
    assert np.ptp(expected) > 10
    with open_engine(model, "torch") as reference:
        np.testing.assert_allclose(reference(PICTURES), expected, atol=1e-2)
    assert np.abs(engine(PICTURES) - expected).max() < 0.5


def test_the_exported_graph_agrees_with_torch_at_any_size_batch_and_temperature(model: Model) -> None:
    session = onnxruntime.InferenceSession(cached_onnx(model), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("lightness", "tensor(float)"),
        ("temperature", "tensor(float)"),
    ]
    for shape, temperature in (((1, 1, 32, 32), 0.38), ((3, 1, 96, 64), 1.0), ((2, 1, 32, 160), 0.1)):
        photograph = rgb2lab(resize(data.astronaut(), shape[2:]))[..., 0]
        for values in (RNG.random(shape) * 100, np.broadcast_to(photograph, shape)):
            picture = values.astype(np.float32)
            expected = colours(model, picture, temperature)
            found = session.run(["ab"], {"lightness": picture, "temperature": np.array(temperature, np.float32)})[0]
            np.testing.assert_allclose(found, expected, atol=5e-2)


@pytest.mark.parametrize(
    ("network", "bins"),
    [
        (ColorUNet(ColorUNetConfig(bins=32, widths=(8, 16, 16))), Bins("yuv", RNG.integers(-60, 61, (32, 2)))),
        (UNet(UNetConfig(bins=0, widths=(8, 16, 16, 16, 16))), no_bins("yuv")),
    ],
    ids=["classes of UV at full resolution", "regression of UV"],
)
def test_every_kind_of_output_becomes_ab_in_the_compiled_graph(network: Network, bins: Bins) -> None:
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    torch.nn.init.normal_(network.head.weight, std=1 if len(bins) else 0.1)
    prior = np.full(len(bins), 1 / max(1, len(bins)), np.float32)
    model = Model("other", network_name(network) * 8, network.eval().requires_grad_(False), bins, prior, 0.5, {})
    with open_engine(model, "openvino", precision="fp32") as opened:
        found = opened(PICTURES[:2])
    assert found.shape == (2, 2, 64 // network.scale, 96 // network.scale)
    assert found.std() > 2
    with torch.inference_mode():
        output = network(torch.from_numpy(PICTURES[:2])).double().numpy()
    z = np.exp(output / 0.5 - (output / 0.5).max(1, keepdims=True))
    means = np.einsum("nqhw,qc->nchw", z / z.sum(1, keepdims=True), bins.centers) if len(bins) else None
    u, v = np.moveaxis(np.clip(output, -1, 1) * 128 if means is None else means, 1, 0)
    small = PICTURES[:2, 0].reshape(2, 64 // network.scale, network.scale, -1, network.scale).mean((2, 4))
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), ab_of_uv(small, u, v), atol=0.05)


def ab_of_uv(lightness: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(n, h, w, 2) of the colour of Y' of the grey of L*, U and V in 255ths, drawn to grey as far as needed."""
    luma = lab2rgb(np.stack([lightness, 0 * u, 0 * u], axis=-1)).mean(-1)
    offset = np.stack([1.402 * v, -0.344136 * u - 0.714136 * v, 1.772 * u], axis=-1) / 255
    room = np.where(offset > 0, 1 - luma[..., None], luma[..., None]) / np.maximum(np.abs(offset), 1e-9)
    return rgb2lab(np.clip(luma[..., None] + np.clip(room.min(-1), 0, 1)[..., None] * offset, 0, 1))[..., 1:]


def test_bfloat16_is_close_says_so_in_its_key_and_is_refused_where_the_cpu_has_none(model: Model) -> None:
    if not has_bf16():
        with pytest.raises(EngineError, match="no bfloat16 instructions; choose fp32"):
            open_engine(model, precision="bf16", device="cpu")
        return
    with open_engine(model, precision="bf16", device="cpu") as quick, open_engine(model, "torch") as reference:
        difference = np.abs(quick(PICTURES) - reference(PICTURES))
    assert 0 < difference.mean() < 0.5
    assert "/bf16/" in quick.key


def test_on_the_cpu_the_default_is_bfloat16_where_openvino_has_it_and_never_depends_on_chance(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert has_bf16() == capable
    opened: list[str] = []

    class Pretending(OpenVINOEngine):
        """In float32 whatever is asked, as not every machine that tests has bfloat16."""

        def __init__(self, model: Model, temperature: float, threads: int, precision: str, _: object) -> None:
            opened.append(precision)
            super().__init__(model, temperature, threads, "fp32")

    monkeypatch.setattr(openvino_engine, "OpenVINOEngine", Pretending)
    for native, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(openvino_engine, "has_bf16", lambda native=native: native)
        for _ in range(2):
            open_engine(model, device="cpu").close()
        assert opened == [expected] * 2
        opened.clear()
        open_engine(model, device="cpu", precision="fp32").close()
        assert opened == ["fp32"]
        opened.clear()


ON_THE_CPU = [("openvino", "fp32"), ("torch", "fp32")]
ON_THE_CPU += [("openvino", "bf16")] if has_bf16() else []


@pytest.mark.parametrize(("name", "precision"), ON_THE_CPU)
def test_a_picture_does_not_depend_on_its_batch(model: Model, name: str, precision: str) -> None:
    with open_engine(model, name, precision=precision) as opened:
        together = opened(PICTURES)
        np.testing.assert_array_equal(together, np.concatenate([opened(p[None]) for p in PICTURES]))
        opened.batch = 2
        np.testing.assert_array_equal(together, opened(PICTURES))


@pytest.mark.parametrize("precision", ["fp32", "bf16"] if has_bf16() else ["fp32"])
def test_openvino_does_not_depend_on_threads_or_callers(model: Model, precision: str) -> None:
    other = (RNG.random((3, 1, 32, 64)) * 100).astype(np.float32)
    with open_engine(model, "openvino", threads=1, precision=precision) as single:
        expected = single(PICTURES), single(other)
    with open_engine(model, "openvino", precision=precision) as engine, ThreadPoolExecutor(4) as callers:
        jobs = [callers.submit(engine, (PICTURES, other)[i % 2]) for i in range(12)]
        for i, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(), expected[i % 2])


def test_more_sizes_than_are_kept_compiled(engine: base.Engine) -> None:
    picture = np.full((1, 1, 32, 32), 40, np.float32)
    first = engine(picture)
    for n in range(2, 12):
        assert engine(np.full((1, 1, 32, 32 * n), 40, np.float32)).shape == (1, 2, 8, 8 * n)
    np.testing.assert_array_equal(engine(picture), first)


def test_key_names_what_the_colour_depends_on(model: Model, engine: base.Engine) -> None:
    runtime, precision, weights, temperature = engine.key.split("/")
    assert runtime.startswith("openvino-20")
    assert (precision, weights, temperature) == ("f32", "ab" * 6, "T0.38")
    with open_engine(model, "torch", temperature=1.0) as warm:
        assert warm.key.startswith("torch-")
        assert warm.key.endswith("/T1")


def test_temperature_changes_the_colour_as_in_torch(model: Model) -> None:
    with open_engine(model, temperature=2.0) as warm, open_engine(model, "torch", temperature=2.0) as reference:
        np.testing.assert_allclose(warm(PICTURES), reference(PICTURES), atol=0.5)
        chroma = np.hypot(*np.moveaxis(warm(PICTURES), 1, 0)).mean()
    with open_engine(model, temperature=0.1) as cold:
        assert np.hypot(*np.moveaxis(cold(PICTURES), 1, 0)).mean() > chroma


@pytest.mark.parametrize("shape", [(1, 1, 33, 32), (1, 1, 0, 32), (1, 2, 32, 32), (32, 32), (1, 1, 16, 32)])
def test_a_wrong_shape_is_the_callers_mistake(engine: base.Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got lightness\.shape"):
        engine(np.zeros(shape, np.float32))


def test_no_pictures_give_no_colour(engine: base.Engine) -> None:
    assert engine(np.zeros((0, 1, 32, 64), np.float32)).shape == (0, 2, 8, 16)


@pytest.mark.parametrize(
    ("result", "words"), [(np.nan, "NaN"), (np.inf, "NaN"), (300.0, "no colour"), (7.0, "flat"), (0.0, "flat")]
)
def test_garbage_is_an_error_never_a_picture(model: Model, result: float, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        Broken(model, result)(PICTURES)


def test_a_flat_picture_may_have_one_colour(model: Model) -> None:
    assert (Broken(model, 7.0)(np.zeros((1, 1, 32, 32), np.float32)) == 7).all()


def test_a_shape_that_was_not_asked_for_is_an_error(model: Model) -> None:
    engine = Broken(model, 0)
    engine.compute = lambda _: np.zeros((1, 2, 3, 3), np.float32)
    with pytest.raises(EngineError, match="returned shape"):
        engine(PICTURES)


@pytest.mark.parametrize(
    "trouble",
    [
        MemoryError(),
        RuntimeError("Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc"),
        RuntimeError("Exception from src/inference/src/dev/plugin.cpp:54: can't alloc"),
        RuntimeError(
            "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\nFailed to allocate 9 bytes of memory"
        ),
        RuntimeError("Could not allocate memory"),
        RuntimeError("Exception from src/inference/dev.cpp:54:\nResource temporarily unavailable"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes."),
        RuntimeError("CUDA out of memory."),
    ],
)
def test_memory_running_out_halves_the_batch(model: Model, trouble: Exception) -> None:
    engine = Broken(model, trouble, above=2)
    np.testing.assert_array_equal(engine(PICTURES), PICTURES[:, [0, 0], ::4, ::4] - 50)
    assert engine.sizes == [5, 2, 2, 1]
    assert engine.batch == 2


def test_memory_for_not_even_one_picture_is_an_error(model: Model) -> None:
    engine = Broken(model, MemoryError())
    with pytest.raises(OutOfMemoryError, match="not enough memory for one picture"):
        engine(PICTURES)
    assert engine.sizes == [5, 2, 1]


@pytest.mark.parametrize("where", ["create_infer_request", "infer"])
def test_openvino_out_of_memory_gives_up_other_sizes_and_goes_on(
    model: Model, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    owner = openvino.CompiledModel if where == "create_infer_request" else openvino.InferRequest
    usual, failures = getattr(owner, where), [2]

    def fails(self: object, *arguments: object, **settings: object) -> object:
        if failures[0]:
            failures[0] -= 1
            raise RuntimeError(
                "Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 164102144 bytes of memory"
            )
        return usual(self, *arguments, **settings)

    with OpenVINOEngine(model, 0.38, 2) as engine:
        expected = engine(PICTURES)
        engine(PICTURES[:1, :, :32])
        engine._requests.pop((64, 96))
        monkeypatch.setattr(owner, where, fails)
        np.testing.assert_array_equal(engine(PICTURES), expected)
        assert engine.batch < 5
        assert list(engine._requests) == [(64, 96)]
    failures[0] = 99
    with (
        OpenVINOEngine(model, 0.38, 2) as never,
        pytest.raises(OutOfMemoryError, match="not enough memory for one picture; close other programs"),
    ):
        never(PICTURES)


def test_running_out_of_registers_is_not_running_out_of_memory(model: Model) -> None:
    error = base.engine_error("key", RuntimeError("Failed to allocate required number of vector registers"))
    assert not isinstance(error, OutOfMemoryError)


def test_a_runtimes_own_error_comes_as_one_line(model: Model) -> None:
    with pytest.raises(EngineError, match=r"device lost by driver; try the precision fp32, or another machine$") as e:
        Broken(model, RuntimeError("device lost\n  by driver"))(PICTURES)
    assert "\n" not in str(e.value)
    assert not isinstance(e.value, OutOfMemoryError)


def test_the_cache_is_used_only_when_intact(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exported: list[str] = []
    monkeypatch.setattr(export, "to_onnx", lambda m, _precision: exported.append(m.sha256) or b"a graph" * 100)
    other = dataclasses.replace(model, sha256="cd" * 32)
    assert {cached_onnx(m) for m in (model, model, other)} == {b"a graph" * 100}
    assert exported == [model.sha256, other.sha256]
    (path,) = cache_folder().glob(f"{model.sha256}*.onnx")
    sound = path.read_bytes()
    for count, damage in enumerate([sound[:-1], b"", sound[:100] + b"?" + sound[101:]], start=3):
        path.write_bytes(damage)
        assert cached_onnx(model) == b"a graph" * 100
        assert len(exported) == count
        assert path.read_bytes() == sound


def test_a_cache_that_cannot_be_written_is_done_without(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(export, "to_onnx", lambda _model, _precision: b"a graph")
    assert cached_onnx(model) == b"a graph"


def test_an_unknown_engine_or_setting_is_refused(model: Model) -> None:
    for wrong in ({"engine": "tpu"}, {"temperature": 0.0}, {"temperature": float("nan")}, {"threads": 0}):
        with pytest.raises(EngineError):
            open_engine(model, **wrong)


def test_close_stops_the_threads(model: Model) -> None:
    before = {t.name for t in threading.enumerate()}
    opened = OpenVINOEngine(model, 0.38, 2)
    opened(PICTURES)
    opened.close()
    assert not {t.name for t in threading.enumerate()} - before


def test_torch_engine_computes_in_float32(model: Model) -> None:
    with TorchEngine(model, 0.38, threads=2) as reference:
        assert reference(PICTURES.astype(np.float64)).dtype == np.float32
        assert "/f32/" in reference.key


def test_torchs_own_errors_come_as_ours(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble: list[Exception] = [RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("no\nkernel")]

    def fails(*_: object) -> None:
        raise trouble.pop(0)

    opened = TorchEngine(model, 0.38, 1)
    monkeypatch.setattr(opened, "_graph", fails)
    with pytest.raises(OutOfMemoryError):
        opened(PICTURES[:1])
    with pytest.raises(EngineError, match=r"^torch-.*: no kernel; try the precision fp32"):
        opened(PICTURES[:1])
