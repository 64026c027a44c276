"""One file a network, its config dataclass beside it; `NETWORKS` is how a model package names them."""

from __future__ import annotations

from typing import Any

from model.networks.eccv16 import ECCV16, ECCV16Config
from model.networks.unet import UNet, UNetConfig

Network = UNet | ECCV16
NETWORKS: dict[str, tuple[type[Any], type[Network]]] = {"unet": (UNetConfig, UNet), "eccv16": (ECCV16Config, ECCV16)}
