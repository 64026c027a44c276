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

from model.engines.base import Engine, engine_error
from model.export import cached_onnx
from model.weights import Model
from pipeline.errors import EngineError

_SHAPES = 8  # picture sizes kept compiled, about 40 MB each


class OpenVINOEngine(Engine):
    """One single-threaded stream a thread, one picture a stream.

    The graph is compiled for each picture size on first use (static shapes are a third faster), always for one picture
    and one thread, so that neither the batch nor the number of threads reaches the arithmetic.
    """

    def __init__(self, model: Model, temperature: float, threads: int, precision: str = "f32") -> None:
        super().__init__(model, temperature)
        self._precision = precision
        self._threads = threads
        self._core = ov.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("this machine's CPU has no bfloat16 instructions; choose the engine openvino")
        self._graph = cached_onnx(model)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        self._lock = threading.Lock()
        self._requests: OrderedDict[tuple[int, int], queue.SimpleQueue[Any]] = OrderedDict()

    @property
    def runtime(self) -> str:
        """As Engine says."""
        return f"openvino-{ov.__version__.split('-')[0]}/{self._precision}"

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
            result = request.infer([picture[None], np.float32(self.temperature)], share_inputs=True)
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
        graph = self._core.read_model(self._graph)
        graph.reshape({"lightness": [1, 1, h, w]})
        settings = {
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._threads,
            "INFERENCE_PRECISION_HINT": self._precision,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = self._core.compile_model(graph, "CPU", settings)
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._threads):
            idle.put(compiled.create_infer_request())
        return idle
