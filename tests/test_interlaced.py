"""Films of which only some pictures are interlaced: fields are kept apart, and every picture is marked as it was."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from colorizers import Tinter
from media import picture, shown_fields, write
from numpy.typing import NDArray
from paff import coded_frames
from reels import QUICK

from pipeline.assemble import assemble
from pipeline.containers import choose_container
from pipeline.encode import PROFILES, EncoderSettings, resolve_encoder
from pipeline.frames import Look, Source
from pipeline.h264 import marked_progressive
from pipeline.probe import other_streams, probe
from pipeline.reel import colorize_segment
from pipeline.segments import cut_segments

PARAMS = "scenecut=0:threads=1:"
PART = 12


def made(path: Path, kinds: str, params: str = "", **changes: Any) -> Path:
    """H.264 of parts of 12 pictures, in any container: p(rogressive), t(op) or b(ottom) field first, q: p among t."""
    data = b""
    for n, kind in enumerate(kinds):
        part = path.with_suffix(f".{n}.h264")
        fields = {} if kind == "p" else {"interlaced": True, "fields": "bff" if kind == "b" else "tff"}
        options = {"preset": "ultrafast", "crf": "0", "x264-params": PARAMS + params}
        write(part, **{"frames": PART, "height": 64, "b_frames": 2, "options": options} | fields | changes)
        packets = part.read_bytes()
        data += marked_progressive(packets) if kind == "q" else packets
    raw = path.with_suffix(".h264")
    raw.write_bytes(data)
    return raw if path.suffix == ".h264" else remuxed(raw, path)


def remuxed(raw: Path, path: Path) -> Path:
    """Its packets at 25 a second; times of display are those of a decoder of this depth of B-frames."""
    with av.open(str(raw)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        shown = shown_at(raw)
        for n, (packet, pts) in enumerate(zip(packets, shown, strict=True)):
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 25), 1
            packet.dts, packet.pts = n, pts + 3
            out.mux(packet)
    return path


def shown_at(raw: Path) -> list[int]:
    """Ordinal in order of display of each packet of a bare stream."""
    with av.open(str(raw)) as given:
        context: Any = given.streams.video[0].codec_context
        frames = []
        for n, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.pts, packet.dts, packet.time_base = n, n, Fraction(1, 25)
            frames += context.decode(packet)
        frames += context.decode(None)
    order = {frame.pts: place for place, frame in enumerate(frames)}
    return [order[n] for n in range(len(order))]


def colorized(path: Path, settings: EncoderSettings, seconds: float = 0.4) -> Path:
    source = Source(str(path))
    info = probe(source)
    spec = resolve_encoder(info, settings)
    parts = [
        colorize_segment(source, info, s, Tinter(), Look(), spec, path.with_suffix(f".{s.index}.seg"))
        for s in cut_segments(source, info, seconds, 2)
    ]
    container = choose_container(info, spec, other_streams(source))
    return assemble(source, info, spec, container, parts, path.with_suffix(f".out{container.extension}"), {}).path


def scans(path: Path) -> str:
    """P, T or B of every picture."""
    with av.open(str(path)) as container:
        return shown_fields(list(container.decode(video=0)))


@pytest.mark.parametrize("settings", [QUICK, PROFILES["preservation"]], ids=["h264", "ffv1"])
@pytest.mark.parametrize(
    ("name", "kinds"), [("a.ts", "pt"), ("a.mp4", "pb"), ("a.mkv", "qt"), ("b.mkv", "tpt"), ("a.h264", "pbp")]
)
def test_every_picture_is_marked_as_in_the_source(
    tmp_path: Path, name: str, kinds: str, settings: EncoderSettings
) -> None:
    path = made(tmp_path / name, kinds)
    wanted = "".join(PART * {"p": "P", "q": "P", "t": "T", "b": "B"}[kind] for kind in kinds)
    assert scans(path) == wanted
    info = probe(Source(str(path)))
    assert info.field_order == ("bff" if "b" in kinds else "tff")
    assert (kinds[0] == "t") != (f"{PART} of its pictures are interlaced, and all are treated so" in info.warnings)
    assert scans(colorized(path, settings)) == wanted


@pytest.mark.parametrize("bottom", ["tff", "bff"])
def test_fields_never_mix_after_progressive_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bottom: str
) -> None:
    """Two films that differ in the bottom fields of their second half only have the same colour in all top fields."""
    films = []
    for name, step in (("one", 0), ("other", 70)):

        def drawn(n: int, width: int, height: int, depth: int, step: int = step) -> NDArray[np.uint16]:
            luma = picture(n, width, height, depth)
            luma[1::2] += np.uint16(step) * (np.arange(width) % 24 < 12)
            return luma.clip(16, 235)

        path = made(tmp_path / f"{name}.p.ts", "p")
        with monkeypatch.context() as patched:
            patched.setattr(media, "picture", drawn)
            second = made(tmp_path / f"{name}.t.ts", "t" if bottom == "tff" else "b")
        raw = tmp_path / f"{name}.h264"
        raw.write_bytes(b"".join(part.with_suffix(".h264").read_bytes() for part in (path, second)))
        films.append(planes(colorized(remuxed(raw, tmp_path / f"{name}.ts"), PROFILES["preservation"])))
    assert len(films[0]) == len(films[1]) == 2 * PART
    for n, (one, other) in enumerate(zip(*films, strict=True)):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine[0::2], theirs[0::2])
            assert np.array_equal(mine[1::2], theirs[1::2]) == (n < PART)


def planes(path: Path) -> list[list[NDArray[Any]]]:
    """(Y, Cb, Cr) of every frame by PyAV alone; 8-bit planar YUV."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [
        [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].copy() for p in frame.planes]
        for frame in frames
    ]


@pytest.mark.parametrize(("kinds", "params"), [("q", ""), ("p", "fake-interlaced=1"), ("p", "pic-struct=1")])
def test_headers_that_allow_fields_make_no_film_interlaced(tmp_path: Path, kinds: str, params: str) -> None:
    info = probe(Source(str(made(tmp_path / "a.ts", kinds, params))))
    assert (info.field_order, info.mixed_fields, info.warnings) == ("progressive", False, ())


@pytest.mark.parametrize("params", ["nal-hrd=vbr:vbv-maxrate=90000:vbv-bufsize=90000", "sar=300/7:force-cfr=1"])
def test_picture_timing_is_found_behind_other_headers(tmp_path: Path, params: str) -> None:
    path = made(tmp_path / "a.ts", "pb", params, options={"preset": "ultrafast", "crf": "20", "x264-params": params})
    info = probe(Source(str(path)))
    assert (info.field_order, info.mixed_fields) == ("bff", True)
    assert scans(path) == "P" * PART + "B" * PART


def test_fields_in_packets_of_their_own_after_frames_are_pairs(tmp_path: Path) -> None:
    path = made(tmp_path / "a.h264", "p")
    with path.open("ab") as out:
        out.writelines(top + bottom for _, top, bottom in coded_frames(PART))
    info = probe(Source(str(path)))
    assert (info.frames, info.field_order, info.mixed_fields) == (2 * PART, "tff", True)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_picture_timing_says_which_field_is_first_from_the_first_picture_on(tmp_path: Path, order: str) -> None:
    """FFmpeg goes by the fields' order counts, others by pic_struct: 3 for top field first, 4 for bottom."""
    path = write(tmp_path / "a.mkv", codec="ffv1", interlaced=True, fields=order, frames=40)
    raw = colorized(path, EncoderSettings("h264", 20.0, "medium"), 1.0)
    with av.open(str(raw)) as container:
        coded = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    structures = [data[data.index(b"\x06\x01\x01") + 3] >> 4 for data in coded]
    assert structures == [{"tff": 3, "bff": 4}[order]] * 40
