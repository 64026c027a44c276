"""One file a network, its config dataclass beside it; `NETWORKS` is how a model package names them.

Every network takes L* (N, 1, h, w), h and w multiples of 32, to (N, C, h/s, w/s): s is its `scale`, C its config's
`bins`, whose logits these are, or 2 without bins, the chroma in units of `model.spaces.UNIT`. `head` is its last layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.networks.colorunet import ColorUNet, ColorUNetConfig
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig

NetworkConfig = UNetConfig | ECCV16Config | ColorUNetConfig
Network = UNet | ECCV16 | ColorUNet
NETWORKS: dict[str, tuple[type[NetworkConfig], Callable[[Any], Network]]] = {
    "unet": (UNetConfig, UNet),
    "eccv16": (ECCV16Config, ECCV16),
    "colorunet": (ColorUNetConfig, ColorUNet),
}


def network_name(network: Network) -> str:
    """The key of `NETWORKS` that a network goes by."""
    return next(name for name, (_, kind) in NETWORKS.items() if type(network) is kind)
