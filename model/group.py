"""Workers that train one network together: each on its own part of the batch, with the gradients averaged.

A worker's place comes from torch.distributed, where a process group has been made; without one there is one worker.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Group:
    """This worker's place among all. rank: 0 … size - 1; the worker of rank 0 writes files and reports."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes files and reports."""
        return self.rank == 0

    def agreed(self, value: float) -> float:
        """The value that the leader has, at every worker."""
        shared = torch.tensor([value], dtype=torch.float64, device=self._device)
        if self.size > 1:
            dist.broadcast(shared, 0)
        return shared.item()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the workers, outside the graph of gradients."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value / self.size

    def join(self, network: nn.Module) -> nn.Module:
        """The network as a module whose backward pass leaves the mean gradient of all workers.

        Batch normalisation is over the batches of all workers, so that they do what one with all their pictures would.
        """
        if self.size == 1:
            return network
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm
        return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)

    @property
    def _device(self) -> torch.device:
        nccl = self.size > 1 and dist.get_backend() == "nccl"
        return torch.device("cuda" if nccl else "cpu")


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics in training are those of all workers' batches, which are of one size.

    torch.nn.SyncBatchNorm does the same, but on GPUs only. Statistics are at least float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        workers = dist.get_world_size()
        mean = _sum_over_workers(wide.mean((0, 2, 3))) / workers
        centred = wide - mean[:, None, None]
        variance = _sum_over_workers(centred.square().mean((0, 2, 3))) / workers
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * workers)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running statistics, as torch keeps them: the variance without bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked += 1


class _Sum(torch.autograd.Function):
    """The sum over all workers; so is the gradient, as each worker's output depends on every worker's input."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def _sum_over_workers(x: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(x))  # type: ignore[no-untyped-call]
