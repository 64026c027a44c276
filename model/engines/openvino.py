"""The CPU engine: the exported graph in OpenVINO."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from model.engines.base import Engine, Use, engine_error, short
from model.engines.int8 import int8_graph
from model.export import cached_onnx
from model.precision import Precision
from model.weights import Model
from pipeline.errors import EngineError

_SHAPES = 8  # picture sizes kept compiled, about 40 MB each
_first_use = threading.Lock()  # OpenVINO's bindings can deadlock where two threads convert their first array at once


class OpenVINOEngine(Engine):
    """For throughput one single-threaded stream a thread, for latency one stream of all threads; one picture a stream.

    The graph is compiled for each picture size on first use (static shapes are a third faster), always for one picture,
    so that the batch does not reach the arithmetic, and for throughput the number of threads does not either.
    """

    def __init__(
        self,
        model: Model,
        temperature: float,
        threads: int,
        precision: Precision = "fp32",
        use: Use = "throughput",
    ) -> None:
        super().__init__(model, temperature, precision=precision)
        self._threads = threads
        self._streams = threads if use == "throughput" else 1
        self._use = use
        self._core = ov.Core()
        if precision == "fp16":
            raise EngineError(
                "OpenVINO computes float16 on few CPUs, and then no faster than bf16; choose bf16 or fp32"
            )
        if precision == "bf16" and not has_bf16():
            raise EngineError("this machine's CPU has no bfloat16 instructions; choose fp32")
        self._graph: ov.Model | bytes
        self._graph, self._digest = int8_graph(model) if precision == "int8" else (cached_onnx(model), "")
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="openvino")
        self._lock = threading.Lock()
        self._requests: OrderedDict[tuple[int, int], queue.SimpleQueue[Any]] = OrderedDict()

    @property
    def runtime(self) -> str:
        """As Engine says; of an INT8 graph also which one, as it depends on the pictures that it was made from."""
        precision = f"int8-{self._digest}" if self._digest else short(self.precision)
        return f"openvino-{ov.__version__.split('-')[0]}/{precision}"

    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Engine says."""
        try:
            idle = self._compiled(lightness.shape[2], lightness.shape[3])
            return np.concatenate(list(self._pool.map(lambda x: self._one(idle, x), lightness)))
        except (RuntimeError, MemoryError) as e:
            raise engine_error(self.key, e) from e

    def close(self) -> None:
        """Stop the threads and free what was compiled."""
        self._pool.shutdown()
        self._requests.clear()

    def _one(self, idle: queue.SimpleQueue[Any], picture: NDArray[np.float32]) -> NDArray[np.float32]:
        request = idle.get()
        try:
            inputs = {"lightness": picture[None]}
            if len(self.model.bins):
                inputs["temperature"] = np.array(self.temperature, np.float32)
            result = request.infer(inputs, share_inputs=True)
            return np.array(result[0], np.float32)
        finally:
            idle.put(request)

    def _compiled(self, h: int, w: int) -> queue.SimpleQueue[Any]:
        """The idle requests of the graph compiled for a picture size."""
        with self._lock:
            idle = self._requests.pop((h, w), None) or self._compile(h, w)
            self._requests[h, w] = idle
            if len(self._requests) > _SHAPES:
                self._requests.popitem(last=False)
            return idle

    def _compile(self, h: int, w: int) -> queue.SimpleQueue[Any]:
        graph = self._graph.clone() if isinstance(self._graph, ov.Model) else self._core.read_model(self._graph)
        graph.reshape({"lightness": [1, 1, h, w]})
        settings = {
            "PERFORMANCE_HINT": self._use.upper(),
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._streams,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "ENABLE_CPU_PINNING": False,
        }
        compiled = self._core.compile_model(graph, "CPU", settings)
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._streams):
            idle.put(compiled.create_infer_request())
        with _first_use:
            self._one(idle, np.zeros((1, h, w), np.float32))
        return idle


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; OpenVINO does not name what it would have to emulate."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
