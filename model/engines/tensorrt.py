"""The NVIDIA engine: the exported graph compiled by TensorRT, versions 10.8 to 11, and run from PyTorch's streams.

Networks are strongly typed, the only kind that TensorRT 11 has: precision is that of the ONNX graph. A plan is
compiled for one picture size and one batch, to which fewer pictures are filled up, so that neither the batch nor the
callers reach the arithmetic, and so that one CUDA graph serves every call.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import tensorrt as trt
import torch
from torch import Tensor

from model.engines.base import engine_error, short
from model.engines.eight_bits import eight_bit_graph
from model.engines.lanes import Lane, LaneEngine
from model.engines.plans import Machine, PlanKey, cached_plan, timing_cache
from model.engines.ranges import Ranges, ranges_of
from model.exported import cached_onnx
from model.precision import GraphPrecision, Precision
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from model.outline import Subject

_OLDEST = (10, 8)
_FP8 = 8.9  # the first compute capability that has it
_log = logging.getLogger(__name__)


class Logger(trt.ILogger):  # type: ignore[misc]
    """TensorRT's messages, to `logging`. Its functions only say that they failed; why is the last error logged."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: deque[str] = deque(maxlen=3)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(msg)
        _log.debug("TensorRT: %s", msg)

    def failure(self, what: str) -> RuntimeError:
        """What failed and the errors logged since the last failure, in words that `engine_error` knows."""
        text = "; ".join(self.errors).replace("OutOfMemory", "out of memory")
        self.errors.clear()
        return RuntimeError(f"{what}: {text or 'no reason given'}")


class Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """Logs each phase of a build, and so that it is alive."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT from any thread, as are the two below."""
        _log.info("TensorRT: %s%s, %d steps", f"{parent_phase}: " if parent_phase else "", phase_name, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Whether to go on."""
        _log.debug("TensorRT: %s: step %d", phase_name, step)
        return True

    def phase_finish(self, phase_name: str) -> None:
        """A phase is over."""
        _log.debug("TensorRT: %s: done", phase_name)


_LOGGER = Logger()  # one a process, as TensorRT wants it
_PROGRESS = Progress()


class TensorRTEngine(LaneEngine):
    """Plans are compiled for each picture size on first use, which takes minutes, or ahead by `reelcolor compile`."""

    def __init__(
        self,
        model: Subject,
        temperature: float,
        precision: Precision = "fp16",
        lanes: int = 2,
        batch: int = 16,
        ranges: Ranges | None = None,
    ) -> None:
        """ranges: for 8 bits, in place of those that the model has."""
        super().__init__(model, temperature, batch, precision, lanes)
        self._machine = this_machine()
        if precision == "fp8" and float(self._machine.capability) < _FP8:
            raise EngineError(f"{self._machine.gpu} has no FP8, which begins with Ada and Hopper; choose int8 or fp16")
        self._ranges = (ranges or ranges_of(model)) if precision in ("int8", "fp8") else None
        self._onnx = graph_for(model, precision, self._ranges)
        self._graph = hashlib.sha256(self._onnx).hexdigest()
        try:
            self._runtime: trt.Runtime = trt.Runtime(_LOGGER)
        except (RuntimeError, TypeError) as e:
            raise engine_error(self.key, e) from e

    @property
    def runtime(self) -> str:
        """As Engine says; with the compute capability, on which the compiler's choices depend, and any ranges."""
        version, capability = self._machine.compiler, self._machine.capability
        ranges = f"-{self._ranges.digest}" if self._ranges else ""
        return f"tensorrt-{version}-sm{capability.replace('.', '')}/{short(self.precision)}{ranges}"

    def open_lanes(self, batch: int, h: int, w: int, count: int) -> list[Lane]:
        """As LaneEngine says: execution contexts of one plan."""
        key = PlanKey(self.model.sha256, self._graph, self.temperature, batch, h, w, self.precision, self._machine)
        engine = cached_plan(key, partial(self._build, key), self._deserialise)
        return [open_lane(engine, (batch, 1, h, w), self.temperature) for _ in range(count)]

    def _build(self, key: PlanKey) -> bytes:
        size = f"{key.batch} pictures of {key.width}x{key.height}"
        _log.warning("%s: compiling for %s; takes minutes, once on this machine", self.key, size)
        path, header = timing_cache(key.machine), {"kind": "timings"}
        try:
            timings = unsealed(path, header)
        except (FileNotFoundError, UnfitError):
            timings = b""
        plan, timings = build_plan(self._onnx, (key.batch, 1, key.height, key.width), self.precision, timings)
        keep(path, header, timings)
        return plan

    def _deserialise(self, plan: bytes) -> trt.ICudaEngine:
        _LOGGER.errors.clear()
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise engine_error(self.key, _LOGGER.failure("the plan is refused"))
        return engine


def graph_for(model: Subject, precision: Precision, ranges: Ranges | None) -> bytes:
    """The ONNX graph to compile; 8 bits stand in one of float16. ranges: given for int8 and fp8, and for these only."""
    if ranges is None:
        return cached_onnx(model, cast(GraphPrecision, precision))
    return eight_bit_graph(cached_onnx(model, "fp16"), ranges, cast(Literal["int8", "fp8"], precision))


def open_lane(engine: trt.ICudaEngine, shape: tuple[int, int, int, int], temperature: float) -> Lane:
    """A lane that runs an execution context of its own; raises RuntimeError with TensorRT's reason."""
    _LOGGER.errors.clear()
    context = engine.create_execution_context()
    if context is None:
        raise _LOGGER.failure("no execution context")
    if not context.set_input_shape("lightness", shape):
        raise _LOGGER.failure(f"the plan is not for {shape}")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    tensors = {
        "lightness": torch.zeros(shape, device="cuda"),
        "temperature": torch.tensor(temperature, device="cuda"),
        "ab": torch.empty(tuple(context.get_tensor_shape("ab")), device="cuda"),
    }
    for i in range(engine.num_io_tensors):  # a regression has no temperature
        name = engine.get_tensor_name(i)
        if not context.set_tensor_address(name, tensors[name].data_ptr()):
            raise _LOGGER.failure(f"the plan takes no {name}")
    return Lane(stream, tensors["lightness"], tensors["ab"], partial(enqueue_in, context, stream, tensors))


def enqueue_in(context: trt.IExecutionContext, stream: torch.cuda.Stream, _kept: dict[str, Tensor]) -> None:
    """Run a context once; `_kept` are the tensors that it reads and writes by address."""
    if not context.execute_async_v3(stream.cuda_stream):
        raise _LOGGER.failure("the plan does not run")


def build_plan(
    onnx: bytes, shape: tuple[int, int, int, int], precision: Precision, timings: bytes
) -> tuple[bytes, bytes]:
    """(plan, timings) of a graph for inputs of exactly `shape`; timings: of earlier builds, or nothing.

    In fp32 without TF32, which has the 10 bits of float16. Raises RuntimeError with TensorRT's reason.
    """
    _LOGGER.errors.clear()
    builder = trt.Builder(_LOGGER)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, _LOGGER)
    if not parser.parse(onnx):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise _LOGGER.failure(f"the graph is refused ({reasons})")
    config = builder.create_builder_config()
    config.progress_monitor = _PROGRESS
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape("lightness", shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise _LOGGER.failure(f"the graph is not for {shape}")
    earlier = config.create_timing_cache(timings)  # None where TensorRT cannot read them
    if earlier is None or not config.set_timing_cache(earlier, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _LOGGER.failure("no plan could be built")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def this_machine() -> Machine:
    """TensorRT, driver and the GPU that PyTorch uses; raises EngineError where one is missing or too old."""
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if version < _OLDEST:
        raise EngineError(f"TensorRT {trt.__version__} is too old; install 10.8 or newer")
    if not torch.cuda.is_available():
        raise EngineError("PyTorch finds no NVIDIA GPU, which TensorRT needs; choose the device cpu")
    major, minor = torch.cuda.get_device_capability()
    return Machine(trt.__version__, driver_version(), torch.cuda.get_device_name(), f"{major}.{minor}")


def driver_version() -> str:
    """The NVIDIA driver's version, such as `580.159.04`, from NVML, a part of it; raises EngineError without one."""
    try:
        nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as e:
        raise EngineError(f"no NVIDIA driver ({e}); install one, or choose the device cpu") from e
    version = ctypes.create_string_buffer(96)
    codes = [nvml.nvmlInit_v2(), nvml.nvmlSystemGetDriverVersion(version, len(version)), nvml.nvmlShutdown()]
    if any(codes):
        raise EngineError(f"the NVIDIA driver does not answer (NVML codes {codes}); choose the device cpu")
    return version.value.decode()
