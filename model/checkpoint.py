"""Training state on disk: one safetensors file, written atomically, that a stopped run goes on from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.errors import InputError, RecipeError, StorageError
from pipeline.storage import replacing

_COUNTERS = ("step", "samples", "seconds", "smooth", "evaluations", "evaluated", "best", "waited")


@dataclass
class State:
    """A network in training, the moving average of its weights, its optimizer, and how far they have come.

    samples: pictures seen by all workers. seconds: spent, over all runs. smooth: moving average of the loss.
    evaluations: that were due so far; evaluated: step of the last. best: the lowest held-out loss; waited: evaluations
    since then.
    """

    network: nn.Module
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    smooth: float = math.nan
    evaluations: int = 0
    evaluated: int = 0
    best: float = math.inf
    waited: int = 0

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """average ← decay · average + (1 - decay) · weights, and the same for batch statistics."""
        values = self.network.state_dict()
        moving = [name for name, value in values.items() if value.is_floating_point()]
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update([self.average[name] for name in moving], [values[name] for name in moving], self.step)
        for name in values.keys() - set(moving):
            self.average[name].copy_(values[name])


def save_checkpoint(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Write everything that `load_checkpoint` reads. `identity`, as JSON has it, says what run this is a state of.

    Raises StorageError; what was at `path` before is then still there.
    """
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in state.average.items()}
    for name, parameter in state.network.named_parameters():
        tensors |= {f"optimizer.{name}.{k}": v for k, v in state.optimizer.state[parameter].items()}
    metadata = {"identity": json.dumps(identity)} | {name: repr(getattr(state, name)) for name in _COUNTERS}
    with replacing(path) as part:
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata)
        except SafetensorError as e:  # the library's own word for an error of the file system
            raise StorageError(
                f"{path}: cannot be written ({e}); the checkpoint before it is intact: free some space and go on with "
                "--resume"
            ) from e


def load_checkpoint(state: State, path: Path, identity: Mapping[str, Any]) -> None:
    """Put a checkpoint's content into a freshly made `state` of the same network.

    Raises InputError for a damaged file, RecipeError naming the first thing in which its run is not that of `identity`.
    """
    tensors, metadata = _read(path)
    try:
        theirs = json.loads(metadata["identity"])
        for what in _differences(theirs, json.loads(json.dumps(identity)), ""):
            raise RecipeError(f"{path} is of a run with {what}; repeat that, or choose another output folder")
        state.network.load_state_dict(_under(tensors, "network."))
        for name, value in _under(tensors, "average.").items():
            state.average[name].copy_(value)
        for name, parameter in state.network.named_parameters():
            slots = _under(tensors, f"optimizer.{name}.")
            device = parameter.device if state.optimizer.defaults["fused"] else torch.device("cpu")
            state.optimizer.state[parameter] = {
                k: v.to(device) if k == "step" else v.to(parameter) for k, v in slots.items()
            }
        for name in _COUNTERS:
            setattr(state, name, type(getattr(state, name))(metadata[name]))
    except (KeyError, RuntimeError, ValueError) as e:
        raise _damaged(path, e) from e


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as e:
        raise _damaged(path, e) from e


def _damaged(path: Path, e: Exception) -> InputError:
    return InputError(f"{path}: not a whole checkpoint: {' '.join(str(e).split())[:200]}; remove it to begin anew")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _differences(theirs: Any, ours: Any, where: str) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in {**theirs, **ours}:
            yield from _differences(theirs.get(key), ours.get(key), f"{where}.{key}" if where else key)
    elif theirs != ours:
        yield f"{where} {theirs}, not {ours}"
