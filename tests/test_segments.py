"""Segments partition the timeline, begin where decoding is sound, and are planned without decoding."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Video, ticks, write

from pipeline.frames import Source, StreamInfo
from pipeline.h264 import recovery_lag
from pipeline.probe import probe
from pipeline.segments import cut_segments

OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=5:bframes=3:b-adapt=0:scenecut=0:threads=1"}


def packets(path: Path) -> list[tuple[int, bool]]:
    """(pts, keyframe) of the video packets in file order."""
    with av.open(str(path)) as container:
        return [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]


def opened(path: Path) -> tuple[Source, StreamInfo]:
    source = Source(str(path))
    return source, probe(source)


@pytest.mark.parametrize("seconds", [0.1, 1, 2.5, 1000])
@pytest.mark.parametrize("warmup", [0, 4])
def test_segments_partition_the_timeline(tmp_path: Path, seconds: float, warmup: int) -> None:
    path = write(tmp_path / "a.mkv", b_frames=2, options=OPEN_GOP, frames=200)
    source, info = opened(path)
    segments = cut_segments(source, info, seconds, warmup)
    shown = sorted(pts for pts, _ in packets(path))
    assert (segments[0].start, segments[0].seek, segments[-1].end) == (None, None, None)
    assert [s.index for s in segments] == list(range(len(segments)))
    assert [s.end for s in segments[:-1]] == [s.start for s in segments[1:]]
    assert [sum(map(s.holds, shown)) for s in segments] == [s.frames for s in segments]
    keyframes = {pts for pts, key in packets(path) if key}
    for segment in segments[1:]:
        assert segment.seek in keyframes
        assert shown.index(segment.start) - shown.index(segment.seek) == warmup
    lengths = np.diff([0, *(s.start for s in segments[1:]), info.end_pts]) / 1000
    assert (lengths <= max(1.5 * seconds, seconds + 0.4) + warmup * 0.04).all()  # keyframes are 0.4 s apart


def test_the_plan_is_a_function_of_the_file(tmp_path: Path) -> None:
    source, info = opened(write(tmp_path / "a.ts", b_frames=2, options=OPEN_GOP, frames=100))
    plan = cut_segments(source, info, 1, 4)
    other = Source(str(write(tmp_path / "b.ts", b_frames=2, options=OPEN_GOP, frames=100)))
    assert cut_segments(source, info, 1, 4) == plan == cut_segments(other, probe(other), 1, 4)


def test_planning_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, info = opened(write(tmp_path / "a.mp4", b_frames=2, frames=100))

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("pipeline.segments._decodes_as_key", refuse)
    assert len(cut_segments(source, info, 1, 4)) > 3


def test_a_file_without_keyframes_or_timestamps_is_one_segment(tmp_path: Path) -> None:
    for name, changes in (("a.h264", {"b_frames": 2}), ("a.mkv", {"gop": 1000})):
        source, info = opened(write(tmp_path / name, frames=100, **changes))
        (only,) = cut_segments(source, info, 0.5, 4)
        assert (only.start, only.end, only.seek, only.frames) == (None, None, None, 100)


def test_an_unseekable_file_is_one_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, info = opened(write(tmp_path / "a.mp4", frames=400))
    tried = []
    monkeypatch.setattr("pipeline.segments.seek_keyframe", lambda *args: tried.append(args[3]))
    assert len(cut_segments(source, info, 0.5, 4)) == 1
    assert len(tried) == 16


def test_a_seek_that_gives_other_packets_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, info = opened(write(tmp_path / "a.mp4", frames=200))
    sound = cut_segments(source, info, 1, 4)
    from pipeline import segments as module

    seek = module.seek_keyframe

    def skipping(container: object, stream: object, info: object, pts: int, report: object) -> object:
        found = seek(container, stream, info, pts, report)
        if pts == sound[2].seek:
            kept = [p for n, p in enumerate(found) if n != 5]
            return iter(kept)
        return found

    monkeypatch.setattr(module, "seek_keyframe", skipping)
    wary = cut_segments(source, info, 1, 4)
    assert sound[2].seek not in {s.seek for s in wary}
    assert len(wary) == len(sound) - 1


def test_keyframes_that_are_none_are_not_cut_at(tmp_path: Path) -> None:
    inter = write(tmp_path / "inter.avi", codec="msmpeg4v3", gop=1000, frames=60)
    with av.open(str(inter)) as given, av.open(str(tmp_path / "lying.avi"), "w") as lying:
        stream = given.streams.video[0]
        copy = lying.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                packet.stream, packet.is_keyframe = copy, True
                lying.mux(packet)
    source, info = opened(tmp_path / "lying.avi")
    assert all(key for _, key in packets(tmp_path / "lying.avi"))
    assert len(cut_segments(source, info, 0.5, 4)) == 1


def test_cuts_fall_where_the_target_says_in_seconds(tmp_path: Path) -> None:
    pts = ticks([40] * 100 + [1000] * 49)  # four seconds at 25 a second, then a picture a second
    path = write(tmp_path / "a.mkv", frames=150, gop=5, pts=pts, time_base=Fraction(1, 1000))
    source, info = opened(path)
    starts = [s.start for s in cut_segments(source, info, 4, 0)[1:]]
    assert starts[0] == 3000
    assert all(3000 <= b - a <= 6000 for a, b in pairwise(starts))


@pytest.mark.parametrize(
    ("params", "lags"),
    [
        ("keyint=10:min-keyint=10:scenecut=0", {0}),
        (OPEN_GOP["x264-params"], {0}),
        ("intra-refresh=1:keyint=12", {0, 4}),  # four macroblock columns are refreshed one a frame
    ],
)
@pytest.mark.parametrize("extension", ["mp4", "ts", "mkv"])
def test_recovery_points_are_read_from_the_bitstream(
    tmp_path: Path, params: str, lags: set[int], extension: str
) -> None:
    options = {"preset": "medium", "x264-params": f"{params}:threads=1"}
    path = write(tmp_path / f"a.{extension}", Video(options=options, frames=60, b_frames=2))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [
            recovery_lag(stream.codec_context.extradata, bytes(p))
            for p in container.demux(stream)
            if p.is_keyframe and p.size
        ]
    assert set(found) <= lags
    assert found[0] == 0
    if "refresh" in params:
        assert set(found[1:]) != {0}


def test_a_picture_without_recovery_point_is_of_unknown_use() -> None:
    assert recovery_lag(None, b"\0\0\0\1\x09\x10\0\0\1\x41\x9a\0\0") is None
    assert recovery_lag(b"\1\x64\0\x1f\xff", b"\0\0\0\2\x41\x9a") is None
    assert recovery_lag(None, b"") is None
    # SEI: type 6, size 1; ue(v) 00110 is 5, then exact_match, broken_link and changing_slice_group flags
    assert recovery_lag(None, b"\0\0\1\x06\x06\x01\x34\x80\0\0\1\x41\x9a") == 5
