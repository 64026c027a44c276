"""Networks at lower precision: the arithmetic inside in float16 or bfloat16, input and output in float32."""

from __future__ import annotations

import copy
import dataclasses
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
        self.network = _without_batch_norm(_folded(copy.deepcopy(network).eval())).to(dtype)

    def forward(self, lightness: Tensor) -> Tensor:
        """lightness: as for the network, float32. Returns float32."""
        output: Tensor = self.network(lightness.to(self._dtype)).float()
        return output


class _Affine(nn.Module):
    """Batch normalisation that follows no convolution: x·scale + shift, found in float32, as small variances vanish in
    float16."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale[None, :, None, None])
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale)[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.get_buffer("shift"), x, self.get_buffer("scale"))


def _folded(network: nn.Module) -> GraphModule:
    """The network with each batch normalisation that follows a convolution in that one's weights."""
    traced = symbolic_trace(network)
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        norm, convolution = called(traced, node), called(traced, before)
        if not (isinstance(norm, nn.BatchNorm2d) and isinstance(before, Node) and isinstance(convolution, nn.Conv2d)):
            continue
        if len(before.users) == 1:
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def called(traced: GraphModule, node: object) -> nn.Module | None:
    """The module that a node of a traced network calls, None where it calls none."""
    return traced.get_submodule(str(node.target)) if isinstance(node, Node) and node.op == "call_module" else None


def _without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _Affine(child) if isinstance(child, nn.BatchNorm2d) else _without_batch_norm(child))
    return module
