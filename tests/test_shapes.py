"""Streams that become others in the middle: known before any work, by what was spliced together."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import shown_fields, write
from mpeg2 import Kind, write_fields

from pipeline.decode import DecodeReport, decode_frames
from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.mpeg4 import PictureFields
from pipeline.probe import probe
from pipeline.shapes import ShapeWatch, mpeg2_fields

RAW = {"libx264": "h264", "libx265": "hevc", "mpeg1video": "m1v", "mpeg2video": "m2v", "mpeg4": "ts", "mjpeg": "mjpeg"}
FRAMES = 6


def spliced(tmp_path: Path, codec: str, one: dict[str, Any], other: dict[str, Any]) -> Path:
    """Six pictures of each, end to end: as bytes where the format is a bare stream, else packet after packet."""
    common = {"codec": codec, "frames": FRAMES, "pix_fmt": "yuvj420p" if codec == "mjpeg" else "yuv420p"}
    suffix = RAW.get(codec, "mkv")
    parts = [write(tmp_path / f"{n}.{suffix}", **common | changes) for n, changes in enumerate((one, other))]
    path = tmp_path / f"both.{suffix}"
    if codec in RAW:
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return path
    with av.open(str(path), "w") as out, av.open(str(parts[0])) as first, av.open(str(parts[1])) as second:
        stream = out.add_stream_from_template(first.streams.video[0])
        for n, part in enumerate((first, second)):
            for packet in part.demux(video=0):
                if packet.size:
                    packet.stream, packet.pts = stream, packet.pts + 240 * n
                    packet.dts = packet.pts
                    out.mux(packet)
    return path


@pytest.mark.parametrize("codec", [*RAW, "libvpx", "libvpx-vp9"])
def test_another_size_is_refused_before_any_work(tmp_path: Path, codec: str) -> None:
    path = spliced(tmp_path, codec, {}, {"width": 80})
    what = r"changes from 64×48 yuvj?420p to 80×48 yuvj?420p after 6 pictures; split the file there"
    with pytest.raises(InputError, match=what):
        probe(Source(str(path)))


def test_another_format_is_refused_and_other_settings_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="changes from 64×48 yuv420p to 64×48 yuv444p after 6 pictures"):
        probe(Source(str(spliced(tmp_path, "libx264", {}, {"pix_fmt": "yuv444p"}))))
    info = probe(Source(str(spliced(tmp_path, "libx264", {}, {"rate": Fraction(50), "b_frames": 2}))))
    assert (info.frames, info.warnings) == (2 * FRAMES, ())


def test_another_pixel_aspect_or_range_is_said(tmp_path: Path) -> None:
    path = spliced(tmp_path, "libx264", {}, {"sar": Fraction(12, 11), "tags": {"color_range": 2}})
    shape, levels = probe(Source(str(path))).warnings
    assert shape == "its pixels change from 1:1 to 12:11 after 6 pictures; the output's stay as they were"
    assert levels.startswith("luma changes from limited to full range after 6 pictures; it is kept as it is")


class Described(bytes):
    """A packet with headers beside it, which PyAV has no way to make."""

    headers: bytes | None

    def has_sidedata(self, dtype: str) -> bool:
        return dtype == "new_extradata"

    def get_sidedata(self, dtype: str) -> bytes | None:
        return self.headers if self.has_sidedata(dtype) else None


def test_headers_beside_a_packet_count(tmp_path: Path) -> None:
    """As FFmpeg gives them where an MP4 has several sample descriptions."""
    with (
        av.open(str(write(tmp_path / "a.mp4", frames=1))) as one,
        av.open(str(write(tmp_path / "b.mp4", frames=1, width=80))) as other,
    ):
        watch = ShapeWatch(one.streams.video[0].codec_context)
        watch.see(next(one.demux(video=0)), 0)
        assert watch.shapes() == ()
        packet: Any = Described(bytes(next(other.demux(video=0))))
        packet.headers = other.streams.video[0].codec_context.extradata
        watch.see(packet, 1)
        assert [(shape.after, shape.width) for shape in watch.shapes()] == [(0, 64), (1, 80)]


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
@pytest.mark.parametrize("fields", ["tff", "bff"])
def test_films_with_interlaced_parts_are_interlaced(tmp_path: Path, codec: str, fields: str) -> None:
    path = spliced(tmp_path, codec, {}, {"interlaced": True, "fields": fields})
    info = probe(Source(str(path)))
    assert info.field_order == fields
    assert info.warnings == ("6 of its pictures are interlaced, and all are treated so",)


@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("suffix", ["m2v", "mpg"])
def test_pictures_of_one_field_each_keep_their_order(tmp_path: Path, fields: Kind, mixed: bool, suffix: str) -> None:
    """Alone, and between progressive frames, where FFmpeg's headers say that the bottom field comes first."""
    kinds: list[Kind] = ["frame" if mixed and n % 4 in (0, 3) else fields for n in range(20)]
    path = write_fields(tmp_path / "a.m2v", kinds)
    if suffix == "mpg":
        path = remuxed(path, tmp_path / "a.mpg")
    info = probe(Source(str(path)))
    assert (info.field_order, info.frames) == (fields, 20)
    rows = [luma[:2, 0].tolist() for batch in decode_frames(Source(str(path)), info) for luma in batch.luma]
    levels = [(40 + n, 40 + n + 100 * (kind != "frame")) for n, kind in enumerate(kinds)]
    assert rows == [list(pair if fields == "tff" else pair[::-1]) for pair in levels]


def remuxed(source: Path, path: Path) -> Path:
    """The packets of a bare stream, each 40 ms after the last."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for n, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 25), 1
            packet.pts = packet.dts = n
            out.mux(packet)
    return path


def test_few_interlaced_pictures_are_enough(tmp_path: Path) -> None:
    path = spliced(tmp_path, "mpeg2video", {"frames": 70}, {"interlaced": True})
    info = probe(Source(str(path)))
    assert (info.field_order, info.mixed_fields) == ("tff", True)
    batches = list(decode_frames(Source(str(path)), info))
    marks = [bool(mark) for b in batches if b.progressive is not None for mark in b.progressive]
    assert marks == [True] * 69 + [False] * 6, "FFmpeg drops a picture where a sequence of another kind begins"


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "mpeg4"])
@pytest.mark.parametrize(("fields", "others"), [("tff", "bff"), ("bff", "tff")])
def test_another_order_of_fields_is_said(tmp_path: Path, codec: str, fields: str, others: str) -> None:
    parts = ({"interlaced": True, "fields": order, "height": 64} for order in (fields, others))
    info = probe(Source(str(spliced(tmp_path, codec, *parts))))
    assert (info.field_order, info.mixed_fields) == (fields, False)
    assert info.warnings == (
        f"6 of its pictures have the other order of fields; they are marked as the rest ({fields})",
    )


def test_interlaced_pictures_that_no_header_told_of_are_said(tmp_path: Path) -> None:
    kind = {"pix_fmt": "yuv422p10le"}
    path = spliced(tmp_path, "prores_ks", kind, kind | {"interlaced": True})
    info, report = probe(Source(str(path))), DecodeReport()
    assert (info.field_order, info.warnings) == ("progressive", ())
    assert list(decode_frames(Source(str(path)), info, report))
    assert report.warnings[0] == "6 interlaced pictures coloured as whole frames, and not marked"


@pytest.mark.parametrize("fields", ["tff", "bff"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"b_frames": 2, "rate": Fraction(30000, 1001)},
        {"rate": Fraction(1), "options": {"data_partitioning": "1"}},
        {"rate": Fraction(16), "sar": Fraction(7, 5)},
    ],
)
def test_mpeg4_says_how_its_pictures_are_interlaced(tmp_path: Path, fields: str, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mkv", codec="mpeg4", interlaced=True, fields=fields, frames=12, **changes)
    with av.open(str(path)) as given:
        stream = given.streams.video[0]
        reader = PictureFields(stream.codec_context.extradata)
        assert [reader.order(packet) for packet in given.demux(stream) if packet.size] == [fields] * 12
        assert reader.order(av.Packet(b"\0\0\1\xb6\x10")) == fields, "of one that repeats the one before"
    with av.open(str(path)) as given:
        assert shown_fields(list(given.decode(video=0))) == fields[0].upper() * 12


@pytest.mark.parametrize(
    ("structure", "top_first", "order"), [(1, 0, "tff"), (2, 0, "bff"), (3, 1, "tff"), (3, 0, "bff")]
)
def test_fields_of_their_own_and_in_frames(structure: int, top_first: int, order: str) -> None:
    """A picture coding extension (ISO 13818-2, 6.2.3.1) of these bits, after a sequence extension."""
    bits = np.zeros(40, np.uint8)
    bits[0], bits[22], bits[23], bits[24] = 1, structure >> 1, structure & 1, top_first
    sequence = b"\0\0\1\xb5\x14\x82\0\1\0\0"
    head = sequence + b"\0\0\1\0\0\x0f\xff\xf8\0\0\1\xb5"
    assert mpeg2_fields(av.Packet(head + np.packbits(bits).tobytes() + b"\0\0\1\1")) == order
    bits[32] = 1
    assert mpeg2_fields(av.Packet(head + np.packbits(bits).tobytes() + b"\0\0\1\1")) == "progressive"
    assert mpeg2_fields(av.Packet(sequence)) == "progressive"
