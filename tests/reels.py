"""Reels for the tests of encoding and assembly: stream descriptions, coded segments, sources full of other streams."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from colorizers import Tinter
from numpy.typing import NDArray

from pipeline.assemble import AssembledReel, assemble
from pipeline.chroma import chroma_size
from pipeline.containers import choose_container
from pipeline.encode import EncoderSettings, EncoderSpec, SegmentWriter, resolve_encoder
from pipeline.frames import ColorTags, Look, Segment, SegmentFile, Source, StreamInfo
from pipeline.packets import open_packets
from pipeline.probe import other_streams, probe
from pipeline.reel import colorize_segment
from pipeline.streams import Container

DECODERS = {"h264": "h264", "hevc": "hevc", "av1": "libdav1d", "prores": "prores", "ffv1": "ffv1"}
FONT = b"not really a font" * 20
ASS_HEADER = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name\nStyle: Default\n\n[Events]\nFormat: Text\n"
)
QUICK = EncoderSettings("h264", 10.0, "ultrafast")


def stream_info(**changes: Any) -> StreamInfo:
    """A progressive 64×48 8-bit 4:2:0 stream of 10 frames at 25 a second."""
    plain = StreamInfo(
        source=Source("reel.mp4"),
        container="mov,mp4,m4a,3gp,3g2,mj2",
        index=0,
        codec="h264",
        width=64,
        height=48,
        pix_fmt="yuv420p",
        bit_depth=8,
        subsampling=(1, 1),
        time_base=Fraction(1, 90000),
        fps=Fraction(25),
        vfr=False,
        frames=10,
        start_pts=0,
        end_pts=36000,
        color=ColorTags("bt709", full_range=False, transfer=1, primaries=1),
    )
    return replace(plain, **changes)


def noise(info: StreamInfo, n: int) -> NDArray[Any]:
    """Picture `n`: (H, W) random codes over the whole of the stream's depth."""
    codes = np.random.default_rng(n).integers(0, 1 << info.bit_depth, (info.height, info.width))
    return codes.astype(np.uint8 if info.bit_depth <= 8 else np.uint16)


def write_segment(
    spec: EncoderSpec, path: Path, pts: Sequence[int], luma: Callable[[int], NDArray[Any]], duration: int = 0
) -> SegmentFile:
    """Code `luma(pts)` for every pts, with neutral chroma but for one corner."""
    size = chroma_size(spec.height, spec.width, spec.subsampling)
    neutral = np.full(size, 1 << (spec.bit_depth - 1), np.uint8 if spec.bit_depth <= 8 else np.uint16)
    tinted = neutral.copy()
    tinted[0, 0] += 5
    with SegmentWriter(spec, path) as writer:
        for at in pts:
            writer.write(luma(at), neutral, tinted, at, duration)
    return writer.result()


def choose(path: Path, settings: EncoderSettings) -> tuple[StreamInfo, EncoderSpec, Container]:
    """What a film is, how it would be coded, and into which container."""
    info = probe(Source(str(path)))
    spec = resolve_encoder(info, settings)
    return info, spec, choose_container(info, spec, other_streams(info.source))


def colorized(path: Path, settings: EncoderSettings) -> AssembledReel:
    """The film, tinted, beside itself."""
    info, spec, container = choose(path, settings)
    done = colorize_segment(info.source, info, Segment(0, None, None), Tinter(), Look(), spec, path.with_suffix(".seg"))
    return assemble(info.source, info, spec, container, [done], path.with_suffix(f".out{container.extension}"), {})


def decode_segment_file(spec: EncoderSpec, segment: SegmentFile) -> list[av.VideoFrame]:
    """Decode a segment file with FFmpeg's own decoder, apart from any container."""
    file = open_packets(segment.path)
    decoder: Any = av.CodecContext.create(DECODERS[spec.codec], "r")
    decoder.extradata = file.header.extradata or None
    decoder.width, decoder.height = spec.width, spec.height
    frames = []
    for i, payload in enumerate(file.payloads(segment.sha256)):
        packet = av.Packet(payload)
        packet.pts, packet.time_base = int(file.pts[i]), file.header.time_base
        frames += decoder.decode(packet)
    return frames + decoder.decode(None)


def luma_of(frame: av.VideoFrame) -> NDArray[Any]:
    """The Y plane (H, W) of a planar frame."""
    wide = frame.format.components[0].bits > 8
    rows = np.frombuffer(frame.planes[0], np.uint16 if wide else np.uint8).reshape(frame.height, -1)
    return rows[:, : frame.width].copy()


def jpeg() -> bytes:
    """A small JPEG picture."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame(32, 32, "yuvj420p")
    for plane in frame.planes:
        plane.update(bytes([90]) * plane.buffer_size)
    frame.pts = 0
    return b"".join(bytes(p) for p in (*context.encode(frame), *context.encode(None)))


def rich_source(
    path: Path,
    *,
    subtitles: Sequence[str] = (),
    audio: Sequence[str] = ("aac",),
    cover: bool = False,
    font: bool = False,
    chapters: bool = False,
    timecode: bool = False,
    frames: int = 25,
    start: Fraction = Fraction(0),
    audio_start: Fraction | None = None,
    mux: dict[str, str] | None = None,
) -> Path:
    """A file with one video stream (25 a second, B-frames), then audio, subtitles, a cover, a font, chapters, tags."""
    options = {"avoid_negative_ts": "disabled"} | (mux or {})
    audio_start = start if audio_start is None else audio_start
    with av.open(str(path), "w", container_options=options) as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 25)
        if timecode:
            video.metadata["timecode"] = "10:20:30:00"
        sounds: list[Any] = [out.add_stream(name, rate=44100, layout="mono") for name in audio]
        texts: list[Any] = [out.add_mux_stream(name) for name in subtitles]
        for stream, language in zip((*sounds, *texts), ("fra", "deu", "ita", "spa"), strict=False):
            stream.metadata["language"] = language
        for stream in texts:
            stream.time_base = Fraction(1, 1000)
            stream.disposition = Disposition.forced
        picture = _add_cover(out) if cover and path.suffix != ".mkv" else None
        if cover and picture is None:
            out.add_attachment("cover.jpg", "image/jpeg", jpeg())
        if font:
            out.add_attachment("letters.ttf", "application/x-truetype-font", FONT)
        if chapters:
            out.set_chapters([_chapter(0, 0, 400, "one"), _chapter(1, 400, 1000, "two")])
        out.metadata.update({"title": "A reel", "comment": "as found"})
        for n in range(frames):
            out.mux(video.encode(_grey_frame(n, start)))
        out.mux(video.encode(None))
        for stream, name in zip(sounds, audio, strict=True):
            _write_sound(out, stream, name, audio_start, frames * 43 // 25)
        for stream, name in zip(texts, subtitles, strict=True):
            _write_text(out, stream, name)
        if picture is not None:
            _write_packet(out, picture, jpeg(), 0, 0, Fraction(1, 90000))
    return path


def _add_cover(out: Any) -> Any:
    stream = out.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    return stream


def _chapter(number: int, start: int, end: int, title: str) -> Any:
    return {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}


def _grey_frame(n: int, start: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame(64, 48, "yuv420p")
    for index, plane in enumerate(frame.planes):
        plane.update(bytes([128 if index else 30 + 5 * n % 180]) * plane.buffer_size)
    unit = Fraction(1, 90000)
    frame.pts, frame.time_base = int((start + Fraction(n, 25)) / unit), unit
    return frame


def _write_sound(out: Any, stream: Any, codec: str, start: Fraction, packets: int) -> None:
    """A tone in packets of 1024 samples."""
    for k in range(packets):
        wave = 0.3 * np.sin(np.arange(k * 1024, (k + 1) * 1024) / 20)
        planar = codec in ("aac", "ac3")
        samples = wave.astype(np.float32) if planar else (wave * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp" if planar else "s16", layout="mono")
        frame.sample_rate, frame.time_base = 44100, Fraction(1, 44100)
        frame.pts = int(start * 44100) + k * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def _write_text(out: Any, stream: Any, codec: str) -> None:
    for i, words in enumerate((b"hello", b"world")):
        payload = {
            "mov_text": len(words).to_bytes(2, "big") + words,
            "ass": b"%d,0,Default,,0,0,0,,%s" % (i, words),
        }.get(codec, words)
        _write_packet(out, stream, payload, 100 + 400 * i, 300, Fraction(1, 1000))


def _write_packet(out: Any, stream: Any, payload: bytes, pts: int, duration: int, unit: Fraction) -> None:
    packet = av.Packet(payload)
    packet.stream, packet.time_base = stream, unit
    packet.pts, packet.dts, packet.duration, packet.is_keyframe = pts, pts, duration, True
    out.mux(packet)


def contents(path: Path) -> dict[str, list[tuple[Fraction | None, str]]]:
    """What a plain demuxer finds: (seconds, hash of payload) of the packets of each stream, by a name that tells it."""
    with av.open(str(path)) as file:
        names = {}
        for s in file.streams:
            if s.type != "attachment":
                codec = s.codec_context.name if s.codec_context else s.name
                names[s.index] = f"{s.type} {codec} {s.metadata.get('language', '')} {int(s.disposition)}"
        found: dict[str, list[tuple[Fraction | None, str]]] = {name: [] for name in names.values()}
        for packet in file.demux():
            if packet.size:
                at = None if packet.pts is None else packet.pts * packet.time_base
                found[names[packet.stream.index]].append((at, hashlib.md5(bytes(packet)).hexdigest()))
        return found


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writing past `size` bytes of a file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
