"""The cache of compiled plans: built once a machine, and used only where proven to be the one that is wanted.

A file is `reelcolor-plan/1` and a line end, the SHA-256 of all that follows (32 bytes), the length of the header
(4 bytes, little-endian), the header (JSON: every field of the key), and what the compiler made. The hash finds damage
and the header what is of another machine or version; neither is proof against somebody who may write to the cache
folder, which is the user's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from model.cache import cache_folder
from model.locks import locked
from pipeline.errors import EngineError, OutOfMemoryError, StorageError
from pipeline.storage import write_bytes

T = TypeVar("T")
_log = logging.getLogger(__name__)
_MAGIC = b"reelcolor-plan/1\n"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 4


class UnfitError(Exception):
    """Why a file of the cache is not used."""


@dataclass(frozen=True)
class Machine:
    """What a compiled plan is bound to. compiler: TensorRT's version. capability: such as `9.0`."""

    compiler: str
    driver: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class PlanKey:
    """Everything a plan depends on, and the temperature that its self-test was passed at.

    weights: SHA-256 of the model package. graph: SHA-256 of the ONNX. batch, height, width: of the input.
    """

    weights: str
    graph: str
    temperature: float
    batch: int
    height: int
    width: int
    precision: str
    machine: Machine

    def header(self) -> dict[str, Any]:
        """All fields, flat, ready for JSON."""
        fields = asdict(self)
        machine: dict[str, Any] = fields.pop("machine")
        return fields | machine

    @property
    def path(self) -> Path:
        """The plan's place. Versions are in the header alone, so that a new driver replaces plans and piles up none."""
        versions = ("graph", "compiler", "driver")
        lasting = {name: value for name, value in self.header().items() if name not in versions}
        digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
        size = f"{self.batch}x{self.height}x{self.width}"
        return plan_folder() / f"{self.weights[:12]}-{size}-{self.precision}-{digest[:16]}.plan"


def plan_folder() -> Path:
    """Where plans and timing caches are kept."""
    return cache_folder() / "plans"


def cached_plan(key: PlanKey, build: Callable[[], bytes], load: Callable[[bytes], T]) -> T:
    """`load` the plan of `key`, from the cache or built; processes that want it at the same time build it once.

    load raises EngineError for a plan that the runtime refuses, which is then built anew; what it raises for a plan
    just built is raised on, and that plan is not kept. Where the cache cannot be written, plans are built each time.
    """
    with _alone(key.path) as writable:
        try:
            return load(unsealed(key.path, key.header()))
        except FileNotFoundError:
            pass
        except OutOfMemoryError:
            raise
        except (UnfitError, EngineError) as e:
            _log.warning("%s: %s; it is compiled anew", key.path, e)
        with _alone(plan_folder() / "compiler"):  # compilers at work side by side would spoil each other's timings
            plan = build()
        loaded = load(plan)
        if writable:
            keep(key.path, key.header(), plan)
        return loaded


def timing_cache(machine: Machine) -> Path:
    """Where the compiler's timings are kept, which make the next plan quicker to build."""
    digest = hashlib.sha256(json.dumps(asdict(machine)).encode()).hexdigest()
    return plan_folder() / f"{digest[:16]}.timings"


def keep(path: Path, header: Mapping[str, Any], payload: bytes) -> None:
    """Write a sealed file atomically; where that cannot be, say so and go on."""
    text = json.dumps(header, sort_keys=True).encode()
    body = len(text).to_bytes(_LENGTH, "little") + text + payload
    try:
        write_bytes(path, _MAGIC + hashlib.sha256(body).digest() + body)
    except StorageError as e:
        _log.warning("%s; it is made anew next time", e)


def unsealed(path: Path, header: Mapping[str, Any]) -> bytes:
    """What is in a sealed file; raises FileNotFoundError, or UnfitError where it is damaged or of another header."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as e:
        raise UnfitError(f"cannot be read ({e.strerror})") from e
    start = len(_MAGIC) + _DIGEST
    if data[: len(_MAGIC)] != _MAGIC:
        raise UnfitError("is no file of this version's cache")
    body = data[start:]
    if len(body) < _LENGTH or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise UnfitError("is truncated or was changed")
    end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    if difference := _difference(json.loads(body[_LENGTH:end]), header):
        raise UnfitError(difference)
    return body[end:]


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields that differ, in words; empty where none does."""
    names = [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)]
    return ", ".join(f"is of {name} {found.get(name)}, not {wanted.get(name)}" for name in sorted(names))


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """The lock of a file of the cache, where there can be one; whether there is."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
            held = True
        except StorageError as e:
            _log.warning("%s; plans are compiled anew each time", e)
            held = False
        yield held
