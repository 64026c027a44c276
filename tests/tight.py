"""Colours two films with the default engine while the process may take no more memory, and again while it may.

python tight.py USUAL WIDE FOLDER     writes to FOLDER/tight and FOLDER/free, prints what became of them
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fakes import statuses
from numpy.typing import NDArray

from jobs.console import Console
from jobs.recipe import Recipe
from jobs.request import Colouring, Request, default_colouring
from jobs.run import Run, colorize
from pipeline.infer import Colorizer

SPARE = 48 << 20  # bytes: for the arrays of a call, not for another picture size


class Tight:
    """A colorizer whose process may take only SPARE more during its calls."""

    def __init__(self, colorizer: Colorizer) -> None:
        self._colorizer = colorizer
        self.key, self.notes = colorizer.key, colorizer.notes

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE, hard))
        try:
            return self._colorizer(lightness)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def main(usual: str, wide: str, folder: str) -> None:
    Run._work_on_ray = lambda self, _segments: self._work_here(engine=True)
    recipe = Recipe(precision="fp32", preset="ultrafast")
    free = default_colouring(recipe)

    @contextmanager
    def opened() -> Iterator[Tight]:
        with free.open() as engine:
            yield Tight(engine)

    reports = {
        name: colorize(Request((usual, wide), Path(folder, name), recipe), Console(), colouring)
        for name, colouring in (("tight", Colouring(opened, free.weights)), ("free", free))
    }
    found = {name: statuses(report) for name, report in reports.items()}
    print(json.dumps(found | {"error": reports["tight"].results[1].error}))


if __name__ == "__main__":
    main(*sys.argv[1:])
