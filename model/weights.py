"""The model package: one .safetensors file that holds a network and all that must be known to run it.

Tensors: `network.*`, the weights (float16; vectors float32), `bins` (Q, 2) and `prior` (Q,), float32; Q = 0 for a
regression. Metadata, all strings: `format`, `network` and `config` (which network, JSON), `space` (a key of
`model.spaces.SPACES`), `temperature`, `training` and `metrics` (JSON), `version` of reelcolor. Nothing in it is ever
executed, and the weights are checked by name and shape before any memory is taken for them.

Format 1, of which packages remain, is the same, always in the space `lab`, which it gives in words.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from model.bins import Bins
from model.networks import NETWORKS, Network, network_name
from model.registry import MOST_BYTES, Package, locate
from model.spaces import checked_space
from pipeline.errors import EngineError, InputError
from pipeline.storage import open_input, replacing
from pipeline.version import VERSION

FORMAT = "reelcolor-model/2"
_FORMAT_1 = "reelcolor-model/1"
_COUNTER = "num_batches_tracked"  # of batch normalisation; only training reads it


@dataclass(frozen=True)
class Model:
    """A network ready to run, and what its package says of it.

    network: float32, evaluation mode, L* (N, 1, h, w) → logits (N, Q, h/s, w/s), or chroma where it has no bins (see
    `model.networks`). prior: (Q,), summing to 1. temperature: of the annealed mean, without meaning where Q = 0.
    sha256: of the package's bytes. metadata: as in the file; `training` and `metrics` are JSON.
    """

    name: str
    sha256: str
    network: Network
    bins: Bins
    prior: NDArray[np.float32]
    temperature: float
    metadata: Mapping[str, str]

    @property
    def scale(self) -> int:
        """How many pixels of the input a side of one of the output's cells is."""
        return self.network.scale

    @property
    def classes(self) -> int:
        """How many bins of colour there are; 0 for a regression."""
        return len(self.bins)

    def whole(self) -> Model:
        """Itself; see `model.outline.Outline`, which has but some of it."""
        return self


def load_model(name_or_path: str = "default") -> Model:
    """Read a model package by name (see `model.registry`), path or URL.

    Raises EngineError as `locate` and `read_package` do.
    """
    return read_package(locate(name_or_path))


def read_package(package: Package) -> Model:
    """Read a package that has been located.

    Raises EngineError naming the file and what is wrong with it: gone, damaged, or not the one the registry means.
    """
    try:
        with open_input(package.path) as f:
            data = f.read(MOST_BYTES + 1)
    except InputError as e:
        raise EngineError(str(e)) from e
    model = _parse(package.name, package.path, data)
    if package.entry is not None and model.sha256 != package.entry.sha256:
        raise EngineError(
            f"{package.path}: its SHA-256 is {model.sha256}, that of {package.name} in the registry is "
            f"{package.entry.sha256}; get the model package again, or give this one another name"
        )
    return model


def save_model(
    path: Path,
    *,
    network: Network,
    bins: Bins,
    prior: NDArray[np.floating[Any]],
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    temperature: float = 1.0,
) -> None:
    """Write a model package atomically; `training` and `metrics` are kept as JSON, for the reader and the card.

    A regression has `no_bins`, an empty prior and no temperature. Raises ValueError where network, bins and prior do
    not fit each other, StorageError where the file cannot be written.
    """
    if not network.config.bins == len(bins) == len(prior):
        raise ValueError(f"expected {network.config.bins} bins, got {len(bins)} and a prior of {len(prior)}")
    tensors = {f"network.{k}": stored(v) for k, v in network.state_dict().items() if not k.endswith(_COUNTER)}
    tensors |= {"bins": torch.from_numpy(bins.centers), "prior": torch.from_numpy(np.asarray(prior, np.float32))}
    metadata = {
        "format": FORMAT,
        "network": network_name(network),
        "config": json.dumps(asdict(network.config)),
        "space": bins.space,
        "temperature": repr(temperature),
        "training": json.dumps(training),
        "metrics": json.dumps(metrics),
        "version": VERSION,
    }
    with replacing(path) as part:
        save_file(tensors, part, metadata)


def stored(weight: Tensor) -> Tensor:
    """float16 for kernels; float32 for vectors, as variances of batch normalisation fall below what float16 holds."""
    return weight.detach().cpu().to(torch.float16 if weight.ndim > 1 else torch.float32).contiguous()


def _parse(name: str, path: str, data: bytes) -> Model:
    def wrong(what: str) -> EngineError:
        return EngineError(f"{path}: {what}; get the model package again, or choose another with --model")

    if len(data) > MOST_BYTES:
        raise wrong(f"larger than {MOST_BYTES >> 20} MiB, not a model package")
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError, ValueError) as e:
        raise wrong(f"not a complete safetensors file ({_one_line(e)})") from e
    metadata = _metadata(data)
    if metadata.get("format") not in (FORMAT, _FORMAT_1):
        raise wrong(f"expected a package of format {FORMAT}, got {metadata.get('format', 'none')[:40]}")
    try:
        network = _build(metadata, tensors)
        space = "lab" if metadata["format"] == _FORMAT_1 else checked_space(metadata["space"])
        bins, prior = Bins(space, _finite(tensors["bins"]).numpy()), _finite(tensors["prior"]).numpy()
        temperature = float(metadata["temperature"])
    except KeyError as e:
        raise wrong(f"{str(e)[:80]} is missing") from e
    except (ValueError, TypeError, RecursionError) as e:
        raise wrong(_one_line(e)) from e
    if prior.shape != (len(bins),) or network.config.bins != len(bins):
        raise wrong(f"expected {network.config.bins} bins, got {len(bins)} and a prior of {prior.shape}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise wrong(f"expected a positive temperature, got {temperature}")
    return Model(name, hashlib.sha256(data).hexdigest(), network, bins, prior, temperature, metadata)


def _metadata(data: bytes) -> dict[str, str]:
    """The string metadata of a safetensors file that the library has found sound: 8 bytes of length, then JSON."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header.get("__metadata__") or {}
    return found


def _build(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Network:
    """The network of the config with the file's weights; ValueError where the two do not fit each other."""
    kind = metadata["network"]
    if kind not in NETWORKS:
        raise ValueError(f"network {kind[:40]} is not known to this version ({', '.join(NETWORKS)})")
    config_type, network_type = NETWORKS[kind]
    config = json.loads(metadata["config"])
    if not isinstance(config, dict):
        raise ValueError("the network's config is not an object")
    with torch.device("meta"):
        network = network_type(config_type(**config))
    expected = {k: v.shape for k, v in network.state_dict().items() if not k.endswith(_COUNTER)}
    weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    if missing := sorted(expected.keys() - weights.keys()):
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    if unknown := sorted(weights.keys() - expected.keys()):
        raise ValueError(f"{len(unknown)} weights are unknown to the network, such as {unknown[0][:80]}")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}")
    counters = {k: torch.zeros((), dtype=torch.int64) for k in network.state_dict() if k.endswith(_COUNTER)}
    network.load_state_dict({k: _finite(v) for k, v in weights.items()} | counters, assign=True)
    return network.eval().requires_grad_(False)


def _finite(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        raise ValueError(f"expected floating-point weights, got {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise ValueError("weights hold NaN or infinity")
    return tensor.float()


def _one_line(e: Exception) -> str:
    return " ".join(str(e).split())[:200]
