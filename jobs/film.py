"""A film to time things on, and the plain transcode that colorizing is held against."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.errors import EngineError

FPS = 25


@dataclass(frozen=True)
class Film:
    """1080p25 monochrome H.264, unless said otherwise."""

    seconds: float
    width: int = 1920
    height: int = 1080

    @property
    def frames(self) -> int:
        """How many."""
        return max(2, round(self.seconds * FPS))


def make_film(path: Path, film: Film, photo: Any = None) -> None:
    """Pans over `photo` (grey, uint8; None: a pattern) with fresh grain on every frame, a keyframe a second, CRF 20."""
    import av
    import cv2
    import numpy as np

    width, height = film.width, film.height
    photo = _pattern() if photo is None else photo
    grains = np.random.default_rng(0).normal(0, 6, (8, height, width)).astype(np.float32)
    shuffle = np.random.default_rng(1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast", "g": str(FPS)})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuv420p", Fraction(1, FPS)
        planes = np.full((height * 3 // 2, width), 128, np.uint8)
        for pts in range(film.frames):
            t = pts / film.frames
            view = np.array([[500 / width, 0, 40 + 90 * t], [0, 281 / height, 60 + 60 * t]])
            frame = cv2.warpAffine(photo, view, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
            grain = np.roll(grains[shuffle.integers(8)], shuffle.integers(width), 1)
            planes[:height] = np.clip(16 + frame * 0.85 + grain, 16, 235)
            picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
            picture.pts = pts
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def _pattern() -> Any:
    """A grey picture (427, 640) with edges and the spectrum of photographs."""
    import numpy as np

    from model.engines.golden import golden_frames

    waves, cloud = golden_frames(427, 640)[:, 0]
    return np.clip((0.3 * waves + 0.7 * cloud) * 2.55, 0, 255).astype(np.uint8)


def decode(source: Path, keep: int = 0) -> list[Any]:
    """Decode all, as colorizing does; the first `keep` frames are returned."""
    import av

    kept: list[Any] = []
    with av.open(str(source)) as container:
        for frame in container.decode(_video(container)):
            if len(kept) < keep:
                kept.append(frame)
    return kept


def encode(frames: Iterable[Any], template: Path, out: Path, preset: str | None = None) -> None:
    """Encode frames with the default profile's settings, into a container."""
    import av

    from pipeline.codecs import PROFILES

    settings = PROFILES["access"]
    with av.open(str(template)) as inp, av.open(str(out), "w") as target:
        video = inp.streams.video[0]
        options = {"crf": f"{settings.crf:g}", "preset": preset or str(settings.preset)}
        stream = target.add_stream("libx264", rate=video.average_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        stream.time_base, stream.codec_context.thread_count = video.time_base, settings.threads
        for frame in frames:
            frame.pict_type = 0
            target.mux(stream.encode(frame))
        target.mux(stream.encode())


def transcode(source: Path, out: Path, preset: str | None = None) -> float:
    """Seconds of a plain decode and encode: the same decoder, encoder, options and threads, nothing in between."""
    import av

    begin = time.perf_counter()
    with av.open(str(source)) as container:
        encode(container.decode(_video(container)), source, out, preset)
    return time.perf_counter() - begin


def colorize(
    source: Path, folder: Path, model: str = "default", preset: str | None = None, precision: str = "auto"
) -> float:
    """Seconds of the reel's work as the command itself reports them, without its start; raises EngineError."""
    start = [sys.executable, "-c", "from jobs.cli import main; main()"]
    command = [*start, "colorize", source, "-o", folder, "--model", model, "--precision", precision]
    command += ["--preset", preset] if preset else []
    run = subprocess.run([*map(str, command), "--overwrite", "--json"], capture_output=True, text=True, check=False)
    if run.returncode:
        raise EngineError(f"colorize failed: {run.stderr.strip().splitlines()[-1]}")
    return float(json.loads(run.stdout)["reels"][0]["seconds"])


def _video(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
    return stream
