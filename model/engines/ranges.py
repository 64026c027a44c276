"""Between what values the inputs of a model's convolutions lie: all that 8-bit graphs need beyond the weights.

They are measured on pictures like those to come, and kept in a file that says which weights they are of. Those of the
default are shipped; those measured here are in the cache, and come first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.cache import cache_folder
from model.registry import PRETRAINED
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import EngineError
from pipeline.storage import write_bytes

if TYPE_CHECKING:
    import torch

    from model.outline import Subject

SUFFIX = ".ranges.json"
_OUTLIERS = 1e-4  # of values lie outside, on either side: NVIDIA's calibrators have the same share
_BATCH = 10  # pictures that the share is of
_GRAPHS = 1  # raised when other graphs are made of the same ranges
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranges:
    """`of`: (least, greatest) by the name of the convolution's module; least ≤ 0 ≤ greatest."""

    weights: str  # SHA-256 of the model package
    of: dict[str, tuple[float, float]]

    def to_json(self) -> bytes:
        """What is shipped, and kept."""
        lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(pair)}" for name, pair in self.of.items())
        return f'{{"weights": "{self.weights}", "ranges": {{\n  {lines}\n}}}}\n'.encode()

    @property
    def digest(self) -> str:
        """Eight digits that stand for these ranges, and how graphs are made of them, in engine keys."""
        return hashlib.sha256(b"%d " % _GRAPHS + self.to_json()).hexdigest()[:8]


def measured(model: Subject, pictures: NDArray[np.float32]) -> Ranges:
    """The ranges of a model on pictures (N, 1, h, w) of L* 0..100, some hundred of what is to be coloured.

    Of each ten pictures a few outliers are left out, which would make all steps coarse; the widest of these counts.
    """
    import torch

    found: dict[str, tuple[float, float]] = {}

    def watch(name: str, values: torch.Tensor) -> None:
        outside = int(values.numel() * _OUTLIERS) + 1
        least, greatest = (float(values.flatten().topk(outside, largest=end).values[-1]) for end in (False, True))
        before = found.get(name, (0.0, 0.0))
        found[name] = (min(before[0], least), max(before[1], greatest))

    network = model.whole().network
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    try:
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                network(torch.from_numpy(pictures[start : start + _BATCH]))
    finally:
        for hook in hooks:
            hook.remove()
    return Ranges(model.sha256, {name: (_short(least), _short(most)) for name, (least, most) in found.items()})


def ranges_of(model: Subject) -> Ranges:
    """Those measured here, else those shipped.

    Raises EngineError where there are none, or those shipped are damaged or of other weights.
    """
    path = _path(model)
    with contextlib.suppress(FileNotFoundError):
        try:
            return _read(unsealed(path, _header(model)))
        except UnfitError as e:
            _log.warning("%s: %s; it is left aside", path, e)
    return _shipped(model, PRETRAINED)


def has_ranges(model: Subject) -> bool:
    """Whether there are any that fit."""
    try:
        ranges_of(model)
    except EngineError as e:
        _log.debug("%s", e)
        return False
    return True


def keep_ranges(model: Subject, ranges: Ranges) -> None:
    """Put ranges into the cache, in place of earlier ones."""
    keep(_path(model), _header(model), ranges.to_json())


@contextlib.contextmanager
def on_trial(model: Subject, ranges: Ranges) -> Iterator[Callable[[], object]]:
    """`ranges` count inside; afterwards only if what is given was called, else what was kept before."""
    path = _path(model)
    restore: Callable[[], object] = partial(path.unlink, missing_ok=True)
    if path.exists():
        restore = partial(write_bytes, path, path.read_bytes())
    with contextlib.ExitStack() as undo:
        undo.callback(restore)
        keep_ranges(model, ranges)
        yield undo.pop_all


def _shipped(model: Subject, folder: Path) -> Ranges:
    """The ranges shipped for a model of this name, if they are of these weights."""
    remedy = f"make them with reelcolor compile {model.name} --precision int8 --calibrate PHOTOGRAPHS"
    path = folder / f"{model.name}{SUFFIX}"
    try:
        ranges = _read(path.read_bytes())
    except FileNotFoundError as e:
        raise EngineError(f"{model.name}: no ranges for 8 bits on this machine; {remedy}") from e
    except OSError as e:
        raise EngineError(f"{path}: cannot be read; {remedy}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise EngineError(f"{path}: is damaged; {remedy}") from e
    if ranges.weights != model.sha256:
        raise EngineError(f"{path}: is of the weights {ranges.weights[:12]}, not of {model.sha256[:12]}; {remedy}")
    return ranges


def _read(data: bytes) -> Ranges:
    read = json.loads(data)
    return Ranges(
        str(read["weights"]), {name: (float(low), float(high)) for name, (low, high) in read["ranges"].items()}
    )


def _short(value: float) -> float:
    """Four digits, which a file shows well, and is finer than 8 bits."""
    return float(f"{value:.4g}")


def _path(model: Subject) -> Path:
    return cache_folder() / f"{model.sha256}.ranges"


def _header(model: Subject) -> dict[str, Any]:
    return {"weights": model.sha256, "form": "ranges"}
