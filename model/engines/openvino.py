"""The CPU engine: the exported graph in OpenVINO, compiled once a machine for each picture size."""

from __future__ import annotations

import hashlib
import io
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.cache import cache_folder
from model.engines.base import Engine, engine_error, short
from model.engines.ranges import Ranges, ranges_of
from model.exported import cached_onnx
from model.precision import Precision
from model.sealed import UnfitError, keep, unsealed
from model.silent import openvino as ov
from pipeline.errors import EngineError, OutOfMemoryError

if TYPE_CHECKING:
    from model.outline import Subject

_SHAPES = 8  # picture sizes kept compiled, about 40 MB each
_MOST_KEPT = 64 << 20  # bytes of a graph whose compiled form, as large, is kept on disk
_log = logging.getLogger(__name__)
_first_use = threading.Lock()  # OpenVINO's bindings can deadlock where two threads convert their first array at once


class OpenVINOEngine(Engine):
    """As many single-threaded streams as threads, one picture a stream.

    The graph is compiled for each picture size on first use (static shapes are a third faster), always for one picture,
    so that neither the batch nor the number of threads reaches the arithmetic. What is compiled is kept on disk.
    """

    def __init__(
        self,
        model: Subject,
        temperature: float,
        threads: int,
        precision: Precision = "fp32",
        ranges: Ranges | None = None,
    ) -> None:
        """ranges: for int8, in place of those that the model has."""
        super().__init__(model, temperature, precision=precision)
        self._threads = threads
        self._core = ov.Core()
        if precision == "fp16":
            raise EngineError(
                "OpenVINO computes float16 on few CPUs, and then no faster than bf16; choose bf16 or fp32"
            )
        if precision == "bf16" and not has_bf16():
            raise EngineError("this machine's CPU has no bfloat16 instructions; choose fp32")
        self._graph = cached_onnx(model)
        self._sha256 = hashlib.sha256(self._graph).hexdigest()
        self._ranges = (ranges or ranges_of(model)) if precision == "int8" else None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="openvino")
        self._lock = threading.Lock()
        self._requests: OrderedDict[tuple[int, int], queue.SimpleQueue[Any]] = OrderedDict()

    @property
    def runtime(self) -> str:
        """As Engine says; of INT8 also by which ranges, as these depend on the pictures that they were measured on."""
        precision = f"int8-{self._ranges.digest}" if self._ranges else short(self.precision)
        return f"openvino-{ov.__version__.split('-')[0]}/{precision}"

    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Engine says. Where memory runs out, what was compiled for other sizes is given up."""
        try:
            idle = self._compiled(lightness.shape[2], lightness.shape[3])
            return np.concatenate(list(self._pool.map(lambda x: self._one(idle, x), lightness)))
        except (RuntimeError, MemoryError) as e:
            error = engine_error(self.key, e)
            if isinstance(error, OutOfMemoryError):
                with self._lock:
                    self._requests.clear()
            raise error from e

    def close(self) -> None:
        """Stop the threads and free what was compiled."""
        self._pool.shutdown()
        self._requests.clear()

    def _one(self, idle: queue.SimpleQueue[Any], picture: NDArray[np.float32]) -> NDArray[np.float32]:
        request = idle.get()
        try:
            inputs = {"lightness": picture[None]}
            if self.model.classes:
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
        compiled = self._kept(h, w)
        idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._threads):
            idle.put(compiled.create_infer_request())
        with _first_use:
            self._one(idle, np.zeros((1, h, w), np.float32))
        return idle

    def _kept(self, h: int, w: int) -> ov.CompiledModel:
        """The graph compiled for a picture size, from the cache where what is there is of this graph and machine."""
        settings = cpu_settings(self.precision, self._threads)
        header = self._header(h, w, settings)
        path = self._path(h, w)
        try:
            return self._core.import_model(io.BytesIO(unsealed(path, header)), "CPU", settings)
        except FileNotFoundError:
            pass
        except UnfitError as e:
            _log.info("%s: %s; it is compiled anew", path, e)
        except RuntimeError as e:
            if isinstance(engine_error(self.key, e), OutOfMemoryError):
                raise
            _log.info("%s: OpenVINO refuses it; it is compiled anew", path)
        graph = self._core.read_model(self._in_precision())
        graph.reshape({"lightness": [1, 1, h, w]})
        compiled = self._core.compile_model(graph, "CPU", settings)
        if len(self._graph) <= _MOST_KEPT:
            stream = io.BytesIO()
            try:
                compiled.export_model(stream)
                keep(path, header, stream.getvalue())
            except (RuntimeError, MemoryError) as e:
                _log.info("%s: not kept: %s", path, e)
        return compiled

    def _in_precision(self) -> bytes:
        """The graph to compile, of which OpenVINO itself lowers all but INT8."""
        if self._ranges is None:
            return self._graph
        from model.engines.eight_bits import eight_bit_graph

        return eight_bit_graph(self._graph, self._ranges, "cpu")

    def _path(self, h: int, w: int) -> Path:
        """Versions are in the header alone, so that a new one replaces what is there and piles up none."""
        name = f"{self.model.sha256[:12]}-{h}x{w}-{short(self.precision)}-{self._threads}.blob"
        return cache_folder() / "openvino" / name

    def _header(self, h: int, w: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that a compiled graph depends on."""
        return {
            "graph": self._sha256,
            "runtime": self.runtime,
            "size": [h, w],
            "settings": dict(settings),
            "openvino": ov.__version__,
            "cpu": self._core.get_property("CPU", "FULL_DEVICE_NAME"),
            "capabilities": sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }


def cpu_settings(precision: Precision, streams: int) -> dict[str, Any]:
    """OpenVINO's settings for so many pictures at a time, each by one thread."""
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_NUM_THREADS": streams,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "ENABLE_CPU_PINNING": False,
    }


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16; OpenVINO does not name what it would have to emulate."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
