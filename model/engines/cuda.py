"""PyTorch on an NVIDIA GPU, for machines without TensorRT."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.engines.base import short
from model.engines.fused import fuse
from model.engines.lanes import Lane, LaneEngine
from model.export import Graph
from model.lowering import LOWER, lowered
from model.precision import GraphPrecision
from model.weights import Model
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from model.outline import Subject

_BATCH = 16
_BATCH_FP32 = 8  # of 32 pictures, each takes eccv16 fourteen times as long, by cuDNN's deterministic kernels on an H200


class CudaEngine(LaneEngine):
    """The network in channels-last layout, which tensor cores want, in float16, bfloat16 or float32.

    In float32 without TF32, which has the 10 bits of float16. Kernels are chosen by cuDNN's rules, not by timing, so
    that every worker chooses alike.
    """

    def __init__(
        self,
        model: Subject,
        temperature: float,
        precision: GraphPrecision = "fp16",
        lanes: int = 2,
        batch: int | None = None,
    ) -> None:
        batch = batch or (_BATCH_FP32 if precision == "fp32" else _BATCH)
        if not torch.cuda.is_available():
            raise EngineError("PyTorch finds no NVIDIA GPU; choose the device cpu")
        super().__init__(model, temperature, batch, precision, lanes)
        self._graph = cuda_graph(model.whole(), precision, torch.device("cuda"))

    @property
    def runtime(self) -> str:
        """As Engine says; with the compute capability, on which the kernels depend."""
        major, minor = torch.cuda.get_device_capability()
        return f"torch-{torch.__version__}-sm{major}{minor}/{short(self.precision)}"

    def open_lanes(self, batch: int, h: int, w: int, count: int) -> list[Lane]:
        """As LaneEngine says."""
        return [self._lane(batch, h, w) for _ in range(count)]

    def _lane(self, batch: int, h: int, w: int) -> Lane:
        scale = self.model.scale
        source = torch.zeros((batch, 1, h, w), device="cuda")
        output = torch.empty((batch, 2, h // scale, w // scale), device="cuda")
        temperature = torch.tensor(self.temperature, device="cuda")
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return Lane(stream, source, output, partial(colour, self._graph, source, temperature, output))


def cuda_graph(model: Model, precision: GraphPrecision, device: torch.device) -> Graph:
    """Network and post-processing on a device, a copy."""
    model = model if precision == "fp32" else lowered(model, LOWER[precision])
    graph = copy.deepcopy(Graph(model)).eval()
    if device.type == "cuda":
        fuse(graph)
    return graph.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def colour(graph: Graph, source: Tensor, temperature: Tensor, output: Tensor) -> None:
    """Write the colours of L* `source` (N, 1, h, w) to `output` (N, 2, h/s, w/s)."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        output.copy_(graph(source, temperature))
