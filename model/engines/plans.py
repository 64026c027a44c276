"""Compiled plans: built once a machine, whoever wants them, and used only where proven to be the one that is wanted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from model.cache import cache_folder
from model.locks import locked
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import EngineError, OutOfMemoryError, StorageError

T = TypeVar("T")
_log = logging.getLogger(__name__)


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
