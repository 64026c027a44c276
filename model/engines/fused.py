"""Convolutions on an NVIDIA GPU with what follows them: bias, residual and ReLU in the kernel of the convolution.

PyTorch adds the bias and takes the ReLU in kernels of their own, each of which reads and writes the whole activation:
a quarter of the time of Zhang et al.'s network in bfloat16 (BENCHMARKS.md). cuDNN does all of it before it writes.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from model.lowering import called

_SUMS, _RELUS = (operator.add, torch.add), (F.relu, torch.relu)


def fuse(module: nn.Module) -> None:
    """Change the traced networks in `module` in place: relu(conv(x)) and relu(z + conv(x)) become one call of cuDNN.

    z is of the convolution's shape. What is changed can be called on an NVIDIA GPU alone.
    """
    for part in module.modules():
        if isinstance(part, GraphModule):
            _fuse_traced(part)


class _Fused(nn.Module):
    """relu(convolution(x)), or relu(convolution(x) + z)."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        c = self.convolution
        weight, bias, shape = c.weight, c.bias, (c.stride, c.padding, c.dilation, c.groups)
        if z is None:
            return torch.cudnn_convolution_relu(x, weight, bias, *shape)  # type: ignore[arg-type]
        return torch.cudnn_convolution_add_relu(x, weight, z, 1.0, bias, *shape)  # type: ignore[arg-type]


def _fuse_traced(traced: GraphModule) -> None:
    graph = traced.graph
    for node in [node for node in graph.nodes if _is_relu(traced, node)]:
        before = node.args[0]
        addends = before.args if before.op == "call_function" and before.target in _SUMS else (before,)
        for convolution in addends:
            module = called(traced, convolution)
            if not isinstance(module, nn.Conv2d) or any(len(n.users) > 1 for n in (before, convolution)):
                continue
            traced.set_submodule(convolution.target, _Fused(module))
            others = (n for n in addends if n is not convolution)
            with graph.inserting_before(node):
                made = graph.call_module(convolution.target, (convolution.args[0], *others))
            node.replace_all_uses_with(made)
            for gone in dict.fromkeys((node, before, convolution)):
                graph.erase_node(gone)
            break
    traced.recompile()


def _is_relu(traced: GraphModule, node: Node) -> bool:
    functional = node.op == "call_function" and node.target in _RELUS
    return functional or isinstance(called(traced, node), nn.ReLU)
