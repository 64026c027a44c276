from __future__ import annotations

import hashlib
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from media import Video, write
from numpy.typing import NDArray
from reels import FONT, QUICK, contents, files_up_to, jpeg, luma_of, noise, rich_source, write_segment

from pipeline import assemble as assembly
from pipeline.assemble import AssembledReel, assemble
from pipeline.containers import choose_container
from pipeline.copying import _Clock
from pipeline.decode import decode_frames
from pipeline.encode import PROFILES, EncoderSettings, EncoderSpec, resolve_encoder
from pipeline.errors import ReelcolorError, StorageError, VerificationError
from pipeline.frames import SegmentFile, Source, StreamInfo
from pipeline.join import decoding_times
from pipeline.probe import other_streams, probe
from pipeline.tags import side_data
from pipeline.verify import verify_reel

FFV1, PRORES = PROFILES["preservation"], PROFILES["mezzanine"]
PROVENANCE = {"colorized": "yes", "tool": "reelcolor 0.1.0", "model": "default", "weights_sha256": "ab" * 32}


class Reel:
    """A source, its segments coded with noise of its own for every timestamp, and all that assemble needs."""

    def __init__(self, path: Path, settings: EncoderSettings = QUICK, parts: int = 3) -> None:
        self.info: StreamInfo = probe(Source(str(path)))
        self.source = self.info.source
        self.spec: EncoderSpec = resolve_encoder(self.info, settings)
        self.container = choose_container(self.info, self.spec, other_streams(self.source))
        self.pts = [int(p) for batch in decode_frames(self.source, self.info) for p in batch.pts]
        self.segments: list[SegmentFile] = [
            write_segment(self.spec, path.parent / f"{path.name}.{n}.seg", part.tolist(), self.luma)
            for n, part in enumerate(np.array_split(np.array(self.pts), parts))
        ]
        self.output = path.parent / "out" / f"{path.stem}{self.container.extension}"

    def luma(self, pts: int) -> NDArray[Any]:
        return noise(self.info, self.pts.index(pts))

    def assemble(self) -> AssembledReel:
        return assemble(
            self.source, self.info, self.spec, self.container, self.segments, self.output, PROVENANCE
        )  # fmt: skip

    @property
    def times(self) -> list[Fraction]:
        return [p * self.info.time_base for p in self.pts]


def decoded(path: Path) -> list[tuple[Fraction, NDArray[Any]]]:
    """(seconds, luma) of every picture, by plain FFmpeg."""
    with av.open(str(path)) as file:
        video = next(s for s in file.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        return [((f.pts or 0) * (f.time_base or 0), luma_of(f)) for f in file.decode(video)]


MILLISECOND = Fraction(1, 1000)
UNIT = Fraction(1, 90000)
EVEN_TIMESCALE = {"video_track_timescale": "90000", "movie_timescale": "90000"}
VFR = [0, 901, 5000, 5100, 9999, 20000, 20090, 31000, 31500, 60000]
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("a.mp4", {}),
    "b-frames": ("a.mp4", {"b_frames": 2}),
    "fragmented": ("a.mp4", {"mux": {"movflags": "frag_keyframe+empty_moov"}}),
    "vfr": ("a.mp4", {"pts": VFR, "time_base": UNIT, "frames": 10, "mux": EVEN_TIMESCALE}),
    "vfr mkv": ("a.mkv", {"pts": [0, 7, 40, 41, 900], "time_base": MILLISECOND, "frames": 5}),
    "late": (
        "a.mp4",
        {"pts": [12345 + 3003 * n for n in range(9)], "time_base": UNIT, "frames": 9, "mux": EVEN_TIMESCALE},
    ),
    "ts": ("a.ts", {"b_frames": 2}),
    "ts, hours in": (
        "a.ts",
        {"pts": [8_000_000_000 + 3600 * n for n in range(9)], "time_base": UNIT, "frames": 9,
         "mux": {"mpegts_copyts": "1"}},
    ),
    "fine time base": (
        "a.mov",
        {"pts": [588_000 * n + n * n for n in range(9)], "time_base": Fraction(1, 14112000), "frames": 9,
         "mux": {"video_track_timescale": "14112000"}},
    ),
    "ntsc": ("a.mov", {"rate": Fraction(30000, 1001), "mux": {"video_track_timescale": "30000"}}),
    "one frame": ("a.mp4", {"frames": 1}),
    "two frames, mkv": ("a.mkv", {"frames": 2}),
    "10 bit": ("a.mkv", {"pix_fmt": "yuv420p10le"}),
    "2×2": ("a.mkv", {"codec": "ffv1", "width": 2, "height": 2, "frames": 4}),
    "35×21": ("a.mkv", {"codec": "ffv1", "width": 35, "height": 21, "frames": 4}),
    "interlaced": ("a.mov", {"interlaced": True, "fields": "bff", "frames": 6}),
    "raw": ("a.h264", {"format": "h264", "frames": 6}),
    "avi": ("a.avi", {"codec": "mpeg4", "frames": 6}),
}  # fmt: skip


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("settings", [QUICK, FFV1, PRORES], ids=lambda s: s.codec)
def test_every_picture_at_its_time(tmp_path: Path, kind: str, settings: EncoderSettings) -> None:
    name, video = SOURCES[kind]
    reel = Reel(write(tmp_path / name, Video(frames=12), **video), settings, parts=1 if video.get("frames") == 1 else 2)
    made = reel.assemble()
    pictures = decoded(reel.output)
    assert made.frames == len(pictures) == len(reel.pts)
    tolerance = MILLISECOND / 2 if reel.container.milliseconds else 0
    assert all(abs(at - wanted) <= tolerance for (at, _), wanted in zip(pictures, reel.times, strict=True))
    for (_, luma), pts in zip(pictures, reel.pts, strict=True):
        if settings is FFV1:
            np.testing.assert_array_equal(luma, reel.luma(pts))
        elif min(luma.shape) > 20 and settings is QUICK:
            difference = luma.astype(float) - reel.spec.luma.apply(reel.luma(pts))
            assert np.abs(difference).mean() < 24 << (reel.spec.bit_depth - 8)  # other noise would give 85
    assert made.sha256 == hashlib.sha256(reel.output.read_bytes()).hexdigest()
    assert [p.name for p in reel.output.parent.iterdir()] == [reel.output.name]


@pytest.mark.parametrize("settings", [QUICK, FFV1], ids=lambda s: s.codec)
def test_shape_tags_and_fields(tmp_path: Path, settings: EncoderSettings) -> None:
    tags = {"colorspace": 5, "color_range": 2, "color_trc": 6, "color_primaries": 5}
    path = write(tmp_path / "a.mkv", frames=4, sar=Fraction(16, 15), rotation=90, tags=tags, interlaced=True)
    reel = Reel(path, settings)
    reel.assemble()
    with av.open(str(reel.output)) as file:
        stream = file.streams.video[0]
        frame = next(file.decode(stream))
        assert stream.sample_aspect_ratio == Fraction(16, 15)
        assert frame.rotation % 360 == 90
        assert frame.interlaced_frame
        codes = stream.codec_context.color_range, stream.codec_context.colorspace, stream.codec_context.color_trc
        assert codes == (2, 5, 6)
        assert stream.codec_context.color_primaries == 5


@pytest.mark.parametrize("settings", [QUICK, FFV1, PRORES], ids=lambda s: s.codec)
@pytest.mark.parametrize("rotation", [0, 270])
def test_what_players_mirror_they_mirror(tmp_path: Path, rotation: int, settings: EncoderSettings) -> None:
    reel = Reel(write(tmp_path / "a.mp4", frames=4, rotation=rotation, mirrored=True), settings)
    reel.assemble()
    matrices = []
    for path in (tmp_path / "a.mp4", reel.output):
        with av.open(str(path)) as file:
            matrices.append(side_data(next(file.decode(video=0)), "DISPLAYMATRIX"))
    assert matrices[0] == matrices[1] is not None


def test_mp4_with_sound_text_chapters_and_cover(tmp_path: Path) -> None:
    path = rich_source(
        tmp_path / "a.mp4", audio=("aac", "ac3"), subtitles=("mov_text",), cover=True, chapters=True, timecode=True
    )
    reel = Reel(path)
    made = reel.assemble()
    before, after = contents(path), contents(reel.output)
    assert list(before) == list(after)
    for name in before:
        if "h264" not in name:
            assert [p for p in after[name] if p[1] != PAUSE] == [p for p in before[name] if p[1] != PAUSE], name
    with av.open(str(path)) as source, av.open(str(reel.output)) as output:
        assert [c["metadata"]["title"] for c in output.chapters()] == ["one", "two"]
        assert [c["start"] * (c["time_base"] or 0) for c in output.chapters()] == [0, Fraction(2, 5)]
        assert output.metadata["title"] == "A reel"
        assert output.metadata["comment"].startswith("as found\n")
        assert all(f"{k}: {v}" in output.metadata["comment"] for k, v in PROVENANCE.items())
        assert output.streams.video[0].metadata["timecode"] == "10:20:30:00"
        assert [s.type for s in output.streams] == [s.type for s in source.streams]
    assert not made.warnings


PAUSE = hashlib.md5(b"\0\0").hexdigest()


def test_mkv_with_text_font_cover_and_chapters(tmp_path: Path) -> None:
    path = rich_source(
        tmp_path / "a.mkv",
        audio=("aac", "pcm_s16le"),
        subtitles=("subrip", "ass"),
        cover=True,
        font=True,
        chapters=True,
    )
    reel = Reel(path)
    reel.assemble()
    before, after = contents(path), contents(reel.output)
    assert list(before) == list(after)
    for name in before:
        if "h264" not in name:
            assert after[name] == before[name], name
    with av.open(str(reel.output)) as output:
        font = output.streams.attachments[0]
        assert (font.data, font.metadata["filename"]) == (FONT, "letters.ttf")
        assert [c["metadata"]["title"] for c in output.chapters()] == ["one", "two"]
        tags = {k.lower(): v for k, v in output.metadata.items()}
        assert PROVENANCE.items() <= tags.items()
        assert (tags["title"], tags["comment"]) == ("A reel", "as found")
    assert after["video mjpeg  1024"] == [(None, hashlib.md5(jpeg()).hexdigest())]


@pytest.mark.parametrize(("suffix", "settings"), [("mp4", QUICK), ("mkv", QUICK), ("ts", QUICK), ("mkv", FFV1)])
def test_the_same_pictures_give_the_same_file(tmp_path: Path, suffix: str, settings: EncoderSettings) -> None:
    """Matroska's identifiers are not drawn at random: a run that was killed and resumed ends with the same bytes."""
    reel = Reel(rich_source(tmp_path / f"a.{suffix}", cover=suffix != "ts", chapters=True), settings)
    files = []
    for _ in range(2):
        reel.assemble()
        files.append(reel.output.read_bytes())
        reel.output.unlink()
    assert files[0] == files[1]


def test_sound_keeps_its_distance_to_the_picture_to_the_sample(tmp_path: Path) -> None:
    path = rich_source(
        tmp_path / "a.mp4", start=Fraction(7, 5), audio_start=Fraction(1001, 900),
        mux={"movie_timescale": "441000", "video_track_timescale": "90000"},
    )  # fmt: skip
    assert contents(path)["audio aac fra 1"][0][0] == Fraction(int(Fraction(1001, 900) * 44100) - 1024, 44100)
    reel = Reel(path)
    reel.assemble()
    assert contents(reel.output)["audio aac fra 1"] == contents(path)["audio aac fra 1"]
    assert decoded(reel.output)[0][0] == Fraction(7, 5)


def test_priming_samples_are_still_cut_away(tmp_path: Path) -> None:
    path = rich_source(tmp_path / "a.mp4")
    reel = Reel(path)
    reel.assemble()
    sounds = []
    for name in (path, reel.output):
        with av.open(str(name)) as file:
            sounds.append(np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)]))
            assert file.streams.audio[0].start_time == 0
    np.testing.assert_array_equal(*sounds)


def test_edit_lists_are_as_if_applied(tmp_path: Path) -> None:
    whole = rich_source(tmp_path / "whole.mp4")
    trimmed = tmp_path / "a.mp4"
    shift = Fraction(2, 5)  # an edit list that begins 0.4 s into the media
    with av.open(str(whole)) as source, av.open(
        str(trimmed), "w", container_options={"avoid_negative_ts": "disabled"}
    ) as out:  # fmt: skip
        streams = [out.add_stream_from_template(s, opaque=True) for s in source.streams]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                packet.pts -= int(shift / packet.time_base)
                packet.dts -= int(shift / packet.time_base)
                out.mux(packet)
    reel = Reel(trimmed)
    assert reel.info.frames == 15
    assert reel.info.start_pts == 0
    reel.assemble()
    assert [at for at, _ in decoded(reel.output)] == [Fraction(n, 25) for n in range(15)]
    assert contents(reel.output)["audio aac und 1"] == contents(trimmed)["audio aac und 1"]


def test_pcm_from_avi_is_all_there(tmp_path: Path) -> None:
    path = rich_source(tmp_path / "a.avi", audio=("pcm_s16le",))
    for settings, extension in ((QUICK, ".mkv"), (PRORES, ".mov")):
        reel = Reel(path, settings)
        reel.assemble()
        assert reel.output.suffix == extension
        samples = []
        for name in (path, reel.output):
            with av.open(str(name)) as file:
                samples.append(b"".join(bytes(p) for p in file.demux(audio=0)))
        assert samples[0] == samples[1]


def test_a_damaged_segment_is_found_and_nothing_appears(tmp_path: Path) -> None:
    reel = Reel(write(tmp_path / "a.mp4", frames=12))
    reel.output.parent.mkdir()
    path = Path(reel.segments[1].path)
    whole = path.read_bytes()
    for damaged in (whole[:60] + bytes([whole[60] ^ 4]) + whole[61:], whole[:-30], b""):
        path.write_bytes(damaged)
        with pytest.raises(VerificationError, match=r"a\.mp4\.1\.seg: damaged segment file") as caught:
            reel.assemble()
        assert "\n" not in str(caught.value)
        assert not list(reel.output.parent.iterdir())
    path.write_bytes(whole)
    assert reel.assemble().frames == 12


def test_segments_that_do_not_fit_together(tmp_path: Path) -> None:
    reel = Reel(write(tmp_path / "a.mp4", frames=12))
    first, second, third = reel.segments
    reel.segments = [first, third, second]
    with pytest.raises(VerificationError, match="overlaps"):
        reel.assemble()
    reel.segments = [first, first, third]
    with pytest.raises(VerificationError, match="overlaps"):
        reel.assemble()
    other = resolve_encoder(reel.info, EncoderSettings("h264", 10.0, "medium"))
    stranger = write_segment(other, tmp_path / "b.seg", second.pts, reel.luma)
    reel.segments = [first, stranger, third]
    with pytest.raises(VerificationError, match="other settings"):
        reel.assemble()
    reel.segments = []
    with pytest.raises(VerificationError, match="no coded pictures"):
        reel.assemble()
    assert not reel.output.exists()


def test_a_crash_or_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reel = Reel(write(tmp_path / "a.mkv", frames=40, width=160, height=120), FFV1)
    with files_up_to(200_000), pytest.raises(StorageError, match="cannot be written"):
        reel.assemble()
    assert not list(reel.output.parent.iterdir())
    reel.output.write_bytes(b"the one before")
    monkeypatch.setattr(assembly, "find_problems", lambda *_: ["a stream is gone"])
    with pytest.raises(VerificationError, match="a stream is gone"):
        reel.assemble()
    assert [p.read_bytes() for p in reel.output.parent.iterdir()] == [b"the one before"]
    monkeypatch.undo()
    reel.assemble()
    assert [p.name for p in reel.output.parent.iterdir()] == ["a.mkv"]


def test_a_source_that_is_gone_is_one_line(tmp_path: Path) -> None:
    reel = Reel(write(tmp_path / "a.mp4", frames=6))
    Path(reel.source.url).unlink()
    with pytest.raises(ReelcolorError, match="no such file"):
        reel.assemble()
    assert not list(reel.output.parent.iterdir())


def test_decoding_times() -> None:
    assert list(decoding_times([0, 40, 80, 120], 2, MILLISECOND)) == [-80, -40, 0, 40]
    assert list(decoding_times([5, 9, 10], 0, MILLISECOND)) == [5, 9, 10]
    assert list(decoding_times([7], 2, Fraction(1, 25))) == [5, 6]  # only as many as there are pictures are used
    assert list(decoding_times([100, 110], 1, UNIT)) == [10, 100]  # at least a millisecond ahead


def test_timestamps_of_other_streams_are_repaired_and_counted() -> None:
    opened = SimpleNamespace(format=SimpleNamespace(name="matroska,webm"))
    clock = _Clock(SimpleNamespace(type="audio", time_base=MILLISECOND, container=opened), strict=True)
    times = []
    for pts, dts in ((0, 0), (None, None), (40, 40), (30, 30), (None, 80), (100, None)):
        packet = SimpleNamespace(pts=pts, dts=dts, duration=20, time_base=MILLISECOND)
        clock.set(packet, MILLISECOND)
        times.append((packet.pts, packet.dts))
    assert times == [(0, 0), (20, 20), (40, 40), (41, 41), (80, 80), (100, 100)]
    assert clock.repaired == 3
    video = _Clock(SimpleNamespace(type="video", time_base=MILLISECOND, container=opened), strict=True)
    packets = [
        SimpleNamespace(pts=p, dts=d, duration=40, time_base=MILLISECOND) for p, d in ((0, None), (160, None), (80, 0))
    ]
    for packet in packets:
        video.set(packet, MILLISECOND)
    assert [p.pts for p in packets] == [0, 160, 80]
    assert [p.dts for p in packets] == [-640, -639, 0]
    assert video.repaired == 0


def test_sound_of_old_avi_files_keeps_its_windows_header(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = out.add_stream("adpcm_ms", rate=44100, layout="mono")
        sound.codec_context.open()
        size = sound.codec_context.frame_size
        for n in range(12):
            picture = av.VideoFrame(64, 48, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([20 * n]) * plane.buffer_size)
            picture.pts = n
            out.mux(video.encode(picture))
            wave = (9000 * np.sin(np.arange(n * size, (n + 1) * size) / 20)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None], format="s16p", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, n * size, Fraction(1, 44100)
            out.mux(sound.encode(frame))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    reel = Reel(path)
    reel.assemble()
    heard = []
    for name in (path, reel.output):
        with av.open(str(name)) as file:
            assert file.streams.audio[0].codec_context.name == "adpcm_ms"
            heard.append(np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)]))
    np.testing.assert_array_equal(*heard)


def broadcast(path: Path, payloads: dict[str, bytes]) -> Path:
    """Twelve pictures, each with a packet of teletext, for which there is no decoder, or of data."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        others = [out.add_data_stream(kind) if kind == "klv" else out.add_mux_stream(kind) for kind in payloads]
        for n in range(12):
            picture = av.VideoFrame(64, 48, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([20 * n]) * plane.buffer_size)
            picture.pts = n
            out.mux(video.encode(picture))
            for stream, head in zip(others, payloads.values(), strict=True):
                packet = av.Packet(head + bytes([n]) * (46 - len(head)))
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, n * 3600, n * 3600, UNIT
                out.mux(packet)
        out.mux(video.encode(None))
    return path


TELETEXT, KLV = {"dvb_teletext": b"\x10"}, {"klv": b"\x06\x0e\x2b\x34"}


def others(path: Path) -> list[tuple[str, bytes]]:
    """(type of stream, payload) of each packet that is no picture, sorted."""
    with av.open(str(path)) as file:
        return sorted((p.stream.type, bytes(p)) for p in file.demux() if p.size and p.stream.type != "video")


def test_streams_without_a_decoder_and_data_are_copied(tmp_path: Path) -> None:
    path = broadcast(tmp_path / "a.ts", TELETEXT | KLV)
    reel = Reel(path)
    reel.assemble()
    given = others(path)
    assert [kind for kind, _ in given] == ["data"] * 12 + ["subtitle"] * 12
    assert others(reel.output) == given


def test_data_that_no_container_holds_is_left_out_and_said(tmp_path: Path) -> None:
    path = broadcast(tmp_path / "a.ts", KLV)
    assert not any("(klv)" in note for note in Reel(path).container.notes)
    reel = Reel(path, FFV1)
    assert "data stream 1 (klv) is left out: no container for this reel holds it" in reel.container.notes
    reel.assemble()
    assert (len(others(path)), others(reel.output)) == (12, [])
    proof = verify_reel(reel.source, reel.output)
    assert "data stream 1 (klv) is not in it" in proof.warnings
    assert not any("stream" in problem for problem in proof.problems)


def test_what_begins_before_zero_begins_later_in_matroska(tmp_path: Path) -> None:
    """A broadcast whose clock runs over at its beginning, as FFmpeg reads it; MPEG-TS itself can say so."""
    path = rich_source(tmp_path / "a.ts", start=Fraction(95442), mux={"mpegts_copyts": "1"})  # 2^33 ticks are 95443.7 s
    for settings in (QUICK, FFV1):
        reel = Reel(path, settings)
        assert reel.times[0] < -1
        made = reel.assemble()
        shift = reel.container.shift
        assert (shift > 1) == (settings is FFV1) == any("s later: Matroska has no" in n for n in reel.container.notes)
        tolerance = MILLISECOND if reel.container.milliseconds else 0
        assert made.frames == 25
        for (at, _), wanted in zip(decoded(reel.output), reel.times, strict=True):
            assert abs(at - shift - wanted) <= tolerance
        before, after = (contents(p) for p in (path, reel.output))
        sounds = [next(v for k, v in found.items() if "audio" in k) for found in (before, after)]
        for (was, _), (at, _) in zip(*sounds, strict=True):
            assert abs((at or 0) - shift - (was or 0)) <= tolerance
        assert not [p for p in verify_reel(reel.source, reel.output).problems if "dB" not in p and "luma" not in p]


def test_recordings_put_end_to_end_stay_in_step(tmp_path: Path) -> None:
    one = rich_source(tmp_path / "one.ts", frames=50, start=Fraction(10), mux={"mpegts_copyts": "1"})
    path = tmp_path / "a.ts"
    path.write_bytes(one.read_bytes() * 3)
    for settings in (QUICK, FFV1):
        reel = Reel(path, settings)
        assert len(reel.pts) == 150
        made = reel.assemble()
        assert not made.warnings
        tolerance = MILLISECOND if reel.container.milliseconds else 0
        before = [p for name, found in contents(path).items() if "audio" in name for p in found]
        after = [p for name, found in contents(reel.output).items() if "audio" in name for p in found]
        assert len(before) == len(after)
        third = len(before) // 3  # each recording is two seconds long, and its sound keeps its distance to the picture
        for i, ((was, _), (at, _)) in enumerate(zip(before, after, strict=True)):
            assert abs(at - was - 2 * min(i // third, 2)) <= tolerance


def test_a_recording_of_an_earlier_clock_follows_at_once(tmp_path: Path) -> None:
    """FFmpeg takes a clock that is minutes behind for its next round, 26.5 hours later."""
    parts = [
        rich_source(tmp_path / f"{start}.ts", frames=50, start=Fraction(start), mux={"mpegts_copyts": "1"})
        for start in (1000, 10, 1000)
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reel = Reel(path)
    assert reel.info.warnings == ("its timestamps start over (2×); pictures go on from the ones before",)
    assert reel.info.seconds == 6
    assert not reel.assemble().warnings
    assert {later - earlier for (earlier, _), (later, _) in pairwise(decoded(reel.output))} == {Fraction(1, 25)}
    (sound,) = [found for name, found in contents(reel.output).items() if "audio" in name]
    begins, ends = sound[0][0], sound[-1][0]
    assert 5.8 < ends - begins < 6.1


@pytest.mark.parametrize(("mute", "begins"), [(0, [2, 4]), (1, [0, 4]), (2, [0, 2])])
def test_sound_that_a_whole_recording_lacks_stays_in_step(tmp_path: Path, mute: int, begins: list[int]) -> None:
    """Its timestamps alone do not show it: from 1002 to 5000 seconds is a long pause to them."""
    parts = [
        rich_source(
            tmp_path / f"{n}.ts",
            frames=50,
            start=Fraction(start),
            audio=() if n == mute else ("aac",),
            mux={"mpegts_copyts": "1"},
        )
        for n, start in enumerate((1000, 10, 5000))
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    reel = Reel(path)
    reel.assemble()
    film = [at for at, _ in decoded(reel.output)]
    (sound,) = [found for name, found in contents(reel.output).items() if "audio" in name]
    recordings = [[at for at, _ in sound[: len(sound) // 2]], [at for at, _ in sound[len(sound) // 2 :]]]
    for times, begin in zip(recordings, begins, strict=True):
        assert begin - 0.1 < times[0] - film[0] < begin + 0.1
        assert times[-1] - times[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("settings", [QUICK, FFV1])
def test_sound_that_lost_its_headers_stays_out_where_it_must(tmp_path: Path, settings: EncoderSettings) -> None:
    whole = rich_source(tmp_path / "whole.ts", frames=50).read_bytes()
    packets = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    sound = [n for n, p in enumerate(packets) if (p[1] & 31) << 8 | p[2] == 257 and not p[1] & 64]
    lost = set(sound[len(sound) // 2 :: 4])
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(p for n, p in enumerate(packets) if n not in lost))
    with av.open(str(path)) as container:
        coded = [bytes(p) for p in container.demux(audio=0) if p.size]
    damaged = [data for data in coded if data[:2] not in (b"\xff\xf1", b"\xff\xf9")]
    assert len(damaged) > 1
    reel = Reel(path, settings)
    made = reel.assemble()
    left_out = f"{len(damaged)} damaged packets of audio stream 1 (aac) left out: only MPEG-TS holds them"
    kept = reel.container.format == "mpegts"
    assert (left_out in made.warnings) != kept
    with av.open(str(reel.output)) as container:
        assert sum(1 for p in container.demux(audio=0) if p.size) == len(coded) - len(damaged) * (not kept)
    assert not [p for p in verify_reel(reel.source, reel.output).problems if "dB" not in p and "luma" not in p]


@pytest.mark.parametrize("settings", [QUICK, FFV1])
def test_sound_that_is_announced_and_never_comes_is_left_out(tmp_path: Path, settings: EncoderSettings) -> None:
    path = rich_source(tmp_path / "whole.ts", audio=("aac", "ac3"))
    whole = path.read_bytes()
    packets = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    path.write_bytes(b"".join(p for p in packets if (p[1] & 31) << 8 | p[2] != 257))
    reel = Reel(path, settings)
    assert "audio stream 1 (aac) holds nothing; it is left out" in reel.info.warnings
    reel.assemble()
    with av.open(str(reel.output)) as container:
        assert [s.codec_context.name for s in container.streams][1:] == ["ac3"]
    assert not [p for p in verify_reel(reel.source, reel.output).problems if "dB" not in p and "luma" not in p]


def test_tags_of_any_name_are_kept_where_mp4_can(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", container_options={"movflags": "use_metadata_tags"}) as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        out.metadata.update({"title": "A reel", "com.maker.camera": "No. 5"})
        picture = av.VideoFrame(64, 48, "yuv420p")
        picture.pts = 0
        out.mux([*video.encode(picture), *video.encode(None)])
    reel = Reel(path, parts=1)
    reel.assemble()
    with av.open(str(reel.output)) as file:
        assert PROVENANCE.items() | {("title", "A reel"), ("com.maker.camera", "No. 5")} <= file.metadata.items()


def test_subtitles_of_a_blu_ray_come_in_one_piece_each(tmp_path: Path) -> None:
    """A PGS subtitle is several packets in MPEG-TS, and one in Matroska."""
    parts = [bytes([kind]) + len(data).to_bytes(2, "big") + data for kind, data in (
        (0x16, bytes.fromhex("0060004010 0001 80 00 00 01 0000 00 00 000a 000a")),
        (0x17, bytes.fromhex("01 00 000a000a 00080004")), (0x14, bytes.fromhex("0000 01eb8080ff")),
        (0x15, bytes.fromhex("0000 00 c0 000008 0008 0004 01 00000000")[:15]), (0x80, b""),
    )]  # fmt: skip
    path = tmp_path / "a.m2ts"
    with av.open(str(path), "w", format="mpegts", container_options={"mpegts_m2ts_mode": "1"}) as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        words = out.add_mux_stream("hdmv_pgs_subtitle")
        for n in range(12):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts = n
            out.mux(video.encode(picture))
            for i, payload in enumerate(parts if n % 4 == 2 else ()):
                packet = av.Packet(payload)
                packet.stream, packet.time_base, packet.pts, packet.dts = words, UNIT, n * 3600 + i, n * 3600 + i
                out.mux(packet)
        out.mux(video.encode(None))
    assert len(next(v for k, v in contents(path).items() if "pgs" in k)) == 3 * len(parts)
    for settings in (QUICK, FFV1):
        reel = Reel(path, settings)
        reel.assemble()
        found = next(v for k, v in contents(reel.output).items() if "pgs" in k)
        if settings is FFV1:
            assert [digest for _, digest in found] == [hashlib.md5(b"".join(parts)).hexdigest()] * 3
            assert [at for at, _ in found] == [at for at, _ in decoded(reel.output) if at in dict(found)]
        else:
            assert [digest for _, digest in found] == [hashlib.md5(part).hexdigest() for part in parts] * 3
        assert not [p for p in verify_reel(reel.source, reel.output).problems if "dB" not in p and "luma" not in p]
