"""OpenVINO: precisions, streams, and what is kept of earlier compilations."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

from jobs.request import open_colorizer
from jobs.worker import IN_FLIGHT
from model.engines import openvino as module
from model.engines import prove_engine
from model.engines.golden import golden_frames, reference
from model.engines.openvino import OpenVINOEngine, cpu_settings, has_bf16
from model.engines.selftest import LIMITS, differences
from model.exported import cached_onnx
from model.sealed import keep, unsealed
from model.weights import Model
from pipeline.errors import EngineError, OutOfMemoryError

PICTURES = golden_frames(64, 96)


@pytest.fixture(autouse=True)
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled graphs are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "reelcolor" / "openvino"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[openvino.CompiledModel]:
    """Everything that is compiled from now on."""
    made: list[openvino.CompiledModel] = []
    usual = openvino.Core.compile_model

    def counted(self: object, *arguments: object) -> object:
        made.append(usual(self, *arguments))
        return made[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    return made


def test_openvino_passes_in_each_precision(model: Model) -> None:
    expected = reference(model, 0.38, PICTURES)
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        engine, (verdict,) = prove_engine(model, "openvino", precision=precision, sizes=[(64, 96)])
        with engine:
            assert (verdict.precision, verdict.height, verdict.width) == (precision, 64, 96)
            assert differences(PICTURES, expected, engine(PICTURES)).mean() <= LIMITS[precision].mean


def test_the_first_inference_of_a_size_is_the_callers_own(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's bindings deadlocked in half of the runs where two threads converted their first array at once."""
    threads: list[str] = []
    infer = openvino.InferRequest.infer

    def recorded(self: object, *arguments: object, **settings: object) -> object:
        threads.append(threading.current_thread().name)
        return infer(self, *arguments, **settings)

    monkeypatch.setattr(openvino.InferRequest, "infer", recorded)
    with OpenVINOEngine(model, 0.38, 2) as engine:
        for w in (32, 64):
            threads.clear()
            engine(golden_frames(32, w))
            assert threads[0] == threading.current_thread().name
            assert len(threads) == 3
            assert all(name.startswith("openvino") for name in threads[1:])


def test_a_worker_has_a_stream_for_each_segment_in_flight(
    model: Model, monkeypatch: pytest.MonkeyPatch, compiled: list[openvino.CompiledModel]
) -> None:
    """Pictures of as many segments are computed at the same time, each by a thread of its own; more wait."""
    monkeypatch.setattr("model.outline.outlined", lambda _: model)
    together, most, lock = threading.Barrier(IN_FLIGHT), [0, 0], threading.Lock()
    usual = openvino.InferRequest.infer

    def met(self: object, *arguments: object, **settings: object) -> object:
        with lock:
            most[0] += 1
            most[1] = max(most)
        together.wait(30)
        found = usual(self, *arguments, **settings)
        with lock:
            most[0] -= 1
        return found

    with open_colorizer("tiny", model.sha256, None, "fp32") as engine:
        expected = engine(PICTURES[:1])
        monkeypatch.setattr(openvino.InferRequest, "infer", met)
        with ThreadPoolExecutor(2 * IN_FLIGHT) as segments:
            for found in segments.map(engine, [PICTURES[:1]] * 2 * IN_FLIGHT):
                np.testing.assert_array_equal(found, expected)
    assert most == [0, IN_FLIGHT]
    for each in compiled:
        assert each.get_property("NUM_STREAMS") == each.get_property("INFERENCE_NUM_THREADS") == IN_FLIGHT


def truncated(path: Path, _engine: OpenVINOEngine) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path, _engine: OpenVINOEngine) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refused(path: Path, engine: OpenVINOEngine) -> None:
    keep(path, engine._header(64, 96, cpu_settings("fp32", 2)), b"not what OpenVINO wrote")


def stale(**other: object) -> Callable[[Path, OpenVINOEngine], None]:
    """Compiled under other conditions, which its header names."""

    def harm(path: Path, engine: OpenVINOEngine) -> None:
        header = engine._header(64, 96, cpu_settings("fp32", 2))
        assert other.keys() <= header.keys()
        keep(path, header | other, unsealed(path, header))

    return harm


HARMS = {
    "truncated": truncated,
    "changed": changed,
    "refused": refused,
    "of another graph": stale(graph="cd" * 32),
    "of another version": stale(openvino="2025.1.0"),
    "of another processor": stale(cpu="Another CPU", capabilities=["FP32", "BF16"]),
    "of other settings": stale(settings={"NUM_STREAMS": 8}),
}


@pytest.mark.parametrize("harm", ["none", *HARMS])
def test_what_was_compiled_before_is_used_only_where_it_is_the_same_and_whole(
    model: Model, blobs: Path, compiled: list[object], caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    caplog.set_level(logging.INFO, "model")
    with OpenVINOEngine(model, 0.38, 2) as engine:
        expected = engine(PICTURES)
        (path,) = blobs.iterdir()
        HARMS.get(harm, lambda *_: None)(path, engine)
    for _ in range(2):  # what was compiled anew is kept in its place
        with OpenVINOEngine(model, 0.38, 2) as engine:
            np.testing.assert_array_equal(engine(PICTURES), expected)
    assert len(compiled) == (1 if harm == "none" else 2)
    assert caplog.text.count("; it is compiled anew") == (harm != "none")
    assert list(blobs.iterdir()) == [path]


def test_another_networks_graph_under_a_good_seal_colours_nothing(model: Model) -> None:
    """Nobody but the folder's owner can put it there; the self-test finds it all the same, at any size."""
    core, settings = openvino.Core(), cpu_settings("fp32", 2)
    with OpenVINOEngine(model, 0.38, 2, "fp32") as engine:
        for h, w in ((64, 96), (32, 64)):
            graph = core.read_model(cached_onnx(model))
            graph.reshape({"lightness": [1, 1, h, w]})
            other = [ops.negative(result.input_value(0)) for result in graph.get_results()]
            stream = io.BytesIO()
            core.compile_model(openvino.Model(other, graph.get_parameters()), "CPU", settings).export_model(stream)
            keep(engine._path(h, w), engine._header(h, w, settings), stream.getvalue())
    with pytest.raises(EngineError, match="differs from the reference"):
        prove_engine(model, "openvino", precision="fp32", sizes=[(64, 96)])
    engine._path(64, 96).unlink()
    opened, _ = prove_engine(model, "openvino", precision="fp32", sizes=[(64, 96)])
    with opened:
        assert opened(PICTURES).shape == (2, 2, 16, 24)
        for _ in range(2):
            with pytest.raises(EngineError, match=r"differs from the reference at 32x64 by .*; try the precision fp32"):
                opened(golden_frames(32, 64))


def test_workers_that_start_together_all_have_the_same_colours(model: Model, blobs: Path) -> None:
    begin = threading.Barrier(4)

    def work(_: int) -> np.ndarray:
        with OpenVINOEngine(model, 0.38, 2) as engine:
            begin.wait(30)
            return engine(PICTURES)

    with ThreadPoolExecutor(4) as workers:
        first, *others = workers.map(work, range(4))
    for other in others:
        np.testing.assert_array_equal(other, first)
    with OpenVINOEngine(model, 0.38, 2) as engine:
        assert len(list(blobs.iterdir())) == 1
        assert unsealed(engine._path(64, 96), engine._header(64, 96, cpu_settings("fp32", 2)))


def test_what_cannot_be_kept_costs_no_picture(
    model: Model, blobs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with OpenVINOEngine(model, 0.38, 2) as engine:
        expected = engine(PICTURES)
    for path in blobs.iterdir():
        path.unlink()

    def no_room(*_: object) -> None:
        raise MemoryError

    caplog.set_level(logging.INFO, "model")
    monkeypatch.setattr(openvino.CompiledModel, "export_model", no_room)
    with OpenVINOEngine(model, 0.38, 2) as engine:
        np.testing.assert_array_equal(engine(PICTURES), expected)
    assert caplog.text.count("not kept") == 1
    assert not list(blobs.iterdir())


def test_memory_running_out_while_what_is_kept_is_read_does_not_cost_it(
    model: Model, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenVINOEngine(model, 0.38, 2) as engine:
        engine(PICTURES)
    (kept,) = blobs.iterdir()
    before = kept.stat().st_ino

    def full(*_: object) -> None:
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(openvino.Core, "import_model", full)
    monkeypatch.setattr(openvino.Core, "compile_model", lambda *_: pytest.fail("compiles"))
    with OpenVINOEngine(model, 0.38, 2) as engine, pytest.raises(OutOfMemoryError):
        engine(PICTURES)
    assert kept.stat().st_ino == before


def test_a_large_graph_is_not_kept(model: Model, blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 1000)
    with OpenVINOEngine(model, 0.38, 2) as engine:
        engine(PICTURES)
    assert not blobs.exists()
