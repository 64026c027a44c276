"""Keyframes near evenly spaced times, against demuxing and decoding the whole file with PyAV alone."""

import errno
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from paff import write_fields
from reels import luma_of

from pipeline.errors import StorageError
from pipeline.frames import Source, Timeline
from pipeline.keyframes import Keyframe, Keyframes
from pipeline.probe import probe

REACH = Fraction(16)
SPACING = 4  # seconds
MINUTE = {"frames": 120, "rate": Fraction(2), "gop": 5}  # 60 s, a keyframe every 2.5 s


def opened(path: Path) -> Keyframes:
    source = Source(str(path))
    return Keyframes(source, probe(source), REACH)


def seen(path: Path, seconds: list[float]) -> list[list[float]]:
    """The times, in seconds, of the keyframes near each moment."""
    unit = probe(Source(str(path))).time_base
    with opened(path) as keyframes:
        return [[float(k.pts * unit) for k in keyframes.near(round(s / unit))] for s in seconds]


def of_packets(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.is_keyframe]
        return sorted(float(p.pts * p.time_base) for p in packets)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a.mp4", {}),
        ("b.mp4", {"b_frames": 2}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    ],
)
def test_each_time_has_the_keyframe_before_it(tmp_path: Path, name: str, changes: dict[str, Any]) -> None:
    path = media.write(tmp_path / name, **MINUTE | changes)
    known = of_packets(path)
    begin = known[0]
    grid = [begin + SPACING * k for k in range(15)]
    before = sorted({max(k for k in known if k <= time + 1e-6) for time in grid})
    for moment, found in zip((0, 10, 30, 59.5), seen(path, [begin + s for s in (0, 10, 30, 59.5)]), strict=True):
        expected = [k for k in before if abs(k - begin - moment) <= REACH]
        if name.endswith(".ts"):  # seeking may land behind the time, on a later keyframe
            assert set(found) <= set(known)
            assert len(expected) - 2 <= len(found) <= len(expected) + 2
        else:
            assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_where_reading_begins_makes_no_difference(tmp_path: Path, name: str) -> None:
    path = media.write(tmp_path / name, **MINUTE | ({"codec": "mpeg4"} if name == "a.avi" else {}))
    moments = [0.5 * n for n in range(120)]
    whole = seen(path, moments)
    for first in (1, 37, 80, 119):
        assert seen(path, moments[first:]) == whole[first:]
    assert max(map(len, whole)) >= 7


def test_keyframes_as_far_apart_as_the_times_are_found_where_seeking_lands_behind_them(tmp_path: Path) -> None:
    """Seeking in MPEG-TS goes by decoding times: every keyframe that is shown at a time is decoded before it."""
    path = media.write(tmp_path / "a.ts", rate=Fraction(25), frames=1000, gop=100, b_frames=2)
    known = of_packets(path)
    (found,) = seen(path, [known[0] + 18])
    assert found == pytest.approx([k for k in known if abs(k - known[0] - 18) <= REACH])
    assert len(found) == 8


@pytest.mark.parametrize("name", ["a.mkv", "a.flv"])
def test_past_the_last_of_few_keyframes_the_file_is_not_read_at_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """FFmpeg reads all that follows at every seek behind the last keyframe it knows of."""
    changes: dict[str, Any] = {"frames": 1600, "gop": 1000, "rate": Fraction(1), "width": 16, "height": 16}
    path = media.write(tmp_path / name, **changes)
    sought: list[int] = []
    original = Keyframes._from_keyframe
    monkeypatch.setattr(Keyframes, "_from_keyframe", lambda *args: (sought.append(args[1]), original(*args))[1])
    found = seen(path, [float(second) for second in range(0, 1600, 4)])
    assert {time for near in found for time in near} == {0, 1000}
    assert len(sought) < 60


@pytest.mark.parametrize("changes", [{}, {"b_frames": 2}, {"codec": "ffv1", "pix_fmt": "gray10le"}])
def test_pictures_are_those_of_the_whole_film(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = media.write(tmp_path / "a.mkv", **MINUTE | changes)
    with av.open(str(path)) as container:
        whole = {frame.pts: luma_of(frame) for frame in container.decode(video=0)}
    with opened(path) as keyframes:
        found = keyframes.near(20_000)
    assert len(found) >= 7
    for each in found:
        np.testing.assert_array_equal(each.luma, whole[each.pts])


def test_a_picture_of_two_packets_is_whole(tmp_path: Path) -> None:
    path = write_fields(tmp_path / "a.ts")
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
    with opened(path) as keyframes:
        found = keyframes.near(first.pts)
    assert found[0].pts == first.pts
    np.testing.assert_array_equal(found[0].luma, luma_of(first))


def test_a_long_pause_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that records when something moves: ten hours between two pictures."""
    pts = [*range(20), *range(36_000, 36_020)]
    path = media.write(tmp_path / "a.mkv", frames=40, gop=4, pts=pts, time_base=Fraction(1), rate=Fraction(1))
    read: list[int] = []
    original = Keyframes._read
    monkeypatch.setattr(Keyframes, "_read", lambda *args: (read.append(args[1]), original(*args))[1])
    found = seen(path, [0, 19, 36_000, 36_019])
    assert found[-1]
    assert len(read) < 30


def test_damaged_ones_and_those_of_another_size_are_left_out(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p", frames=40, rate=Fraction(1))
    source = Source(str(path))
    info = probe(source)
    with Keyframes(source, info, REACH) as keyframes:
        assert len(keyframes.near(10_000)) > 4
    with Keyframes(source, replace(info, width=info.width + 2), REACH) as keyframes:
        assert keyframes.near(10_000) == ()
    content = path.read_bytes()
    at = content.index(b"\xff\xd8", len(content) // 5)
    path.write_bytes(content[:at] + b"\0" * 4000 + content[at + 4000 :])
    with Keyframes(source, info, REACH) as keyframes:
        assert 0 < len(keyframes.near(10_000)) < 9


def test_one_that_its_checksum_says_is_damaged_is_left_out(tmp_path: Path) -> None:
    """FFV1's decoder would patch it without a word."""
    options = {"level": "3", "slicecrc": "1"}
    path = media.write(tmp_path / "a.mkv", codec="ffv1", frames=30, gop=1, rate=Fraction(1), options=options)
    with av.open(str(path)) as container:
        spoilt = next(bytes(p) for p in container.demux(video=0) if p.pts == 12_000)
    content = path.read_bytes()
    at = content.index(spoilt) + len(spoilt) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert seen(path, [10]) == [[0, 4, 8, 16, 20, 24]]


def test_times_that_mean_nothing_give_none(tmp_path: Path) -> None:
    source = Source(str(media.write(tmp_path / "a.mp4", **MINUTE)))
    info = probe(source)
    part = Timeline(Fraction(0), Fraction(60), Fraction(0))
    for untimed in (replace(info, timestamps=False), replace(info, timelines=(part,)), replace(info, pix_fmt="pal8")):
        with Keyframes(source, untimed, REACH) as keyframes:
            assert keyframes.near(0) == ()


def test_reading_that_fails_is_an_error_and_no_other_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.write(tmp_path / "a.mp4", **MINUTE)

    def failing(*_: Any) -> Any:
        raise StorageError("the store is gone")
        yield

    monkeypatch.setattr("pipeline.keyframes.read_packets", failing)
    with opened(path) as keyframes, pytest.raises(StorageError, match="gone"):
        keyframes.near(0)


def test_a_seek_that_storage_fails_is_an_error_and_no_other_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def seek(self, *_: Any, **__: Any) -> None:
            raise av.error.OSError(errno.EIO, "Input/output error")

    path = media.write(tmp_path / "a.mp4", **MINUTE)
    monkeypatch.setattr("pipeline.keyframes.open_stream", lambda *_: (Failing(), None, None))
    with opened(path) as keyframes, pytest.raises(StorageError, match="reading failed"):
        keyframes.near(0)


def test_they_are_held_no_longer_than_they_count(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mkv", **MINUTE)
    with opened(path) as keyframes:
        for moment in range(0, 60_000, 500):
            found: tuple[Keyframe, ...] = keyframes.near(moment)
            assert all(abs(k.pts - moment) <= 1000 * REACH for k in found)
            assert len(keyframes._near) <= 2 * REACH / SPACING + 3
