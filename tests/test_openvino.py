"""OpenVINO in each precision and for each use, and INT8 from pictures to proof."""

from __future__ import annotations

import threading
from pathlib import Path

import openvino
import pytest

from model.engines import open_engine, prove_engine
from model.engines.openvino import OpenVINOEngine, has_bf16
from model.engines.selftest import LIMITS, differences, golden_frames, reference
from model.weights import Model
from pipeline.errors import EngineError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("cache")
def test_openvino_passes_in_each_precision_for_either_use(model: Model) -> None:
    pictures = golden_frames(64, 96)
    expected = reference(model, 0.38, pictures)
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        for use in ("throughput", "latency"):
            engine, (verdict,) = prove_engine(model, "openvino", precision=precision, use=use, sizes=[(64, 96)])
            with engine:
                assert (verdict.precision, verdict.height, verdict.width) == (precision, 64, 96)
                assert differences(pictures, expected, engine(pictures)).mean() <= LIMITS[precision].mean


@pytest.mark.usefixtures("cache")
def test_int8_without_an_int8_graph_says_how_to_make_one(model: Model) -> None:
    with pytest.raises(EngineError, match="reelcolor compile tiny --precision int8 --calibrate"):
        open_engine(model, "openvino", precision="int8")


@pytest.mark.usefixtures("cache")
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
