"""Train a network: read the pictures, run the trainer here or in several workers, and say what came of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import cv2

from jobs.training_workers import Tell, work_together
from model.cache import cache_folder
from model.data import Photos, open_photos
from model.progress import Report
from model.recipe import TrainRecipe
from model.train import fit
from model.weights import load_model
from pipeline.storage import write_bytes

_TOLD_EVERY = 0.5  # seconds between the reports that a worker sends


@dataclass(frozen=True)
class Training:
    """What is to be trained, and where. workers: processes; address: of a Ray cluster, None for this machine."""

    recipe: TrainRecipe
    out: Path
    resume: bool = False
    workers: int = 1
    address: str | None = None
    debug: bool = False


def train(training: Training, note: Callable[[str], None], listen: Callable[[Report], None]) -> dict[str, Any]:
    """Train, and return the model package's path and metrics. note: told of the pictures; listen: of the progress.

    Raises what `open_photos`, `load_model` and `fit` raise. KeyboardInterrupt comes when the step in hand is done and
    everything saved.
    """
    photos = _photos(training.recipe)
    for line in photos.report.lines():
        note(line)
    write_bytes(training.out / "data.json", json.dumps(photos.report.to_json(), indent=1).encode())
    photos.report.ab_histogram_png(training.out / "data.png")
    if training.workers == 1 and training.address is None:
        with _finishing_the_step() as stop:
            _fit(training, photos, listen, stop)
    else:
        _fit_together(training, listen)
    path = training.out / f"{training.recipe.name}.safetensors"
    metadata = load_model(str(path)).metadata
    made = json.loads(metadata["training"])
    return {
        "model": str(path),
        "steps": made["steps"],
        "samples": made["samples"],
        "hours": made["hours"],
        "metrics": json.loads(metadata["metrics"]),
    }


def _photos(recipe: TrainRecipe) -> Photos:
    return open_photos(recipe.data.sources, cache_folder() / "photos", recipe.data.short_edge)


def _fit(training: Training, photos: Photos, listen: Callable[[Report], None], stop: threading.Event) -> None:
    cv2.setNumThreads(1)  # crops are made on a thread of their own
    base = load_model(training.recipe.base) if training.recipe.base else None
    fit(training.recipe, photos, training.out, base=base, resume=training.resume, report=listen, stop=stop)


def _fit_together(training: Training, listen: Callable[[Report], None]) -> None:
    notes = training.out / "ray"
    work = partial(_work, training)
    try:
        work_together(work, training.workers, training.address, notes, listen, training.debug)
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _work(training: Training, tell: Tell) -> None:
    """A worker's part. The pictures are in the cache already; the first worker tells of the progress."""
    import torch.distributed as dist

    stop, told = threading.Event(), 0.0

    def pass_on(report: Report) -> None:
        nonlocal told
        if report.held_out is not None or time.monotonic() - told > _TOLD_EVERY:
            told = time.monotonic()
            if tell(report):
                stop.set()

    _fit(training, _photos(training.recipe), pass_on if dist.get_rank() == 0 else lambda _: None, stop)


@contextlib.contextmanager
def _finishing_the_step() -> Iterator[threading.Event]:
    """An event that Ctrl-C, or a supervisor's signal, sets; the second time they interrupt at once."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, ask) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
