"""The proof every engine gives before it is used: golden frames, held against the network in PyTorch in float32.

Engines compile each size for itself, or read what was compiled before, so each size is tested before its first picture.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.engines.base import ADVICE, Engine, engine_error
from model.engines.golden import Golden, golden, reference
from model.measures import delta_e_2000
from model.precision import Precision
from pipeline.errors import EngineError, OutOfMemoryError

SIZE = (160, 224)  # (h, w) of the golden frames where none is asked for: what a picture of 4:3 is computed at
FALLBACK: tuple[Precision, ...] = ("fp8", "int8", "fp16", "bf16", "fp32")  # each to the next
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """ΔE2000 from the reference that an engine may have over all cells of the frames; 1 is just noticeable."""

    mean: float
    p99: float


LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(0.1, 0.6),
    "fp16": Limits(0.5, 3.0),
    "bf16": Limits(0.5, 3.0),
    "int8": Limits(1.0, 6.0),
    "fp8": Limits(1.0, 6.0),
}


@dataclass(frozen=True)
class Verdict:
    """What the self-test found of an engine at one size, on golden frames or other pictures.

    mean, p99, largest: ΔE2000 from the reference, None where the engine gave no colours. problem: what is wrong, in one
    line; empty for an engine that passed.
    """

    key: str
    precision: Precision
    height: int
    width: int
    mean: float | None
    p99: float | None
    largest: float | None
    problem: str
    pictures: str = "golden frames"


def check(engine: Engine, h: int = SIZE[0], w: int = SIZE[1]) -> Verdict:
    """Let an engine colour the golden frames. Raises OutOfMemoryError where not even one frame fits."""
    return _judged(engine, partial(golden, engine.model, engine.temperature, h, w), (h, w), "golden frames")


def check_on(engine: Engine, frames: NDArray[np.float32], pictures: str) -> Verdict:
    """Let an engine colour frames (N, 1, h, w) of L*; `pictures` says what they are. Raises as `check` does."""

    def held_against() -> Golden:
        return frames, reference(engine.model, engine.temperature, frames)

    return _judged(engine, held_against, (frames.shape[2], frames.shape[3]), pictures)


def _judged(engine: Engine, held_against: Callable[[], Golden], size: tuple[int, int], pictures: str) -> Verdict:
    h, w = size
    try:
        frames, expected = held_against()
        found = engine(frames)
    except OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as e:  # the reference's
        raise engine_error(engine.key, e) from e
    except EngineError as e:
        return Verdict(
            engine.key, engine.precision, h, w, None, None, None, str(e).removesuffix(f"; {ADVICE}"), pictures
        )
    difference = differences(frames, expected, found)
    mean, p99, largest = float(difference.mean()), float(np.percentile(difference, 99)), float(difference.max())
    limits = LIMITS[engine.precision]
    problem = ""
    if not (mean <= limits.mean and p99 <= limits.p99):
        problem = (
            f"{engine.key}: differs from the reference at {h}x{w} by ΔE2000 {mean:.2f} in the mean and {p99:.2f} at "
            f"the 99th percentile, more than {limits.mean:g} and {limits.p99:g}"
        )
    return Verdict(engine.key, engine.precision, h, w, mean, p99, largest, problem, pictures)


def open_proven(
    make: Callable[[Precision], Engine],
    chain: Sequence[Precision],
    sizes: Sequence[tuple[int, int]] = (SIZE,),
    *,
    besides: Mapping[Precision, Sequence[tuple[int, int]]] | None = None,
    done: Callable[[str], None] = lambda _name: None,
) -> tuple[Engine, list[Verdict]]:
    """The engine at the first precision of `chain` that passes the self-test at all sizes (h, w).

    besides: further sizes for a precision that is not known to pass there. `done` hears of each test in a few words.
    And all verdicts, those on precisions that failed first. A fallback is logged in one line, which is kept in the
    engine's notes; its key names the precision. At any other size the engine is tested before its first picture, where
    it is too late to fall back. Raises EngineError where no precision passes, and what `make` raises.
    """
    verdicts: list[Verdict] = []
    failed: list[str] = []
    for current, following in zip(chain, [*chain[1:], None], strict=True):
        engine = make(current)
        tested = list(dict.fromkeys([*sizes, *(besides or {}).get(current, ())]))
        found = []
        try:
            for n, size in enumerate(tested, 1):
                found.append(check(engine, *size))
                done(f"{current} at {size[0]}x{size[1]}, {n} of {len(tested)},")
        except BaseException:
            engine.close()
            raise
        verdicts += found
        problem = in_one_line(found)
        if not problem:
            engine.notes = tuple(failed)
            engine.prove = _Proof(engine, tested)
            return engine, verdicts
        engine.close()
        if following:
            failed.append(f"{problem}; {following} is used instead")
            _log.warning(failed[-1])
    raise EngineError(problem)


def in_one_line(verdicts: Sequence[Verdict]) -> str:
    """The first problem, and how many there are; empty where all passed."""
    problems = [v.problem for v in verdicts if v.problem]
    others = f", and fails {len(problems) - 1} more of {len(verdicts)} tests" if len(problems) > 1 else ""
    return problems[0] + others if problems else ""


class _Proof:
    """The self-test at each size that is not in `sizes`, once; what fails it fails again each time that it is asked."""

    def __init__(self, engine: Engine, sizes: Sequence[tuple[int, int]]) -> None:
        self._engine = engine
        self._proven = set(sizes)
        self._lock = threading.RLock()  # the golden frames come through here, too

    def __call__(self, h: int, w: int) -> None:
        with self._lock:
            if (h, w) in self._proven:
                return
            self._proven.add((h, w))
            try:
                problem = check(self._engine, h, w).problem
                if problem:
                    raise EngineError(f"{problem}; {ADVICE}")
            except BaseException:
                self._proven.discard((h, w))
                raise


def fallbacks(precision: Precision, offered: Collection[Precision]) -> list[Precision]:
    """`precision`, then those after it in FALLBACK that are offered."""
    after = FALLBACK[FALLBACK.index(precision) + 1 :]
    return [precision, *(p for p in after if p in offered)]


def differences(
    lightness: NDArray[np.float32], expected: NDArray[np.float32], found: NDArray[np.float32]
) -> NDArray[np.float64]:
    """ΔE2000 (N, h/s, w/s) of two ab (N, 2, h/s, w/s) at the mean L* of each cell."""
    n, _, h, w = expected.shape
    scale = lightness.shape[2] // h
    grey = lightness.reshape(n, 1, h, scale, w, scale).mean((3, 5))
    one, two = (np.moveaxis(np.concatenate([grey, ab], 1), 1, -1).astype(np.float64) for ab in (expected, found))
    return np.asarray(delta_e_2000(one, two))
