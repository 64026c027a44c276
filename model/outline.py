"""What engines must know of a model, read without PyTorch, whose import takes longer than to colour a photograph.

An outline is kept in the cache when a package is first read whole, and so found sound, under the SHA-256 of its bytes;
from then on the package is only hashed. Its weights are read where something must be made of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.cache import cache_folder
from model.registry import Package, locate
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import EngineError, InputError
from pipeline.storage import sha256_file
from pipeline.version import VERSION

if TYPE_CHECKING:
    from model.weights import Model

_log = logging.getLogger(__name__)
_FORM = 1  # raised when what is kept changes, or what makes a package sound


@dataclass(frozen=True)
class Outline:
    """A model whose weights need not be in memory. Fields are those of Model; `classes` is 0 for a regression."""

    name: str
    sha256: str
    temperature: float
    scale: int
    classes: int
    whole: Callable[[], Model]  # reads the weights, the first time


if TYPE_CHECKING:
    Subject = Model | Outline  # what engines are made of


def outlined(name_or_path: str = "default") -> Outline:
    """The outline of a model by name, path or URL; raises EngineError as `load_model` does."""
    package = locate(name_or_path)
    try:
        sha256 = sha256_file(package.path)
    except InputError as e:
        raise EngineError(str(e)) from e
    path, header = _path(sha256), _header(sha256)
    if package.entry is None or package.entry.sha256 == sha256:
        try:
            return Outline(package.name, sha256, **json.loads(unsealed(path, header)), whole=_reading(package, sha256))
        except FileNotFoundError:
            pass
        except UnfitError as e:
            _log.info("%s: %s; the model package is read anew", path, e)
    model = _read(package, sha256)
    found: dict[str, Any] = {"temperature": model.temperature, "scale": model.scale, "classes": model.classes}
    keep(path, header, json.dumps(found).encode())
    return Outline(package.name, sha256, **found, whole=model.whole)


def _reading(package: Package, sha256: str) -> Callable[[], Model]:
    return cache(partial(_read, package, sha256))


def _read(package: Package, sha256: str) -> Model:
    from model.weights import read_package

    model = read_package(package)
    if model.sha256 != sha256:
        raise EngineError(f"{package.path}: changed while it was read; run the same command again")
    return model


def _path(sha256: str) -> Path:
    return cache_folder() / f"{sha256}.outline"


def _header(sha256: str) -> dict[str, Any]:
    return {"weights": sha256, "form": _FORM, "reelcolor": VERSION}
