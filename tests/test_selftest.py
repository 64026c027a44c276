"""The self-test lets no broken engine pass, and a precision that fails gives way to the next."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
from skimage import color

from model import engines
from model.engines import open_engine, selftest
from model.engines.base import Engine
from model.engines.golden import golden_frames, reference
from model.engines.selftest import (
    FALLBACK,
    LIMITS,
    check,
    differences,
    fallbacks,
    open_proven,
)
from model.precision import Precision
from model.weights import Model
from pipeline.errors import EngineError, OutOfMemoryError

Change = Callable[[np.ndarray], np.ndarray]


class Changed(Engine):
    """The reference, with its colours changed."""

    def __init__(self, model: Model, change: Change, precision: str = "fp16") -> None:
        super().__init__(model, 0.38, precision=precision)
        self.change = change
        self.open = True

    @property
    def runtime(self) -> str:
        return f"changed-1/{self.precision}"

    def compute(self, lightness: np.ndarray) -> np.ndarray:
        return self.change(reference(self.model, self.temperature, lightness)).astype(np.float32)

    def close(self) -> None:
        self.open = False


def noisy(scale: float) -> Change:
    return lambda ab: ab + np.random.default_rng(0).normal(0, scale, ab.shape)


def one_cell_wrong(ab: np.ndarray) -> np.ndarray:
    """One cell in fifty: the mean hardly moves."""
    ab = ab.copy()
    ab.reshape(-1)[::50] += 30
    return ab


BROKEN: dict[str, Change] = {
    "NaN": lambda ab: np.full_like(ab, np.nan),
    "one NaN": lambda ab: np.where(np.arange(ab.size).reshape(ab.shape) == 77, np.nan, ab),
    "infinite": lambda ab: ab * np.inf,
    "black": np.zeros_like,
    "constant": lambda ab: np.full_like(ab, 12),
    "scaled": lambda ab: 1.2 * ab,
    "in other units": lambda ab: ab / 110,
    "a and b exchanged": lambda ab: ab[:, ::-1],
    "upside down": lambda ab: ab[:, :, ::-1],
    "mirrored": lambda ab: ab[..., ::-1],
    "transposed": lambda ab: np.swapaxes(ab, 2, 3).reshape(ab.shape),
    "negative": lambda ab: -ab,
    "shifted a cell": lambda ab: np.roll(ab, 1, axis=3),
    "the first picture's for all": lambda ab: np.repeat(ab[:1], len(ab), axis=0),
    "a few cells": one_cell_wrong,
    "too small": lambda ab: ab[:, :, ::2, ::2],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_engine_does_not_pass_at_the_widest_limits(model: Model, kind: str) -> None:
    assert max(LIMITS.values(), key=lambda limits: (limits.mean, limits.p99)) == LIMITS["int8"]
    verdict = check(Changed(model, BROKEN[kind], "int8"), 64, 96)
    assert verdict.problem.startswith("changed-1/int8/")
    assert "\n" not in verdict.problem


@pytest.mark.parametrize("precision", FALLBACK)
def test_the_reference_itself_passes_and_rounding_within_the_limits_does(model: Model, precision: str) -> None:
    exact = check(Changed(model, lambda ab: ab, precision), 64, 96)
    assert (exact.mean, exact.largest, exact.problem) == (0.0, 0.0, "")
    near = check(Changed(model, noisy(LIMITS[precision].mean / 2), precision), 64, 96)
    assert near.problem == ""
    assert 0 < near.mean < near.p99 < near.largest


def test_eight_bits_may_differ_by_more_than_sixteen(model: Model) -> None:
    off = noisy(0.6)
    assert check(Changed(model, off, "int8"), 64, 96).problem == ""
    assert "more than 0.5 and 3" in check(Changed(model, off, "fp16"), 64, 96).problem


def test_differences_are_ciede2000_at_each_cells_mean_lightness() -> None:
    rng = np.random.default_rng(0)
    lightness = (rng.random((2, 1, 8, 16)) * 100).astype(np.float32)
    one, two = ((rng.random((2, 2, 2, 4)) * 80 - 40).astype(np.float32) for _ in range(2))
    found = differences(lightness, one, two)
    for n, y, x in np.ndindex(2, 2, 4):
        grey = lightness[n, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()
        expected = color.deltaE_ciede2000([grey, *one[n, :, y, x]], [grey, *two[n, :, y, x]])
        assert found[n, y, x] == pytest.approx(expected, abs=1e-4)


def test_golden_frames_are_pictures_and_the_same_every_time() -> None:
    frames = golden_frames(64, 96)
    assert (frames.shape, frames.dtype) == ((2, 1, 64, 96), np.float32)
    assert frames.min() >= 0
    assert frames.max() <= 100
    assert (frames.std((1, 2, 3)) > 15).all()
    np.testing.assert_array_equal(frames, golden_frames(64, 96))


def opener(model: Model, changes: dict[str, Change]) -> tuple[Callable[[str], Engine], list[Changed]]:
    made: list[Changed] = []

    def make(precision: str) -> Engine:
        made.append(Changed(model, changes[precision], precision))
        return made[-1]

    return make, made


def test_a_failing_precision_falls_back_says_so_once_and_shows_it_in_the_key(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def fine(ab: np.ndarray) -> np.ndarray:
        return ab

    make, made = opener(model, {"int8": BROKEN["scaled"], "fp16": BROKEN["NaN"], "bf16": fine, "fp32": fine})
    engine, verdicts = open_proven(make, ["int8", "fp16", "bf16", "fp32"], [(64, 96)])
    assert engine.key.startswith("changed-1/bf16/")
    assert [(v.precision, v.problem == "") for v in verdicts] == [("int8", False), ("fp16", False), ("bf16", True)]
    assert [e.open for e in made] == [False, False, True]
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2
    assert said[0].startswith("changed-1/int8/")
    assert said[0].endswith("; fp16 is used instead")
    assert "NaN" in said[1]
    assert said[1].endswith("; bf16 is used instead")
    assert engine.notes == tuple(said)


def test_one_size_that_fails_is_enough(model: Model) -> None:
    def narrow_only(ab: np.ndarray) -> np.ndarray:
        return ab if ab.shape[3] < 20 else 2 * ab

    make, _ = opener(model, dict.fromkeys(FALLBACK, narrow_only))
    assert len(open_proven(make, ["fp16"], [(64, 64), (32, 64)])[1]) == 2
    with pytest.raises(EngineError, match="differs from the reference"):
        open_proven(make, ["fp16"], [(64, 64), (64, 96)])


def test_further_sizes_are_for_one_precision_and_are_proven_with_the_others(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow_only(ab: np.ndarray) -> np.ndarray:
        return ab if ab.shape[3] < 20 else 2 * ab

    make, _ = opener(model, {"int8": narrow_only, "fp32": lambda ab: ab})
    heard: list[str] = []
    wide = {"int8": [(64, 64), (32, 96), (32, 128)]}
    engine, verdicts = open_proven(make, ["int8", "fp32"], [(64, 64)], besides=wide, done=heard.append)
    assert [(v.precision, v.width, v.problem == "") for v in verdicts] == [
        ("int8", 64, True),
        ("int8", 96, False),
        ("int8", 128, False),
        ("fp32", 64, True),
    ]
    assert heard[1] == "int8 at 32x96, 2 of 3,"
    (note,) = engine.notes
    assert "differs from the reference at 32x96 by" in note
    assert note.endswith("than 1 and 6, and fails 1 more of 3 tests; fp32 is used instead")
    engine, _ = open_proven(make, ["int8"], [(64, 64)], besides={"int8": [(32, 64)]})
    monkeypatch.setattr(selftest, "check", lambda *_: pytest.fail("tested again"))
    engine(golden_frames(32, 64))


def test_each_size_is_tested_before_its_first_picture_and_only_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow_only(ab: np.ndarray) -> np.ndarray:
        return ab if ab.shape[3] < 20 else 1.5 * ab

    make, _ = opener(model, dict.fromkeys(FALLBACK, narrow_only))
    engine, _ = open_proven(make, ["fp16"], [(64, 64)])
    tested: list[tuple[int, int]] = []
    usual = selftest.check
    monkeypatch.setattr(selftest, "check", lambda e, h, w: tested.append((h, w)) or usual(e, h, w))
    for h, w in ((64, 64), (32, 64), (32, 64), (64, 96), (64, 96)):
        picture = golden_frames(h, w)[1:]
        if w == 96:
            with pytest.raises(EngineError, match=r"differs from the reference at 64x96 by .*; try the precision fp32"):
                engine(picture)
        else:
            np.testing.assert_array_equal(engine(picture), reference(model, 0.38, picture))
    assert tested == [(32, 64), (64, 96), (64, 96)], "what fails is not passed the second time"
    assert engine(np.zeros((0, 1, 96, 96), np.float32)).shape == (0, 2, 24, 24)


def test_where_every_precision_fails_nothing_is_left_open(model: Model) -> None:
    make, made = opener(model, dict.fromkeys(FALLBACK, BROKEN["constant"]))
    with pytest.raises(EngineError, match=r"changed-1/fp32/.* one flat colour"):
        open_proven(make, ["bf16", "fp32"], [(64, 96)])
    assert [(e.precision, e.open) for e in made] == [("bf16", False), ("fp32", False)]


def test_memory_running_out_is_no_failure_of_the_precision(model: Model) -> None:
    def no_room(ab: np.ndarray) -> np.ndarray:
        raise OutOfMemoryError("no room")

    make, made = opener(model, dict.fromkeys(FALLBACK, no_room))
    with pytest.raises(OutOfMemoryError):
        open_proven(make, FALLBACK, [(64, 96)])
    assert [e.open for e in made] == [False]


def test_memory_running_out_for_the_reference_is_told_as_such(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Changed(model, lambda ab: ab)

    def no_room(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes.")

    monkeypatch.setattr(engine, "compute", lambda lightness: reference(model, 0.38, lightness))
    monkeypatch.setattr("model.engines.golden.reference", no_room)
    with pytest.raises(OutOfMemoryError, match="not enough memory for one picture"):
        check(engine, 64, 96)


def test_fallbacks_keep_the_order_and_what_is_offered() -> None:
    assert fallbacks("int8", ["fp32", "bf16"]) == ["int8", "bf16", "fp32"]
    assert fallbacks("fp16", ["fp32"]) == ["fp16", "fp32"]
    assert fallbacks("fp32", ["fp32", "bf16"]) == ["fp32"]
    assert fallbacks("fp8", ["fp16", "bf16", "fp32"]) == ["fp8", "fp16", "bf16", "fp32"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"device": "tpu"}, "no device tpu; choose auto, cpu, cuda"),
        ({"precision": "fp4"}, "no precision fp4"),
        ({"engine": "openvino", "device": "cuda"}, "does not run on the device cuda; choose cpu"),
        ({"engine": "tensorrt", "device": "cpu"}, "does not run on the device cpu; choose cuda"),
        ({"device": "cuda", "precision": "int8"}, "int8 on a GPU takes TensorRT; pip install tensorrt, or choose fp16"),
        ({"engine": "torch", "device": "cuda", "precision": "fp8"}, "fp8 on a GPU takes TensorRT"),
        ({"precision": "fp8"}, "fp8 takes TensorRT on an NVIDIA GPU of Ada, Hopper or later; choose int8"),
        ({"engine": "openvino", "precision": "fp8"}, "fp8 takes TensorRT"),
        ({"engine": "torch", "precision": "bf16"}, "on the CPU PyTorch is the reference"),
        ({"engine": "openvino", "precision": "fp16"}, "choose bf16 or fp32"),
    ],
)
def test_what_contradicts_itself_is_refused(model: Model, wrong: dict[str, str], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        open_engine(model, **wrong)


def test_a_gpu_is_used_where_there_is_one(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def kind(name: str, works: bool = True) -> Callable[[object], tuple[Engine, list[object]]]:
        def make(_: object) -> tuple[Engine, list[object]]:
            asked.append(name)
            if not works:
                raise EngineError(f"{name} does not work")
            return Changed(model, lambda ab: ab), []

        return make

    for name in ("_openvino", "_cuda", "_reference"):
        monkeypatch.setattr(engines, name, kind(name))
    monkeypatch.setattr(engines, "_tensorrt", kind("_tensorrt", works=False))
    for gpu, tensorrt, expected in (
        (False, True, ["_openvino"]),
        (True, False, ["_cuda"]),
        (True, True, ["_tensorrt", "_cuda"]),
    ):
        monkeypatch.setattr(engines, "_has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr(engines, "has_tensorrt", lambda tensorrt=tensorrt: tensorrt)
        asked.clear()
        open_engine(model)
        assert asked == expected
    assert [r.getMessage() for r in caplog.records] == ["_tensorrt does not work; another engine is used instead"]
    monkeypatch.setattr(engines, "_cuda", kind("_cuda", works=False))
    asked.clear()
    assert [note.split()[0] for note in open_engine(model).notes] == ["_tensorrt", "_cuda"]
    assert asked == ["_tensorrt", "_cuda", "_openvino"], "a GPU that fails does not stop the work"
    with pytest.raises(EngineError, match="_cuda does not work"):
        open_engine(model, device="cuda")
    with pytest.raises(EngineError, match="_tensorrt does not work"):
        open_engine(model, "tensorrt")
    asked.clear()
    open_engine(model, device="cpu")
    assert asked == ["_openvino"]


def test_a_gpu_whose_memory_runs_out_does_not_give_way_to_the_cpu(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OutOfMemoryError("no room")

    monkeypatch.setattr(engines, "_has_gpu", lambda: True)
    monkeypatch.setattr(engines, "has_tensorrt", lambda: False)
    monkeypatch.setattr(engines, "_cuda", full)
    monkeypatch.setattr(engines, "_openvino", lambda _: pytest.fail("takes the CPU"))
    with pytest.raises(OutOfMemoryError):
        open_engine(model)


@pytest.mark.parametrize(
    ("gpu", "tensorrt", "precision", "expected"),
    [
        (True, True, "int8", ["_tensorrt", "_openvino"]),
        (True, False, "int8", ["_openvino"]),
        (False, True, "int8", ["_openvino"]),
        (True, True, "fp8", ["_tensorrt"]),
    ],
)
def test_eight_bits_on_a_gpu_are_for_tensorrt(
    model: Model, monkeypatch: pytest.MonkeyPatch, gpu: bool, tensorrt: bool, precision: Precision, expected: list[str]
) -> None:
    asked: list[str] = []

    def failing(name: str) -> Callable[[object], tuple[Engine, list[object]]]:
        def make(_: object) -> tuple[Engine, list[object]]:
            asked.append(name)
            raise EngineError(f"{name} does not work")

        return make

    for name in ("_openvino", "_cuda", "_reference", "_tensorrt"):
        monkeypatch.setattr(engines, name, failing(name))
    monkeypatch.setattr(engines, "_has_gpu", lambda: gpu)
    monkeypatch.setattr(engines, "has_tensorrt", lambda: tensorrt)
    with pytest.raises(EngineError, match=f"{expected[-1]} does not work"):
        open_engine(model, precision=precision)
    assert asked == expected
