"""H.264 whose fields are packets of their own: each pair is one picture, however stored, and none counts twice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import linear, ordinal, write
from paff import coded_frames, write_fields

from pipeline.decode import DecodeReport, decode_segment
from pipeline.frames import Source
from pipeline.h264 import FieldPairs, recovery_lag
from pipeline.probe import probe
from pipeline.segments import cut_segments


def copied(path: Path, target: Path) -> Path:
    """The same packets in another container, which keeps H.264 in another form."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return target


def made(folder: Path, name: str) -> Path:
    order = (1, 0) if "reordered" in name else (0,)
    path = write_fields(folder / f"{Path(name).stem}.ts", order=order, timed="first" if "one" in name else "both")
    return path if name.endswith(".ts") else copied(path, folder / name)


@pytest.mark.parametrize("name", ["a.ts", "reordered.ts", "reordered_one.ts", "a.mp4", "reordered.mkv"])
def test_two_fields_are_one_picture(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, name)
    source = Source(str(path))
    info = probe(source)
    assert (info.frames, info.fps, info.vfr, info.field_order) == (60, 25, False, "tff")
    assert (info.end_pts - info.start_pts) * info.time_base == Fraction(60, 25)
    segments = cut_segments(source, info, 0.6, 2)
    assert len(segments) > 2
    shown: list[tuple[int, bytes]] = []
    for segment in segments:
        report = DecodeReport()
        for batch in decode_segment(source, info, segment, 2, report):
            assert not batch.duration.any(), "the first field's would be half of the picture's"
            inside = slice(batch.warmup, None)
            shown += zip(batch.pts[inside].tolist(), (y.tobytes() for y in batch.luma[inside]), strict=True)
        assert not report.warnings
    assert shown == linear(path, 64)
    assert [ordinal(np.frombuffer(y, np.uint8).reshape(64, 64)) for _, y in shown] == list(range(60))


def test_fields_without_timestamps_are_counted_in_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(top + bottom for _, top, bottom in coded_frames(20)))
    info = probe(Source(str(path)))
    assert (info.frames, info.seconds) == (20, 0.8)


def test_both_fields_in_one_packet_are_no_second_field() -> None:
    pairs = FieldPairs(None)
    frames = list(coded_frames(12))
    assert not any(pairs.completes(top + bottom) for _, top, bottom in frames)
    assert [pairs.completes(field) for _, *fields in frames for field in fields] == [False, True] * 12


def test_a_lost_field_costs_its_own_picture_only() -> None:
    pairs = FieldPairs(None)
    fields = [field for _, *pair in coded_frames(4) for field in pair]
    del fields[3]
    assert [pairs.completes(field) for field in fields] == [False, True, False, False, True, False, True]


@pytest.mark.parametrize("changes", [{}, {"interlaced": True, "height": 64}, {"pix_fmt": "yuv444p"}])
def test_frames_are_no_fields(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mkv", b_frames=2, **changes)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pairs = FieldPairs(stream.codec_context.extradata)
        assert pairs.possible == bool(changes.get("interlaced"))
        assert not any(pairs.completes(bytes(packet)) for packet in container.demux(stream) if packet.size)


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_no_more_than_a_wrong_guess(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = FieldPairs(random.bytes(40) if seed % 2 else b"\1" + random.bytes(40))
    for _, *fields in coded_frames(3, side=32):
        for whole in fields:
            data = bytearray(whole[:200])
            data[5 + random.integers(60)] = random.integers(256)
            assert pairs.completes(bytes(data)) in (False, True)
    recovery_lag(None, b"\0\0\1\6" + random.bytes(30))
