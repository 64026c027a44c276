"""`reelcolor compile`: have a model's engine ready on this machine before it is wanted, and proven."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EngineError
from pipeline.infer import NETWORK_MULTIPLE, network_size
from pipeline.storage import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.engines.base import Engine
    from model.engines.ranges import Ranges
    from model.engines.selftest import Verdict
    from model.outline import Outline

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


def compile_model(request: Request) -> dict[str, Any]:
    """Compile and prove; raises EngineError where no precision passes, InputError for unfit photographs.

    Ranges whose graph does not pass are not kept, earlier ones are; not to write the output is an EngineError, too.
    """
    from model.engines import check_choice
    from model.engines.ranges import on_trial
    from model.engines.selftest import check_on
    from model.outline import outlined

    check_choice(request.device, request.precision)
    model = outlined(request.model)
    if request.calibrate is None:
        engine, verdicts = _proven(request, model)
        with engine:
            return _document(model, engine, verdicts)
    ranges, unseen = _calibrated(model, request.calibrate)
    with on_trial(model, ranges) as accept:
        engine, verdicts = _proven(request, model)
        with engine:
            verdicts.append(check_on(engine, unseen, f"{len(unseen)} photographs held out of the calibration"))
            document = _document(model, engine, verdicts)
        if document["passed"]:
            accept()
        elif request.output is not None:
            raise EngineError(f"{request.output}: not written: {_problem(verdicts)}")
    if document["passed"] and request.output is not None:
        write_bytes(request.output, ranges.to_json())
    return document


def _proven(request: Request, model: Outline) -> tuple[Engine, list[Verdict]]:
    from model.engines import prove_engine

    return prove_engine(
        model,
        temperature=request.temperature,
        device=request.device,  # type: ignore[arg-type]
        precision=request.precision,  # type: ignore[arg-type]
        sizes=request.sizes or default_sizes(),
    )


def _document(model: Outline, engine: Engine, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "model": model.name,
        "sha256": model.sha256,
        "engine": engine.key,
        "precision": engine.precision,
        "checks": [asdict(v) for v in verdicts],
        "passed": not _problem(verdicts),
    }


def _problem(verdicts: Sequence[Verdict]) -> str:
    """The first one."""
    return next((v.problem for v in verdicts if v.problem), "")


def _calibrated(model: Outline, photographs: str) -> tuple[Ranges, NDArray[np.float32]]:
    """Ranges, and pictures to judge by."""
    from model.engines.ranges import measured

    seen, unseen = calibration_pictures(photographs)
    return measured(model, seen), unseen


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
    return "\n".join(lines)
