from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from media import Video, write
from reels import QUICK, rich_source

from pipeline import containers
from pipeline.containers import choose_container, preflight
from pipeline.encode import PROFILES, EncoderSettings, EncoderSpec, resolve_encoder
from pipeline.errors import StorageError, UnsupportedError
from pipeline.frames import Source, StreamInfo
from pipeline.probe import other_streams, probe
from pipeline.streams import Container

FFV1, PRORES = PROFILES["preservation"], PROFILES["mezzanine"]
AV1, HEVC = EncoderSettings("av1", None, "12"), EncoderSettings("hevc", None, "ultrafast")


def chosen(path: Path, settings: EncoderSettings, fps: Fraction | None = None) -> Container:
    source = Source(str(path))
    info = probe(source, fps)
    spec = resolve_encoder(info, settings)
    container = choose_container(info, spec, other_streams(source))
    preflight(source, info, spec, container)
    return container


@pytest.mark.parametrize(
    ("name", "video", "settings", "extension", "format"),
    [
        ("a.mp4", {}, QUICK, ".mp4", "mp4"),
        ("a.m4v", {"format": "mp4"}, QUICK, ".m4v", "mp4"),
        ("a.mov", {}, HEVC, ".mov", "mov"),
        ("a.mkv", {}, QUICK, ".mkv", "matroska"),
        ("a.ts", {}, QUICK, ".ts", "mpegts"),
        ("a.ts", {}, HEVC, ".ts", "mpegts"),
        ("a.m2ts", {"format": "mpegts", "mux": {"mpegts_m2ts_mode": "1"}}, QUICK, ".m2ts", "mpegts"),
        ("a.avi", {"codec": "mpeg4"}, QUICK, ".mkv", "matroska"),
        ("a.mpg", {"codec": "mpeg2video", "format": "mpeg"}, QUICK, ".mkv", "matroska"),
        ("a.h264", {"format": "h264"}, QUICK, ".mkv", "matroska"),
        ("a.webm", {"codec": "libvpx-vp9", "height": 64}, AV1, ".webm", "webm"),
        ("a.webm", {"codec": "libvpx-vp9"}, QUICK, ".mkv", "matroska"),
        ("a.mp4", {}, PRORES, ".mov", "mov"),
        ("a.mkv", {"codec": "ffv1", "tags": {"colorspace": 1}}, PRORES, ".mov", "mov"),  # as DNxHD has it: no more tags
        ("a.mov", {}, FFV1, ".mkv", "matroska"),
        ("a.ts", {"height": 64}, AV1, ".mkv", "matroska"),
    ],
)
def test_the_source_s_container_where_it_holds_the_result(
    tmp_path: Path, name: str, video: dict[str, Any], settings: EncoderSettings, extension: str, format: str
) -> None:
    path = write(tmp_path / name, Video(frames=6), **video)
    container = chosen(path, settings)
    assert (container.extension, container.format) == (extension, format)
    assert (path.suffix == extension) != any(f"written as {extension}" in note for note in container.notes)


def test_where_other_streams_do_not_fit_another_container_is_taken_and_said(tmp_path: Path) -> None:
    texts = rich_source(tmp_path / "a.mkv", subtitles=("subrip",), font=True)
    prores = chosen(texts, PRORES)
    assert prores.extension == ".mkv"
    assert "written as .mkv: mov cannot hold subtitle stream 2 (subrip)" in prores.notes
    timed = rich_source(tmp_path / "b.mp4", subtitles=("mov_text",))
    ffv1 = chosen(timed, FFV1)
    assert ffv1.extension == ".mp4"
    assert any("Matroska cannot hold subtitle stream 2 (mov_text)" in note for note in ffv1.notes)
    cover = chosen(rich_source(tmp_path / "c.mp4", cover=True), PRORES)
    assert cover.extension == ".mkv"
    assert any("mov cannot hold video stream 2 (mjpeg)" in note for note in cover.notes)


def test_where_nothing_holds_everything_the_reel_is_refused(tmp_path: Path) -> None:
    path = rich_source(tmp_path / "a.mp4", subtitles=("mov_text",), cover=True)
    with pytest.raises(UnsupportedError, match=r"a\.mp4: no container holds this reel") as caught:
        chosen(path, PRORES)
    message = str(caught.value)
    assert "mov cannot hold video stream 3 (mjpeg)" in message
    assert "Matroska cannot hold subtitle stream 2 (mov_text)" in message
    assert "\n" not in message


def resolved(path: Path, settings: EncoderSettings = QUICK) -> tuple[Source, StreamInfo, EncoderSpec]:
    source = Source(str(path))
    info = probe(source)
    return source, info, resolve_encoder(info, settings)


def test_preflight_names_the_stream_and_the_container_that_can(tmp_path: Path) -> None:
    source, info, spec = resolved(rich_source(tmp_path / "a.mkv", subtitles=("ass",), font=True))
    with pytest.raises(
        UnsupportedError, match=r"a\.mkv: mp4 cannot hold subtitle stream 2 \(ass\); Matroska \(\.mkv\)"
    ):
        preflight(source, info, spec, Container("mp4", ".mp4", "mp4"))
    source, info, spec = resolved(rich_source(tmp_path / "b.mkv", font=True))
    with pytest.raises(UnsupportedError, match=r"cannot hold attachment stream 2 .*Matroska \(\.mkv\) can"):
        preflight(source, info, spec, Container("mp4", ".mp4", "mp4"))
    source, info, spec = resolved(rich_source(tmp_path / "c.mp4", subtitles=("mov_text",)))
    with pytest.raises(UnsupportedError, match=r"Matroska cannot hold subtitle stream 2 \(mov_text\); mov \(\.mov\)"):
        preflight(source, info, spec, Container("Matroska", ".mkv", "matroska"))


def test_pictures_closer_than_a_millisecond_do_not_go_into_matroska(tmp_path: Path) -> None:
    unit = Fraction(1, 90000)
    close = write(
        tmp_path / "a.mp4", frames=5, pts=[0, 10, 20, 9000, 18000], time_base=unit,
        mux={"video_track_timescale": "90000"},
    )  # fmt: skip
    container = chosen(close, FFV1)
    assert container.extension == ".mp4"
    assert any("within one millisecond" in note for note in container.notes)


def test_doubled_timestamps_do_not_drive_a_reel_out_of_matroska(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mkv", codec="ffv1", frames=20, gop=1)
    path = tmp_path / "a.mkv"
    with av.open(str(plain)) as given, av.open(str(path), "w") as doubled:
        stream = given.streams.video[0]
        copy = doubled.add_stream_from_template(stream)
        for n, packet in enumerate(p for p in given.demux(stream) if p.size):
            packet.stream = copy
            packet.pts = packet.dts = 40 * (n - (n % 7 == 3))
            doubled.mux(packet)
    with av.open(str(path)) as container:
        assert len({p.pts for p in container.demux(video=0) if p.size}) < 20
    for settings in (FFV1, QUICK):
        assert chosen(path, settings).extension == ".mkv"


def test_rounding_to_milliseconds_is_said_where_it_happens(tmp_path: Path) -> None:
    rounded = "timestamps rounded to the nearest millisecond: Matroska's resolution"
    assert rounded in chosen(write(tmp_path / "a.mp4", frames=5, rate=Fraction(24000, 1001)), FFV1).notes
    assert rounded not in chosen(write(tmp_path / "b.mp4", frames=5, rate=Fraction(25)), FFV1).notes


def test_what_a_reader_would_not_learn_counts_as_lost(tmp_path: Path) -> None:
    source, info, spec = resolved(write(tmp_path / "a.mov", frames=4, rotation=90))
    with pytest.raises(UnsupportedError, match=r"its rotation is lost; Matroska \(\.mkv\) can"):
        preflight(source, info, spec, Container("MPEG-TS", ".ts", "mpegts", (("mpegts_copyts", "1"),)))
    interlaced = write(tmp_path / "b.ts", frames=4, interlaced=True)
    container = chosen(interlaced, HEVC)
    assert container.extension == ".mkv"
    assert any("its field order is lost" in note for note in container.notes)


def test_timecode_is_kept_as_a_tag_where_there_are_no_timecode_tracks(tmp_path: Path) -> None:
    path = rich_source(tmp_path / "a.mov", timecode=True)
    assert any("kept as the TIMECODE tag" in note for note in chosen(path, FFV1).notes)
    assert not any("TIMECODE" in note for note in chosen(path, QUICK).notes)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rich_source(tmp_path / "a.mp4")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    chosen(path, QUICK)
    assert not list(temporary.iterdir())


def test_no_room_for_a_trial_is_no_fault_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, info, spec = resolved(write(tmp_path / "a.mp4", frames=2))

    def full(*_: Any, **__: Any) -> None:
        raise av.error.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(containers, "write_reel", full)
    with pytest.raises(StorageError, match="trial file cannot be written: No space left on device; set TMPDIR"):
        choose_container(info, spec)
