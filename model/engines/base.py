"""The Engine: a Colorizer that owns resources, checks what it is given and what it returns."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from model.precision import Precision
from pipeline.errors import EngineError, OutOfMemoryError
from pipeline.infer import NETWORK_MULTIPLE

if TYPE_CHECKING:
    from model.outline import Subject

AB_LIMIT = 128.0  # |a*|, |b*|: an expectation over bins of sRGB colours stays below, a regression within 110
ADVICE = "try the precision fp32, or another machine"
_NO_MEMORY = re.compile(  # "temporarily unavailable" is a thread that cannot be had
    r"out of memory|bad[ _]alloc|can't alloc\b|resource temporarily unavailable|"
    r"(can't|cannot|could not|failed to) (allocate|reserve|commit)\b.*\b(memory|bytes)\b"
)


class Engine(ABC):
    """Runs one model. Thread-safe; each picture's result is independent of its batch.

    `batch` is the largest number of pictures computed at a time; it is halved when memory runs out. `precision` is
    what the self-test holds its colours to. `notes`: which precisions and engines failed before this one, in lines.
    `prove` is called with the size (h, w) of all pictures before they are computed; raises EngineError.
    """

    def __init__(self, model: Subject, temperature: float, batch: int = 16, precision: Precision = "fp32") -> None:
        if not (np.isfinite(temperature) and temperature > 0):
            raise EngineError(f"expected a temperature above 0, got {temperature}")
        self.model = model
        self.temperature = temperature
        self.batch = batch
        self.precision: Precision = precision
        self.notes: tuple[str, ...] = ()
        self.prove: Callable[[int, int], None] | None = None

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What computes, its version and its precision: `openvino-2026.4.1/f32`."""

    @abstractmethod
    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 1, h, w) → ab (N, 2, h/s, w/s), s the network's scale, N at most `batch`.

        Raises OutOfMemoryError or EngineError.
        """

    def close(self) -> None:  # noqa: B027 (an engine may own nothing)
        """Give back memory and threads; the engine cannot be used afterwards."""

    @property
    def key(self) -> str:
        """Names runtime, precision, weights and temperature; written to the ledger."""
        return f"{self.runtime}/{self.model.sha256[:12]}/T{self.temperature:g}"

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colour pictures: (N, 1, h, w) L* 0..100, h and w multiples of 32, to (N, 2, h/s, w/s) CIE a*, b*.

        s is the network's scale, 4 or 1. Raises ValueError for a wrong shape, OutOfMemoryError where a single picture
        does not fit, EngineError where the network returns what cannot be a colour.
        """
        n, channels, h, w = lightness.shape if lightness.ndim == 4 else (0, 0, 0, 0)
        if channels != 1 or h < 1 or w < 1 or h % NETWORK_MULTIPLE or w % NETWORK_MULTIPLE:
            raise ValueError(
                f"expected lightness (N, 1, h, w), h and w multiples of {NETWORK_MULTIPLE}, got {lightness.shape = }"
            )
        lightness = np.ascontiguousarray(lightness, np.float32)
        if n and self.prove:
            self.prove(h, w)
        scale = self.model.scale
        ab = np.empty((n, 2, h // scale, w // scale), np.float32)
        done = 0
        while done < n:
            size = min(self.batch, n - done)
            try:
                part = self.compute(lightness[done : done + size])
            except OutOfMemoryError:
                if size == 1:
                    raise
                if self.batch >= size:  # else the engine, or another caller, has halved it
                    self.batch = size // 2
                continue
            self._check(lightness[done : done + size], part)
            ab[done : done + size] = part
            done += size
        return ab

    def _check(self, lightness: NDArray[np.float32], ab: NDArray[np.float32]) -> None:
        n, _, h, w = lightness.shape
        scale = self.model.scale
        if ab.shape != (n, 2, h // scale, w // scale):
            raise EngineError(f"{self.key}: returned shape {ab.shape} for {lightness.shape}; {ADVICE}")
        if not np.isfinite(ab).all() or np.abs(ab).max() > AB_LIMIT:
            raise EngineError(f"{self.key}: returned NaN or values that are no colour; {ADVICE}")
        same = np.ptp(ab.reshape(n, 2, -1), axis=-1).max(axis=-1) == 0
        if (same & (np.ptp(lightness.reshape(n, -1), axis=-1) > 1)).any():
            raise EngineError(f"{self.key}: returned one flat colour for a picture that is not flat; {ADVICE}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def short(precision: Precision) -> str:
    """A precision in an engine's key: `f32`, as OpenVINO writes it."""
    return precision.replace("fp", "f")


def engine_error(key: str, e: Exception) -> EngineError:
    """A runtime's own exception as ours: OutOfMemoryError where it says so, else EngineError, in one line."""
    text = " ".join(str(e).split())
    if isinstance(e, MemoryError) or _NO_MEMORY.search(text.lower()):
        return OutOfMemoryError(f"{key}: not enough memory for one picture; close other programs or use fewer workers")
    return EngineError(f"{key}: {text[:300] or type(e).__name__}; {ADVICE}")
