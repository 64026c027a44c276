"""Which reels are sampled for `reelcolor plan`, and what came of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.apart import Apart
from jobs.failures import failure
from jobs.reels import Reel
from jobs.sample import Sample, hold_engine, sample
from jobs.worker import Opener
from pipeline.errors import EngineError
from pipeline.scratch import scratch_folder


@dataclass(frozen=True)
class Measured:
    """Samples by reel; `problems` name the reels that could not be coloured, and say why; `engine` is its key."""

    engine: str
    samples: dict[str, Sample] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on a GPU: it then names its compute capability."""
        return re.search(r"-sm\d", self.engine) is not None

    @property
    def frames(self) -> int:
        """Pictures that were coloured."""
        return sum(shot.frames for one in self.samples.values() for shot in one.shots)

    @property
    def shots(self) -> int:
        """Shots that were coloured."""
        return sum(len(one.shots) for one in self.samples.values())


def measure(
    reels: Sequence[Reel], most: int, apart: Apart, opener: Opener, heard: Callable[[str, int, int], None]
) -> Measured:
    """Sample at most `most` reels, each in three shots; nothing of it stays on the disk.

    `heard` is told of each path, its number and how many there are, before it is read. Raises EngineError where the
    engine cannot be opened on this machine.
    """
    if not reels:
        return Measured("")
    samples: dict[str, Sample] = {}
    problems = []
    chosen = choose(reels, most)
    engine = apart.call("the engine", _engine_key, opener)
    with scratch_folder() as folder:
        for number, reel in enumerate(chosen, 1):
            heard(reel.input, number, len(chosen))
            try:
                samples[reel.id] = apart.call(reel.input, sample, reel, opener, folder)
            except EngineError:
                raise
            except Exception as e:  # one file never stops a batch
                problems.append(f"{reel.input}: a shot of it cannot be coloured: {failure(e, reel.input).message}")
    return Measured(engine, samples, tuple(problems))


def choose(reels: Sequence[Reel], most: int) -> list[Reel]:
    """At most `most` reels, evenly along all pixels to colour, one of each kind at least; in their own order."""
    kinds: dict[type[Reel], list[Reel]] = {}
    for reel in reels:
        kinds.setdefault(type(reel), []).append(reel)
    if len(reels) <= most:
        return list(reels)
    pixels = sum(reel.pixels for reel in reels)
    chosen: set[str] = set()
    for alike in kinds.values():
        ends = list(itertools.accumulate(reel.pixels for reel in alike))
        count = max(1, round((most - len(kinds)) * ends[-1] / max(1, pixels)))
        marks = [(2 * k + 1) * ends[-1] / (2 * count) for k in range(count)]
        chosen |= {next(r.id for r, end in zip(alike, ends, strict=True) if end >= mark) for mark in marks}
    return [reel for reel in reels if reel.id in chosen]


def _engine_key(opener: Opener) -> str:
    return hold_engine(opener).key
