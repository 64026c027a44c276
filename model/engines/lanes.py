"""What the engines on an NVIDIA GPU share: batches of one size in streams of their own, recorded as CUDA graphs."""

from __future__ import annotations

import logging
import queue
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.engines.base import Engine, engine_error
from model.engines.gather import Gatherer
from model.precision import Precision
from pipeline.errors import EngineError, OutOfMemoryError

if TYPE_CHECKING:
    from model.outline import Subject

_SIZES = 8  # picture sizes kept open
_WINDOW = 0.002  # seconds that a batch with room waits for other callers: a fraction of what a batch takes
_log = logging.getLogger(__name__)
_recording = threading.Lock()  # CUDA graphs are recorded one at a time in a process


class Lane:
    """A stream with its buffers and its CUDA graph; one caller at a time."""

    def __init__(self, stream: torch.cuda.Stream, source: Tensor, output: Tensor, enqueue: Callable[[], None]) -> None:
        """`enqueue` makes `output` (B, 2, h/s, w/s) of `source` (B, 1, h, w), both on the GPU, in `stream`."""
        self.stream, self._source, self._output, self.enqueue = stream, source, output, enqueue
        self._sent = torch.zeros(source.shape, pin_memory=True)
        self._received = torch.empty(output.shape, pin_memory=True)
        torch.cuda.current_stream().synchronize()  # what the caller filled is read in another stream
        with torch.cuda.stream(stream):
            enqueue()  # the first time does what cannot be recorded
        stream.synchronize()
        self._graph = self._recorded()

    def run(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 1, h, w) → ab (n, 2, h/s, w/s), n at most B; the rest of the batch is what was there before."""
        n = len(lightness)
        self._sent[:n].copy_(torch.from_numpy(lightness))
        with torch.cuda.stream(self.stream):
            self._source.copy_(self._sent, non_blocking=True)
            if self._graph is None:
                self.enqueue()
            else:
                self._graph.replay()
            self._received.copy_(self._output, non_blocking=True)
        self.stream.synchronize()
        return self._received[:n].numpy().copy()

    def _recorded(self) -> torch.cuda.CUDAGraph | None:
        """The call as a CUDA graph, which spares the launch of each kernel; None for one that cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            with _recording, torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.enqueue()
        except RuntimeError as e:
            if isinstance(e, torch.cuda.OutOfMemoryError):
                raise
            _log.info("runs without a CUDA graph: %s", e)
            return None
        return graph


class LaneEngine(Engine):
    """Computes whole batches only, gathered from all callers and filled up, `lanes` of them at a time.

    So neither the batch nor the callers reach the arithmetic. Where memory runs out, both engine and batch shrink.
    """

    def __init__(self, model: Subject, temperature: float, batch: int, precision: Precision, lanes: int) -> None:
        super().__init__(model, temperature, batch, precision)
        self._count = lanes
        self._lock = threading.Lock()
        self._gatherer = Gatherer(_WINDOW)
        self._lanes: OrderedDict[tuple[int, int, int], queue.SimpleQueue[Lane]] = OrderedDict()

    @abstractmethod
    def open_lanes(self, batch: int, h: int, w: int, count: int) -> list[Lane]:
        """Lanes for (batch, 1, h, w); raises RuntimeError, MemoryError or EngineError."""

    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Engine says. Where the filled-up batch does not fit, it is halved here down to the number of pictures."""
        batch = self.batch
        if len(lightness) > batch:
            raise OutOfMemoryError(f"{self.key}: the batch was halved meanwhile")
        kind = (batch, lightness.shape[2], lightness.shape[3])
        try:
            return self._gatherer.run(kind, batch, lightness, partial(self._idle_lane, *kind))
        except (RuntimeError, TypeError, MemoryError) as e:
            error = engine_error(self.key, e)
        except EngineError as e:
            error = e
        if not isinstance(error, OutOfMemoryError):
            raise error
        self._release()
        if batch == 1:
            raise error
        self.batch = min(self.batch, batch // 2)
        return self.compute(lightness)

    def close(self) -> None:
        """Give back the GPU's memory."""
        self._release()

    @contextmanager
    def _idle_lane(self, batch: int, h: int, w: int) -> Iterator[Callable[[NDArray[np.float32]], NDArray[np.float32]]]:
        """A lane to run a batch in, once one is free."""
        lanes = self._opened(batch, h, w)
        lane = lanes.get()
        try:
            yield lane.run
        finally:
            lanes.put(lane)

    def _release(self) -> None:
        with self._lock:
            self._lanes.clear()
        torch.cuda.empty_cache()

    def _opened(self, batch: int, h: int, w: int) -> queue.SimpleQueue[Lane]:
        """The idle lanes of a picture size."""
        with self._lock:
            idle = self._lanes.pop((batch, h, w), None)
            if idle is None:
                idle = queue.SimpleQueue()
                for lane in self.open_lanes(batch, h, w, self._count):
                    idle.put(lane)
            self._lanes[batch, h, w] = idle
            if len(self._lanes) > _SIZES:
                self._lanes.popitem(last=False)
            return idle
