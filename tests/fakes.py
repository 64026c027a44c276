"""Colorizers for tests of the machinery around them, and a driver process that a test may kill.

python fakes.py OPTIONS-AS-JSON     runs `colorize` with the named colorizer, prints the JSON document
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import numpy as np
from numpy.typing import NDArray

from jobs.command import stoppable
from jobs.console import Console
from jobs.ledger import FOLDER
from jobs.recipe import Recipe
from jobs.request import Colouring, Request
from jobs.results import Report
from jobs.run import colorize
from jobs.shares import Shares
from model.bins import no_bins
from model.engines.base import Engine, engine_error
from model.weights import Model
from pipeline.errors import EngineError, InputError
from pipeline.storage import Place, place

WEIGHTS = "0" * 64
ENGINE = "REELCOLOR_TESTS_ENGINE"  # environment variable
os.environ["PYTHONPATH"] = os.pathsep.join(  # so that workers find this module
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
SIZE: dict[str, Any] = {"width": 64, "height": 48, "rate": Fraction(10)}  # of small videos; ten frames a second
BRIGHT = 70.0  # mean L* above which the dangerous colorizers do what they are named for


class Fake:
    """ab is a fixed function of L*; `delay` seconds a call."""

    notes: tuple[str, ...] = ()

    def __init__(self, delay: float = 0.0, key: str = "fake") -> None:
        self.delay, self.key = delay, key

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.delay)
        small = lightness[:, :, ::4, ::4]
        return np.concatenate([20 - small / 5, small / 4], axis=1)


class Local(Fake):
    """Its key is what the machine's environment says; each has colours of its own."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, key=os.environ.get(ENGINE, "one"))

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().__call__(lightness)[:, :: 1 if self.key == "one" else -1]


class Deadly(Fake):
    """Kills its process at a bright picture."""

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        if lightness.mean() > BRIGHT:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(lightness)


class Hungry(Fake):
    """Takes all the memory there is at a bright picture, or 16 GB."""

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        taken = [np.ones(32 << 20, np.uint8) for _ in range(512 * (lightness.mean() > BRIGHT)) if not time.sleep(0.01)]
        del taken
        return super().__call__(lightness)


class Failing(Fake):
    """Fails at a bright picture."""

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        if lightness.mean() > BRIGHT:
            raise InputError("too bright")
        return super().__call__(lightness)


class Fallback(Fake):
    """Opened after a precision that failed, of which it speaks."""

    notes = ("fake/int8: returned NaN; fp32 is used instead",)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        logging.getLogger("model.engines.fake").warning(self.notes[0])


class Cramped(Engine):
    """The colours of Fake by way of a real Engine, with memory for `fits` pictures at a time, and for no bright one."""

    key = "fake"
    runtime = "fake"
    sizes: ClassVar[list[int]] = []  # of all batches that were tried

    def __init__(self, fits: int) -> None:
        network: Any = SimpleNamespace(scale=4)
        super().__init__(Model("fake", WEIGHTS, network, no_bins("lab"), np.empty(0), 0.38, {}), 0.38)
        self.fits = fits

    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(lightness))
        if len(lightness) > self.fits or lightness.mean() > BRIGHT:
            raise engine_error(self.key, RuntimeError("Failed to allocate 164102144 bytes of memory"))
        return Fake()(lightness)


KINDS = {
    "fake": Fake,
    "local": Local,
    "deadly": Deadly,
    "hungry": Hungry,
    "failing": Failing,
    "fallback": Fallback,
    "cramped": Cramped,
}


@contextmanager
def open_fake(kind: str = "fake", **settings: Any) -> Iterator[Fake]:
    if kind == "broken":
        raise EngineError("the weights are damaged")
    yield KINDS[kind](**settings)


def colouring(kind: str = "fake", **settings: Any) -> Colouring:
    return Colouring(partial(open_fake, kind, **settings), WEIGHTS)


def run(*inputs: Path | str, out: Place, kind: str = "fake", workers: int | None = None, **settings: Any) -> Report:
    """`colorize` with a fake colorizer, in segments of a second."""
    engine = {name: settings.pop(name) for name in ("delay", "key", "fits") if name in settings}
    overwrite = settings.pop("overwrite", False)
    address = settings.pop("address", None)
    shares = Shares(address, most=settings.pop("most", None)) if address else None
    recipe = Recipe(**{"segment_seconds": 1.0, "preset": "ultrafast"} | settings)
    request = Request(tuple(map(str, inputs)), out, recipe, workers, overwrite, shares=shares)
    return colorize(request, Console(), colouring(kind, **engine))


def content(path: Path) -> tuple[tuple[int, ...], str]:
    """(pts, hash of all decoded planes) of a video."""
    digest = hashlib.sha256()
    pts = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            pts.append(frame.pts)
            for plane in frame.to_ndarray():
                digest.update(np.ascontiguousarray(plane))
    return tuple(pts), digest.hexdigest()


def statuses(report: Report) -> list[str]:
    return [result.status for result in report.results]


def records(out: Path) -> list[Path]:
    return sorted(out.glob(f"{FOLDER}/*/reels/*/segments/*.json"))


def no_leftovers(out: Path) -> bool:
    return not [p for p in out.rglob("*") if ".part" in p.name or p.suffix == ".seg"]


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    with stoppable():
        report = run(*options.pop("inputs"), out=place(options.pop("out")), **options)
    print(json.dumps(report.document()))
    sys.exit(report.exit_code)
