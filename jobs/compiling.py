"""`reelcolor compile`: have a model's engine ready on this machine before it is wanted, and proven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.infer import NETWORK_MULTIPLE, network_size
from pipeline.storage import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.engines.base import Engine
    from model.engines.ranges import Ranges
    from model.engines.selftest import Verdict
    from model.outline import Outline

Done = Callable[[str], None]
_ASPECTS = (Fraction(4, 3), Fraction(16, 9))
_CALIBRATION = 300  # pictures
_UNSEEN = 100  # pictures that 8 bits are judged by
_SIDE = 160  # of their crops


@dataclass(frozen=True)
class Request:
    """What is asked for. sizes: (h, w) of the network's input, multiples of 32; none takes those of 4:3 and 16:9.

    calibrate: photographs to measure the ranges for 8 bits on; output: where to write these beside the cache.
    """

    model: str
    device: str
    precision: str
    sizes: Sequence[tuple[int, int]]
    temperature: float | None
    calibrate: str | None
    output: Path | None = None


def compile_model(request: Request, done: Done = lambda _name: None) -> dict[str, Any]:
    """Compile and prove; `done` hears of each step in a few words.

    Ranges whose graph does not pass are neither kept nor written; earlier ones stay. Raises EngineError where no
    precision passes, InputError for unfit photographs, StorageError where ranges that pass cannot be put down.
    """
    from model.engines import check_choice, prove_engine
    from model.engines.selftest import check_on, in_one_line
    from model.outline import outlined

    check_choice(request.device, request.precision)
    model = outlined(request.model)
    ranges, unseen = (None, None) if request.calibrate is None else _calibrated(model, request.calibrate, done)
    engine, verdicts = prove_engine(
        model,
        temperature=request.temperature,
        device=request.device,  # type: ignore[arg-type]
        precision=request.precision,  # type: ignore[arg-type]
        sizes=request.sizes or default_sizes(),
        ranges=ranges,
        done=done,
    )
    with engine:
        if unseen is not None and not in_one_line(verdicts):
            verdicts.append(check_on(engine, unseen, f"{len(unseen)} photographs held out of the calibration"))
        problem = in_one_line(verdicts)
        document = _document(model, engine, verdicts)
    if ranges is not None:
        document["ranges"] = _put_down(request, model, ranges, engine) if not problem else {"not_kept": problem}
    return document


def _document(model: Outline, engine: Engine, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "model": model.name,
        "sha256": model.sha256,
        "engine": engine.key,
        "precision": engine.precision,
        "checks": [asdict(v) for v in verdicts],
        "passed": not any(v.problem for v in verdicts),
    }


def _put_down(request: Request, model: Outline, ranges: Ranges, engine: Engine) -> dict[str, Any]:
    """Keep ranges that have passed, and write them where they are wanted; one is done though the other fails."""
    from model.engines.openvino import OpenVINOEngine
    from model.engines.ranges import keep_ranges

    if isinstance(engine, OpenVINOEngine):  # which was tested at every size of picture
        ranges = replace(ranges, coldest=engine.temperature)
    try:
        keep_ranges(model, ranges)
    finally:
        if request.output is not None:
            write_bytes(request.output, ranges.to_json())
    return {"coldest": ranges.coldest}


def _calibrated(model: Outline, photographs: str, done: Done) -> tuple[Ranges, NDArray[np.float32]]:
    """Ranges, and pictures to judge by."""
    from model.engines.ranges import measured

    seen, unseen = calibration_pictures(photographs)
    done(f"reading {len(seen) + len(unseen)} photographs")
    ranges = measured(model, seen)
    done(f"measuring on {len(seen)} photographs")
    return ranges, unseen


def default_sizes() -> list[tuple[int, int]]:
    """What pictures of the usual shapes are computed at."""
    return [network_size(a.numerator, a.denominator) for a in _ASPECTS]


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """`160x224,128x256` → (h, w) each; raises ValueError in words."""
    return [_size(part) for part in text.split(",")]


def _size(text: str) -> tuple[int, int]:
    sides = text.strip().lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and len(side) < 6 for side in sides):
        raise ValueError(f"expected HEIGHTxWIDTH such as 160x224, got {text.strip()!r}")
    h, w = int(sides[0]), int(sides[1])
    if h < 1 or w < 1 or h % NETWORK_MULTIPLE or w % NETWORK_MULTIPLE:
        raise ValueError(f"expected multiples of {NETWORK_MULTIPLE}, got {text.strip()}")
    return h, w


def calibration_pictures(path: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """L* (N, 1, 160, 160) of crops of the photographs at `path`, at most 300, the same every time, and of others.

    The others, at most 100, are of the held-out part: what is made from the former can be judged by them.
    """
    import numpy as np

    from model.cache import cache_folder
    from model.crops import random_crops
    from model.data import open_photos
    from model.sources import SourceConfig
    from model.spaces import rgb_to_space

    photos = open_photos([SourceConfig(path=path)], cache_folder() / "photos", _SIDE)
    rng = np.random.default_rng(0)

    def lightness(part: NDArray[np.int64], most: int) -> NDArray[np.float32]:
        crops = random_crops(photos, rng.permutation(part)[:most], _SIDE, rng)
        return np.asarray(rgb_to_space("lab", crops)[0])

    seen, unseen = photos.split()
    return lightness(seen, _CALIBRATION), lightness(unseen, _UNSEEN)


def in_words(d: dict[str, Any]) -> str:
    """For reading."""
    lines = [f"{d['model']} ({d['sha256'][:12]}) runs here as {d['engine']}"]
    for v in d["checks"]:
        size = f"{v['height']}x{v['width']}"
        found = f"FAILED: {v['problem']}"
        if not v["problem"]:
            found = (
                f"ΔE2000 from the reference {v['mean']:.3f} in the mean, {v['p99']:.2f} at the 99th percentile, "
                f"at most {v['largest']:.2f}"
            )
        lines.append(f"  {size} {v['precision']}, {v['pictures']}: {found}")
    if "ranges" in d:
        lines.append(_of_ranges(d["ranges"]))
    return "\n".join(lines)


def _of_ranges(ranges: dict[str, Any]) -> str:
    if "not_kept" in ranges:
        return f"  NOT CALIBRATED, these ranges are neither kept nor written: {ranges['not_kept']}"
    if ranges["coldest"] is None:
        return "  calibrated for --precision int8"
    return f"  calibrated: from now on this machine's CPU uses INT8 for it, from T = {ranges['coldest']:g} on"
