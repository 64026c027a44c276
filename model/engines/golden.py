"""What every engine is held against: golden frames, and what the network makes of them in PyTorch in float32.

Both are kept beside the exported graph, in one file for each size and temperature, so that opening an engine on a
machine where everything has been made once takes no PyTorch. They are made anew where the weights, the temperature,
this version of reelcolor or of PyTorch are others, or the file is damaged.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from model.cache import cache_folder
from model.outline import Outline
from model.sealed import UnfitError, keep, unsealed
from pipeline.version import VERSION

if TYPE_CHECKING:
    from model.outline import Subject

Golden = tuple[NDArray[np.float32], NDArray[np.float32]]
_log = logging.getLogger(__name__)
_FRAMES = 1  # raised when the frames change


def golden(model: Subject, temperature: float, h: int, w: int) -> Golden:
    """L* (2, 1, h, w) of the golden frames and their ab (2, 2, h/s, w/s), s the network's scale.

    Kept for an outline; of weights that are in memory, made each time. Raises what PyTorch raises.
    """
    if not isinstance(model, Outline):
        frames = golden_frames(h, w)
        return frames, reference(model, temperature, frames)
    path = cache_folder() / "golden" / f"{model.sha256}-{h}x{w}-T{temperature:g}.golden"
    header = _header(model, temperature, h, w)
    try:
        kept = load(unsealed(path, header))
        return kept["lightness"], kept["ab"]
    except FileNotFoundError:
        pass
    except UnfitError as e:
        _log.info("%s: %s; it is made anew", path, e)
    frames = golden_frames(h, w)
    ab = reference(model, temperature, frames)
    keep(path, header, save({"lightness": frames, "ab": np.ascontiguousarray(ab)}))  # else it saves another order
    return frames, ab


def golden_frames(h: int, w: int) -> NDArray[np.float32]:
    """L* (2, 1, h, w): waves cut by an edge, and a cloud with the 1/f spectrum of photographs (Field 1987)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    waves = 50 + 30 * np.sin(x / 9) * np.cos(y / 7) + 15 * (x > w / 2)
    frequency = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w))
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(np.random.Generator(np.random.PCG64(0)).standard_normal((h, w)))
    cloud = np.fft.irfft2(noise / frequency, (h, w))
    cloud = 50 + 20 * cloud / cloud.std()
    return np.stack([waves, cloud]).clip(0, 100).astype(np.float32)[:, None]


def reference(model: Subject, temperature: float, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """ab (N, 2, h/s, w/s) of the network in PyTorch in float32."""
    import torch

    from model.export import Graph

    with torch.inference_mode():
        graph = Graph(model.whole())
        ab: NDArray[np.float32] = graph(torch.from_numpy(lightness), torch.tensor(temperature)).numpy()
    return ab


def _header(model: Outline, temperature: float, h: int, w: int) -> dict[str, Any]:
    """Everything that frames and reference depend on."""
    return {
        "weights": model.sha256,
        "size": [h, w],
        "temperature": temperature,
        "frames": _FRAMES,
        "reelcolor": VERSION,
        "torch": version("torch"),
    }
