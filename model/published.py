"""Weights that others have published, as model packages.

`eccv16`: the PyTorch release of Zhang, Isola, Efros 2016 (richzhang/colorization, `colorization_release_v2-*.pth`),
a state dict of `model1.0.weight` … `model8.6.bias` and `model_out.weight`, for (L - 50)/100 in and ab/110 out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.bins import Bins, annealed_mean
from model.networks import Network
from model.networks.eccv16 import ECCV16, ECCV16Config
from model.registry import MOST_BYTES, SUFFIX
from model.weights import Model, load_model, save_model, stored
from pipeline.errors import EngineError, InputError, RecipeError, StorageError
from pipeline.storage import open_input, sha256_file

AB_NORM = 110.0  # the release's unit of ab (colorizers/base_color.py)
PLAIN_SOFTMAX = 1.0  # temperature of the release's forward pass
_RELEASE = "9b330a0b"  # first digits of the SHA-256 of the authors' file, which are in its name
_MOST_LOST = 0.5  # mean |Δab| that float16 weights may cost, as much as an engine may differ
_COUNTER = "num_batches_tracked"
_TEMPERATURE = (
    "divides the logits before the softmax. 1 is the plain softmax of the authors' PyTorch release, whose colours it "
    "reproduces (richzhang/colorization issue 93 asks about it); the paper's annealed mean, 0.38, is not in that "
    "release's forward pass. Towards 0 each place gets its likeliest colour instead of the mean of all."
)


def import_eccv16(path: Path, output: Path) -> Model:
    """Write the authors' state dict as the model package `output`, and read it back.

    Raises EngineError where the file is not that state dict, tensor by tensor, or float16 would change its colours;
    StorageError where it cannot be read or `output` cannot be written.
    """

    def wrong(what: str) -> EngineError:
        return EngineError(f"{path}: {what}; give the state dict that the authors published for eccv16 (.pth)")

    config = ECCV16Config()
    with torch.device("meta"):
        network = ECCV16(config)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    expected["model_out.weight"] = torch.Size((2, config.bins, 1, 1))
    try:
        weights = _accounted(_read(path), expected)
        bins = weights.pop("model_out.weight")[:, :, 0, 0].T * AB_NORM
        if bins.abs().max() > 1.2 * AB_NORM:
            raise ValueError(f"model_out.weight holds {bins.abs().max() / AB_NORM:.3g}, which is no ab/{AB_NORM:.0f}")
    except ValueError as e:
        raise wrong(str(e)) from e
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(False)
    lost = _lost_in_storage(network, bins)
    if not lost < _MOST_LOST:
        raise wrong(f"stored as float16 its colours change by {lost:.2f} in ab on average, expected below {_MOST_LOST}")
    save_model(
        output,
        network=network,
        bins=Bins("lab", bins.numpy()),
        prior=np.full(config.bins, 1 / config.bins),
        temperature=PLAIN_SOFTMAX,
        training=_origin(path),
        metrics={"float16_mean_delta_ab": round(lost, 4)},
    )
    return load_model(str(output))


IMPORTERS: Mapping[str, Callable[[Path, Path], Model]] = {"eccv16": import_eccv16}


def import_published(path: Path, network: str, output: Path) -> Model:
    """Write published weights as a package; `network` is a key of `IMPORTERS`. Never replaces a file.

    Raises RecipeError for a name that is no package's, else as the importer does.
    """
    if output.suffix != SUFFIX:
        raise RecipeError(f"{output}: expected a name that ends in {SUFFIX}")
    if output.exists():
        raise EngineError(f"{output}: is there already; remove it or choose another name")
    return IMPORTERS[network](path, output)


def _origin(path: Path) -> dict[str, Any]:
    digest = sha256_file(path)
    release = digest.startswith(_RELEASE)
    return {
        "imported_from": path.name,
        "imported_sha256": digest,
        "source": "richzhang/colorization, colorizers/eccv16.py, Zhang, Isola, Efros, ECCV 2016"
        + (", the authors' file" if release else f"; not the authors' file, whose SHA-256 begins with {_RELEASE}"),
        "data": "ImageNet, 1.3 million photographs, as the paper says" if release else "unknown",
        "licence": "BSD-2-Clause, as the authors' repository says" if release else "unknown",
        "temperature": _TEMPERATURE,
        "prior": "unknown, the state dict has none: uniform in its place; colours do not depend on it",
    }


def _read(path: Path) -> Mapping[Any, Any]:
    """The mapping in the file; ValueError where there is none. Nothing in the file is executed."""
    try:
        with open_input(str(path)) as f:
            if f.seek(0, 2) > MOST_BYTES:
                raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
            f.seek(0)
            found = torch.load(f, map_location="cpu", weights_only=True)
    except InputError as e:
        raise EngineError(str(e)) from e
    except (ValueError, StorageError):
        raise
    except Exception as e:  # a damaged or hostile pickle makes torch.load raise whatever it comes upon
        raise ValueError(f"cannot be read as PyTorch weights alone, without running code ({_reason(e)})") from e
    if not isinstance(found, Mapping):
        raise ValueError(f"holds a {type(found).__name__}, not a state dict")
    return found


def _reason(e: Exception) -> str:
    """The telling part of torch.load's message, which goes on to advise to run the code."""
    lines = [line.strip() for line in str(e).splitlines() if "WeightsUnpickler error" in line] or [str(e)]
    return f"{type(e).__name__}: {' '.join(lines[0].split())[:160]}"


def _accounted(found: Mapping[Any, Any], expected: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors, float32, every one by name and shape; counters of batch normalisation, only read in training, as 0.

    ValueError where one is missing, unknown, misshapen or no finite numbers.
    """
    counters = {name for name in expected if name.endswith(_COUNTER)}
    if missing := sorted(expected.keys() - counters - found.keys()):
        raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
    if unknown := sorted(str(name) for name in found if name not in expected):
        raise ValueError(f"{len(unknown)} entries are unknown to the network, such as {unknown[0][:80]!r}")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{name} is no plain tensor")
        if tensor.shape != expected[name]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name])}")
        if name not in counters and not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all())):
            raise ValueError(f"{name} holds what is no finite number")
    zeros = {name: torch.zeros((), dtype=torch.int64) for name in counters}
    return {name: found[name].detach().float().contiguous() for name in expected if name not in counters} | zeros


def _lost_in_storage(network: Network, bins: Tensor) -> float:
    """Mean |Δab| on one picture between the network and the same with weights as a package stores them."""
    rounded: nn.Module = copy.deepcopy(network)
    for tensor in rounded.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(stored(tensor))
    picture = _waves()
    with torch.inference_mode():
        before, after = (annealed_mean(n(picture), bins, PLAIN_SOFTMAX) for n in (network, rounded))
        lost = float((before - after).abs().mean())
    return lost if math.isfinite(lost) else math.inf


def _waves() -> Tensor:
    """L* (1, 1, 64, 96) of waves and an edge."""
    y, x = np.mgrid[0:64, 0:96]
    picture = 50 + 30 * np.sin(x / 9) * np.cos(y / 7) + 15 * (x > 48)
    return torch.from_numpy(picture.astype(np.float32))[None, None]
