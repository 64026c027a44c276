"""How large a network is, and how much it computes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Complexity:
    """parameters: weights and biases. flops: floating-point operations for one picture, a multiply-add counted as two.

    Counted are convolutions and matrix products, as Zhang et al. 2016 do; the rest is below a hundredth.
    """

    parameters: int
    flops: int


def complexity(network: nn.Module, height: int = 256, width: int = 256) -> Complexity:
    """Of a network as in `model.networks`, for a picture of this size; computes nothing and leaves it unchanged."""
    hollow = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        hollow(torch.empty(1, 1, height, width, device="meta"))
    return Complexity(sum(p.numel() for p in network.parameters()), int(counter.get_total_flops()))
