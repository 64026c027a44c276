"""Running a model: one Engine interface over OpenVINO, TensorRT and PyTorch, each proven before it is used."""

from __future__ import annotations

import ctypes
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from model.engines.base import Engine
from model.engines.selftest import SIZE, Verdict, fallbacks, open_proven
from model.precision import Precision
from pipeline.errors import EngineError, OutOfMemoryError
from pipeline.infer import network_sizes

if TYPE_CHECKING:
    from model.engines.ranges import Ranges
    from model.outline import Subject

EngineName = Literal["auto", "openvino", "torch", "tensorrt"]
Device = Literal["auto", "cpu", "cuda"]
_log = logging.getLogger(__name__)


def open_engine(
    model: Subject,
    engine: EngineName = "auto",
    temperature: float | None = None,
    threads: int = 2,
    *,
    device: Device = "auto",
    precision: Precision | Literal["auto"] = "auto",
) -> Engine:
    """An engine for `model`, to be used as a context manager: `prove_engine` without the verdicts."""
    return prove_engine(model, engine, temperature, threads, device=device, precision=precision)[0]


def prove_engine(
    model: Subject,
    engine: EngineName = "auto",
    temperature: float | None = None,
    threads: int = 2,
    *,
    device: Device = "auto",
    precision: Precision | Literal["auto"] = "auto",
    sizes: Sequence[tuple[int, int]] = (SIZE,),
    ranges: Ranges | None = None,
    done: Callable[[str], None] = lambda _name: None,
) -> tuple[Engine, list[Verdict]]:
    """An engine that has passed the self-test at all sizes (h, w), and what the test found, also of what it rejected.

    engine `auto`: on a GPU TensorRT where it is installed, else PyTorch, else as on the CPU: OpenVINO. `torch` without
    a device is the reference, float32 on the CPU, which is held against nothing.
    device `auto`: the GPU where PyTorch finds one, for int8 and fp8 where TensorRT is installed, too. precision `auto`:
    on the CPU int8 where the model has ranges for it that have passed at every size of picture, at this T or a colder
    one, else bf16 where there are instructions for it, else fp32; on the GPU fp16. Where int8 is asked for and they
    have not, all sizes of picture are tested here. A precision that fails the self-test gives way to the next of int8,
    fp16, bf16, fp32, fp8 to fp16, which is logged and kept in the engine's notes, as is what ails a file of ranges.
    temperature: of the annealed mean; None takes the model's own. threads: how many pictures are computed at a time on
    the CPU, one thread each. ranges: in place of those that the model has. `done` hears of each test in a few words.
    Raises EngineError where the engine cannot be made, or disagrees with the reference in every precision.
    """
    temperature = model.temperature if temperature is None else temperature
    if threads < 1:
        raise EngineError(f"expected at least one thread, got {threads}")
    *others, last = _kinds(engine, device, precision)
    wish = _Wish(model, temperature, threads, precision, sizes, ranges, done)
    failed: list[str] = []
    for kind in others:
        try:
            return _noted(kind(wish), failed)
        except OutOfMemoryError:
            raise
        except EngineError as e:
            failed.append(f"{e}; another engine is used instead")
            _log.warning(failed[-1])
    return _noted(last(wish), failed)


def check_choice(device: str, precision: str) -> None:
    """Raise the EngineError that `prove_engine` would, where these contradict each other or this machine, at once."""
    _kinds("auto", device, precision)


@dataclass(frozen=True)
class _Wish:
    """What an engine is opened with."""

    model: Subject
    temperature: float
    threads: int
    precision: Precision | Literal["auto"]
    sizes: Sequence[tuple[int, int]]
    ranges: Ranges | None
    done: Callable[[str], None]

    def at(self, usual: Precision) -> Precision:
        """The precision that is asked for, else the usual one."""
        return usual if self.precision == "auto" else self.precision

    def known_ranges(self) -> tuple[Ranges | None, tuple[str, ...]]:
        """What 8 bits would be made of, and notes; raises EngineError where 8 bits are asked for and cannot be made."""
        from model.engines.ranges import find_ranges, no_ranges

        if self.ranges is not None:
            return self.ranges, ()
        ranges, wrong = find_ranges(self.model)
        if ranges is None and self.precision != "auto":
            raise no_ranges(self.model, wrong)
        for line in wrong:
            _log.warning(line)
        return ranges, wrong


_Proven = tuple[Engine, list[Verdict]]
_Kind = Callable[[_Wish], _Proven]


def _noted(proven: _Proven, failed: Sequence[str]) -> _Proven:
    """With what failed before it among the engine's notes."""
    proven[0].notes = (*failed, *proven[0].notes)
    return proven


def _kinds(engine: str, device: str, precision: str) -> list[_Kind]:
    """The engine that is asked for, then those to use where it cannot be made; EngineError where they contradict."""
    for name, given, choices in (
        ("engine", engine, get_args(EngineName)),
        ("device", device, get_args(Device)),
        ("precision", precision, ("auto", *get_args(Precision))),
    ):
        if given not in choices:
            raise EngineError(f"no {name} {given}; choose {', '.join(choices)}")
    unasked = engine == "auto" and device == "auto"
    eight_bits = precision in ("int8", "fp8")
    if unasked:
        device = "cuda" if (not eight_bits or has_tensorrt()) and _has_gpu() else "cpu"
    known: dict[str, list[_Kind]] = {
        "auto": [_openvino] if device == "cpu" else _on_gpu(eight_bits),
        "torch": [_cuda] if device == "cuda" else [_reference],
        "tensorrt": [_tensorrt],
    }
    kinds = known.get(engine, [_openvino])
    where = "cpu" if kinds[0] in (_openvino, _reference) else "cuda"
    if device not in ("auto", where):
        raise EngineError(f"the engine {engine} does not run on the device {device}; choose {where}")
    if eight_bits and _cuda in kinds:
        raise EngineError(f"{precision} on a GPU takes TensorRT; pip install tensorrt, or choose fp16")
    if precision == "fp8" and where == "cpu":
        raise EngineError("fp8 takes TensorRT on an NVIDIA GPU of Ada, Hopper or later; choose int8")
    return [*kinds, _openvino] if unasked and where == "cuda" and precision != "fp8" else kinds


def _on_gpu(eight_bits: bool) -> list[_Kind]:
    """TensorRT where it is installed; PyTorch, which has no 8 bits, for the rest."""
    if not has_tensorrt():
        return [_cuda]
    return [_tensorrt] if eight_bits else [_tensorrt, _cuda]


def _reference(wish: _Wish) -> _Proven:
    from model.engines.torch import TorchEngine

    if wish.at("fp32") != "fp32":
        raise EngineError(f"on the CPU PyTorch is the reference, in fp32, not {wish.precision}; choose the engine auto")
    return TorchEngine(wish.model, wish.temperature, wish.threads), []


def _openvino(wish: _Wish) -> _Proven:
    from model.engines.openvino import OpenVINOEngine, has_bf16

    ranges, notes = wish.known_ranges() if wish.precision in ("auto", "int8") else (None, ())

    def make(precision: Precision) -> Engine:
        return OpenVINOEngine(wish.model, wish.temperature, wish.threads, precision, ranges)

    proven = ranges is not None and ranges.coldest is not None and ranges.coldest <= wish.temperature
    known: dict[Precision, bool] = {"int8": proven, "bf16": has_bf16(), "fp32": True}
    offered = [precision for precision, is_there in known.items() if is_there]  # the fastest first
    besides: dict[Precision, Sequence[tuple[int, int]]] = {} if proven else {"int8": network_sizes()}
    chain = fallbacks(wish.at(offered[0]), offered)
    if chain[0] in besides:
        _log.info(
            "%s in INT8 is tested at every size of picture, as it has not passed at this T before", wish.model.name
        )
    return _noted(open_proven(make, chain, wish.sizes, besides=besides, done=wish.done), notes)


def _tensorrt(wish: _Wish) -> _Proven:
    if not has_tensorrt():
        raise EngineError("TensorRT is not installed; pip install tensorrt, or choose the engine torch")
    from model.engines.tensorrt import TensorRTEngine

    ranges, notes = wish.known_ranges() if wish.precision in ("int8", "fp8") else (None, ())

    def make(precision: Precision) -> Engine:
        return TensorRTEngine(wish.model, wish.temperature, precision, ranges=ranges)

    chain = fallbacks(wish.at("fp16"), ["fp16", "bf16", "fp32"])
    return _noted(open_proven(make, chain, wish.sizes, done=wish.done), notes)


def _cuda(wish: _Wish) -> _Proven:
    from model.engines.cuda import CudaEngine

    def make(precision: Precision) -> Engine:
        assert precision != "int8"
        assert precision != "fp8"
        return CudaEngine(wish.model, wish.temperature, precision)

    return open_proven(make, fallbacks(wish.at("fp16"), ["bf16", "fp32"]), wish.sizes, done=wish.done)


def _has_gpu() -> bool:
    """Whether PyTorch finds one; it is not even asked, as its import takes long, where there is no NVIDIA driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def has_tensorrt() -> bool:
    """Whether it can be loaded: its Python package comes without the libraries, too."""
    try:
        importlib.import_module("tensorrt")
    except (ImportError, OSError):
        return False
    return True
