"""Training state on disk: one safetensors file, written atomically, that a stopped run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.bins import prior_shift, rebalancing
from model.networks.unet import UNet, UNetConfig
from pipeline.errors import InputError
from pipeline.storage import replacing


@dataclass
class State:
    """A network in training, the moving average of its weights, its optimizer, and how far they have come."""

    network: UNet
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    samples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What a checkpoint gives to a model package: the averaged network, its bins and prior, and how it was made."""

    network: UNet
    bins: Tensor
    prior: Tensor
    config: dict[str, Any]
    step: int
    samples: int
    seconds: float

    def take_back(self, share: float) -> None:
        """Undo a share of the rebalancing in the head's bias: see `prior_shift`."""
        weights = rebalancing(self.prior.numpy(), self.config["uniform"])
        with torch.no_grad():
            self.network.state_dict()["head.bias"].add_(torch.from_numpy(prior_shift(weights, share)).float())


def save_checkpoint(state: State, path: Path, tables: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write everything that `load_checkpoint` and `load_trained` read; `tables` are `bins` and `prior`."""
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    for name, parameter in state.network.named_parameters():
        tensors |= {f"optimizer.{name}.{k}": v for k, v in state.optimizer.state[parameter].items()}
    tensors |= {f"table.{k}": v for k, v in tables.items()}
    metadata = {"network": json.dumps(asdict(state.network.config)), "config": json.dumps(config)}
    metadata |= {"step": str(state.step), "samples": str(state.samples), "seconds": str(state.seconds)}
    with replacing(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata)


def load_checkpoint(state: State, path: Path) -> None:
    """Put a checkpoint's content into a freshly made `state` of the same network."""
    tensors, metadata = _read(path)
    state.network.load_state_dict(_under(tensors, "network."))
    state.average.update({k: v.to(state.average[k].device) for k, v in _under(tensors, "average.").items()})
    for name, parameter in state.network.named_parameters():
        slots = _under(tensors, f"optimizer.{name}.")
        state.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in slots.items()}
    state.step, state.samples, state.seconds = _progress(metadata)


def load_trained(path: Path) -> Trained:
    """The averaged network of a checkpoint, in evaluation mode."""
    tensors, metadata = _read(path)
    network = UNet(UNetConfig(**json.loads(metadata["network"])))
    network.load_state_dict(_under(tensors, "average."))
    tables = _under(tensors, "table.")
    config = json.loads(metadata["config"])
    return Trained(network.eval(), tables["bins"], tables["prior"], config, *_progress(metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata()  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as e:
        raise InputError(f"{path}: not a checkpoint: {e}; remove it to start from the beginning") from e


def _progress(metadata: Mapping[str, str]) -> tuple[int, int, float]:
    return int(metadata["step"]), int(metadata["samples"]), float(metadata["seconds"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
