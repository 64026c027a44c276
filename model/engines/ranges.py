"""Between what values the inputs of a model's convolutions lie: all that 8-bit graphs need beyond the weights.

They are measured on pictures like those to come, and kept in a file that says which weights they are of. Those of the
default are shipped; those measured here are in the cache, and come first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.cache import cache_folder
from model.registry import PRETRAINED
from model.registry import SUFFIX as PACKAGE
from model.sealed import UnfitError, sealed, unsealed
from pipeline.errors import EngineError, InputError
from pipeline.storage import sha256_file, write_bytes

if TYPE_CHECKING:
    import torch

    from model.outline import Subject

SUFFIX = ".ranges.json"
_OUTLIERS = 1e-4  # of values lie outside, on either side: NVIDIA's calibrators have the same share
_BATCH = 10  # pictures that the share is of
_GRAPHS = 1  # raised when other graphs are made of the same ranges


@dataclass(frozen=True)
class Ranges:
    """`of`: (least, greatest) by the name of the convolution's module; least ≤ 0 ≤ greatest.

    coldest: the temperature at which the CPU has passed with them at every size of picture; hotter ones are easier.
    None: it has not been tried.
    """

    weights: str  # SHA-256 of the model package
    of: dict[str, tuple[float, float]]
    coldest: float | None = None

    def to_json(self) -> bytes:
        """What is shipped, and kept."""
        return self._text(f'"check": "{self.check}", "coldest": {json.dumps(self.coldest)}, ').encode()

    @property
    def check(self) -> str:
        """Eight digits that stand for these ranges, by which a file is found to be unchanged."""
        return _digits(self._text())

    @property
    def digest(self) -> str:
        """Eight digits that stand for these ranges, and how graphs are made of them, in engine keys."""
        return _digits(f"{_GRAPHS} {self._text()}")

    def _text(self, more: str = "") -> str:
        lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(pair)}" for name, pair in self.of.items())
        return f'{{"weights": "{self.weights}", {more}"ranges": {{\n  {lines}\n}}}}\n'


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


def find_ranges(model: Subject) -> tuple[Ranges | None, tuple[str, ...]]:
    """Those measured here, else those shipped, else None; and a line on each file that is left aside as unfit."""
    wrong = []
    found = None
    for path, read in ((_path(model), _kept), (PRETRAINED / f"{model.name}{SUFFIX}", _shipped)):
        try:
            found = read(path, model)
            break
        except FileNotFoundError:
            pass
        except UnfitError as e:
            if read is _kept or _is_shipped(model):  # else they are of a model that is called the same
                wrong.append(f"{path}: {e}")
    instead = "those shipped are used instead" if found else "INT8 is not used"
    return found, tuple(f"{line}; {instead}; {_remedy(model)}" for line in wrong)


def ranges_of(model: Subject) -> Ranges:
    """Those of `find_ranges`; raises EngineError, with what is wrong, where there are none."""
    ranges, wrong = find_ranges(model)
    if ranges is None:
        raise no_ranges(model, wrong)
    return ranges


def no_ranges(model: Subject, wrong: Sequence[str]) -> EngineError:
    """That there are none, or what is wrong with those that there are."""
    return EngineError("; ".join(wrong) or f"{model.name}: no ranges for 8 bits on this machine; {_remedy(model)}")


def keep_ranges(model: Subject, ranges: Ranges) -> None:
    """Put ranges into the cache, in place of earlier ones; raises StorageError where that cannot be written."""
    write_bytes(_path(model), sealed(_header(model), ranges.to_json()))


def _kept(path: Path, model: Subject) -> Ranges:
    return _read(unsealed(path, _header(model)))


def _shipped(path: Path, model: Subject) -> Ranges:
    try:
        ranges = _read(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as e:
        raise UnfitError(f"cannot be read ({e.strerror})") from e
    if ranges.weights != model.sha256:
        raise UnfitError(f"is of the weights {ranges.weights[:12]}, not of {model.sha256[:12]}")
    return ranges


def _is_shipped(model: Subject) -> bool:
    try:
        return sha256_file(PRETRAINED / f"{model.name}{PACKAGE}") == model.sha256
    except InputError:
        return False


def _remedy(model: Subject) -> str:
    name = model.name if _is_shipped(model) else f"{model.name}{PACKAGE}"
    return f"measure them with reelcolor compile {name} --precision int8 --calibrate PHOTOGRAPHS"


def _read(data: bytes) -> Ranges:
    """Raises UnfitError for what `to_json` has not written."""
    try:
        read = json.loads(data)
        coldest = read.get("coldest")
        of = {name: (float(low), float(high)) for name, (low, high) in read["ranges"].items()}
        ranges = Ranges(str(read["weights"]), of, None if coldest is None else float(coldest))
        if read["check"] != ranges.check:
            raise UnfitError("was changed")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UnfitError("is damaged") from e
    return ranges


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _short(value: float) -> float:
    """Four digits, which a file shows well, and is finer than 8 bits."""
    return float(f"{value:.4g}")


def _path(model: Subject) -> Path:
    return cache_folder() / f"{model.sha256}.ranges"


def _header(model: Subject) -> dict[str, Any]:
    return {"weights": model.sha256, "form": "ranges/2"}
