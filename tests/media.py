"""Small video files of every odd kind, written with PyAV; each picture carries its own ordinal in its luma.

`picture` draws a moving gradient with a 4×4 block code of the ordinal in the corner, `ordinal` reads it back, so that a
test can prove that no picture was lost, doubled or put in another order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.scheduling import ordinary_threads

CODE_SIDE = 32  # pixels of the block code: 4×4 blocks of 8×8
X264_QUICK = {"preset": "ultrafast", "crf": "10", "x264-params": "scenecut=0:threads=1"}


@dataclass(frozen=True)
class Video:
    """What to write; `pts` and `time_base` give a picture's time, by default one tick of 1/rate after the other."""

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    width: int = 64
    height: int = 48
    frames: int = 30
    rate: Fraction = Fraction(25)
    gop: int = 10
    b_frames: int = 0
    options: dict[str, str] = field(default_factory=dict)
    mux: dict[str, str] = field(default_factory=dict)
    format: str | None = None
    pts: Sequence[int] | None = None
    time_base: Fraction | None = None
    sar: Fraction | None = None
    rotation: int = 0
    mirrored: bool = False
    tags: dict[str, int] = field(default_factory=dict)  # colorspace, color_range, color_trc, color_primaries
    interlaced: bool = False
    fields: str = "tff"  # or "bff": their order, where interlaced


def picture(n: int, width: int, height: int, depth: int = 8) -> NDArray[np.uint16]:
    """(H, W) luma codes of picture `n`, inside the limited range of `depth` bits."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    luma = 40 + (3 * x + 2 * y + 5 * n) % 160
    luma = luma + 3 * ((x * 7 + y * 13 + n * 11) % 5)
    if min(width, height) >= CODE_SIDE:
        for bit in range(16):
            row, column = divmod(bit, 4)
            value = 210 if n >> bit & 1 else 30
            luma[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = value
    else:
        luma[:] = 40 + 12 * (n % 16)
    return (luma << (depth - 8) if depth > 8 else luma).astype(np.uint16)


def ordinal(luma: NDArray[Any], depth: int = 8) -> int:
    """The `n` that `picture` drew, also after lossy coding; modulo 16 for pictures smaller than the code."""
    level = luma.astype(np.float64) / 2.0 ** (depth - 8)
    if min(luma.shape) < CODE_SIDE:
        return round((float(level.mean()) - 40) / 12)
    blocks = level[:CODE_SIDE, :CODE_SIDE].reshape(4, 8, 4, 8)[:, 2:6, :, 2:6].mean(axis=(1, 3)).ravel()
    return sum(1 << bit for bit in range(16) if blocks[bit] > 120)


def frame(n: int, video: Video) -> av.VideoFrame:
    """Picture `n` as a frame of the wanted pixel format: planar YUV, grey, planar or packed RGB (R = G = B)."""
    made = av.VideoFrame(video.width, video.height, video.pix_fmt)
    depth = made.format.components[0].bits
    luma = picture(n, video.width, video.height, depth)
    grey = "gray" in video.pix_fmt
    packed = re.fullmatch(r"(rgb|bgr)(24|48).*", video.pix_fmt)
    for index, plane in enumerate(made.planes):
        values = (
            luma if index == 0 or made.format.is_rgb or grey else np.full((plane.height, plane.width), 1 << (depth - 1))
        )
        if packed:
            values = np.repeat(luma, 3, axis=1)
        dtype = np.dtype("u1") if depth <= 8 else np.dtype(">u2" if made.format.is_big_endian else "<u2")
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        data = np.ascontiguousarray(values.astype(dtype)).view(np.uint8)
        rows[:, : data.shape[1]] = data
    return made


def write(path: Path, video: Video = Video(), **changes: Any) -> Path:
    """Encode `video` (with `changes`) to `path` and return it."""
    video = replace(video, **changes)
    with av.open(str(path), "w", format=video.format, options=video.mux) as container:
        stream = add_video(container, video)
        with ordinary_threads():
            container.start_encoding()
        for n in range(video.frames):
            container.mux(encode(stream, video, n))
        container.mux(stream.encode(None))
    return path


def add_video(container: Any, video: Video) -> Any:
    """Add and set up the video stream."""
    options = dict(X264_QUICK) if video.codec == "libx264" else {}
    options |= (
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}
        if video.codec == "libx265"
        else {}
    )
    stream = container.add_stream(video.codec, rate=video.rate, options=options | video.options)
    stream.width, stream.height, stream.pix_fmt = video.width, video.height, video.pix_fmt
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = video.time_base or 1 / video.rate
    if not context.codec.intra_only:
        context.gop_size = video.gop
        context.max_b_frames = video.b_frames
    if video.sar:
        context.sample_aspect_ratio = video.sar
    if video.rotation or video.mirrored:
        stream.set_display_rotation(video.rotation, hflip=video.mirrored)
    if video.interlaced:
        context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
    for name, value in video.tags.items():
        setattr(context, name, value)
    return stream


def encode(stream: Any, video: Video, n: int) -> list[av.Packet]:
    """Packets that picture `n` gives."""
    shown = frame(n, video)
    shown.pts = video.pts[n] if video.pts is not None else n
    shown.time_base = video.time_base or 1 / video.rate
    return list(stream.encode(with_fields(shown, video.fields) if video.interlaced else shown))


def with_fields(shown: av.VideoFrame, order: str) -> av.VideoFrame:
    """The picture flagged as interlaced, which PyAV has no setter for; encoders go by the flags, not by options."""
    graph = av.filter.Graph()
    unit = f"{shown.time_base.numerator}/{shown.time_base.denominator}"
    size = f"video_size={shown.width}x{shown.height}:pix_fmt={shown.format.name}:time_base={unit}"
    graph.link_nodes(graph.add("buffer", size), graph.add("setfield", order), graph.add("buffersink")).configure()
    graph.vpush(shown)
    return graph.vpull()


def shown_fields(frames: Sequence[av.VideoFrame]) -> str:
    """T, B or P for each frame, as FFmpeg's showinfo filter prints it."""
    graph = av.filter.Graph()
    size = f"video_size={frames[0].width}x{frames[0].height}:pix_fmt={frames[0].format.name}:time_base=1/90000"
    graph.link_nodes(graph.add("buffer", size), graph.add("showinfo"), graph.add("buffersink")).configure()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as lines:
            for shown in frames:
                graph.vpush(shown)
                graph.vpull()
    finally:
        av.logging.set_level(None)
    return "".join(text.split(" i:")[1][0] for _, _, text in lines if " i:" in text)


def ticks(deltas: Iterable[int], start: int = 0) -> list[int]:
    """Timestamps with these gaps between them."""
    pts = [start]
    for delta in deltas:
        pts.append(pts[-1] + delta)
    return pts


def write_with_company(path: Path, video: Video = Video(), seconds: float = 1.2) -> Path:
    """A video with sound in two languages, subtitles, two chapters and an attached font (mkv)."""
    with av.open(str(path), "w") as container:
        stream = add_video(container, video)
        sounds = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(2)]
        for sound, language in zip(sounds, ("eng", "deu"), strict=True):
            sound.metadata["language"] = language
        words = container.add_mux_stream("subrip")
        words.time_base = Fraction(1, 1000)
        words.metadata.update(language="fra", title="Sous-titres")
        container.add_attachment("font.ttf", "application/x-truetype-font", b"\0\1\0\0not a font")
        container.set_chapters(
            [
                {
                    "id": n,
                    "start": n * 600,
                    "end": n * 600 + 600,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": t},
                }
                for n, t in enumerate(("Reel one", "Reel two"))
            ]
        )
        for sound in sounds:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, int(8000 * seconds)), np.int16), "s16", "mono")
            tone.sample_rate, tone.pts = 8000, 0
            container.mux([*sound.encode(tone), *sound.encode(None)])
        line = av.Packet(b"Bonjour")
        line.stream, line.pts, line.dts, line.duration, line.time_base = words, 100, 100, 500, Fraction(1, 1000)
        container.mux(line)
        for n in range(video.frames):
            container.mux(encode(stream, video, n))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with nothing but sound."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        tone.sample_rate, tone.pts = 8000, 0
        container.mux([*sound.encode(tone), *sound.encode(None)])
    return path


def linear(path: Path, luma_bytes: int) -> list[tuple[int | None, bytes]]:
    """(pts, luma rows) of every picture by plain PyAV; luma_bytes: of one row."""
    with av.open(str(path)) as container:
        return [(shown.pts, luma_rows(shown, luma_bytes)) for shown in container.decode(video=0)]


def luma_rows(shown: av.VideoFrame, luma_bytes: int) -> bytes:
    """The first plane without its padding."""
    plane = shown.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(shown.height, plane.line_size)[:, :luma_bytes].tobytes()


def damaged(path: Path, source: Path, seed: int, places: int = 8) -> Path:
    """A copy of `source` with some stretches of its middle overwritten at random."""
    random = np.random.default_rng(seed)
    data = bytearray(source.read_bytes())
    for at in random.integers(len(data) // 5, len(data) * 4 // 5, places):
        data[at : at + 24] = random.bytes(24)
    path.write_bytes(data)
    return path
