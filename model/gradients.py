"""The forward and backward pass of a training step: as PyTorch runs it, or on a GPU as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from model.task import Task

Gradients = Callable[[Tensor, Tensor], Tensor]  # of lightness and chroma, see `gradients`
_WARM_UP = 3  # steps before one can be recorded, as the libraries choose and allocate in the first


def gradients_of(task: Task, network: nn.Module, alone: bool) -> Gradients:
    """`gradients` of this task and network; on a GPU recorded, where this worker is alone."""
    if alone and task.device.type == "cuda":
        return RecordedGradients(task, network)
    return partial(gradients, task, network)


def gradients(task: Task, network: nn.Module, lightness: Tensor, chroma: Tensor) -> Tensor:
    """Leave the gradient of the loss in the network's parameters, and return the loss, a scalar.

    lightness: L* (N, 1, h, w); chroma: the truth (N, 2, h, w).
    """
    network.zero_grad(set_to_none=True)
    loss = task.loss(network, lightness, chroma)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


class RecordedGradients:
    """`gradients` as a CUDA graph, recorded for each new size of batch: to launch its short kernels takes longer.

    The loss that it returns is overwritten by the next call.
    """

    def __init__(self, task: Task, network: nn.Module) -> None:
        self._task, self._network = task, network
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, lightness: Tensor, chroma: Tensor) -> Tensor:
        """As `gradients` says."""
        if self._graph is None or lightness.shape != self._lightness.shape:
            self._graph = None
            self._graph = self._recorded(lightness, chroma)
        self._lightness.copy_(lightness)
        self._chroma.copy_(chroma)
        self._graph.replay()
        return self._loss

    def _recorded(self, lightness: Tensor, chroma: Tensor) -> torch.cuda.CUDAGraph:
        self._lightness, self._chroma = lightness.clone(), chroma.clone()
        work = partial(gradients, self._task, self._network, self._lightness, self._chroma)
        statistics = [buffer.clone() for buffer in self._network.buffers()]
        beside, stream = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(stream)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                work()
        stream.wait_stream(beside)
        self._network.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._loss = work()
        for buffer, before in zip(self._network.buffers(), statistics, strict=True):
            buffer.copy_(before)
        return graph
