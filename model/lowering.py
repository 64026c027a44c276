"""Networks at lower precision: the arithmetic inside in float16 or bfloat16, input and output in float32."""

from __future__ import annotations

import copy
import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from model.networks import Network
from model.precision import GraphPrecision
from model.weights import Model

LOWER: dict[GraphPrecision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def lowered(model: Model, dtype: torch.dtype) -> Model:
    """The model with its network in `dtype`; what follows the network, the softmax above all, stays in float32."""
    return dataclasses.replace(model, network=cast(Network, _Lowered(model.network, dtype)))


class _Lowered(nn.Module):
    """Weights and activations in `dtype`."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.scale = network.scale
        self.network = _without_batch_norm(copy.deepcopy(network)).to(dtype)

    def forward(self, lightness: Tensor) -> Tensor:
        """lightness: as for the network, float32. Returns float32."""
        output: Tensor = self.network(lightness.to(self._dtype)).float()
        return output


class _Affine(nn.Module):
    """Batch normalisation in use: x·scale + shift, both found in float32, as small variances vanish in float16."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale") + self.get_buffer("shift")


def _without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _Affine(child) if isinstance(child, nn.BatchNorm2d) else _without_batch_norm(child))
    return module
