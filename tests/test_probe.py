"""What probing says, against how the files were made."""

import re
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Video, add_video, encode, frame, ticks, write, write_sound, write_with_company
from PIL import Image

from pipeline.demux import NO_PTS
from pipeline.errors import InputError
from pipeline.frames import Source, StreamInfo
from pipeline.probe import Chapter, OtherStream, chapters, open_media, other_streams, probe
from pipeline.timing import continued, frame_rate
from pipeline.written import open_written


def probed(path: Path, fps: Fraction | None = None, **changes: Any) -> StreamInfo:
    return probe(Source(str(write(path, **changes))), fps)


def test_the_plain_facts(tmp_path: Path) -> None:
    info = probed(tmp_path / "a.mp4", width=62, height=46, b_frames=2)
    assert (info.container, info.index, info.codec) == ("mov,mp4,m4a,3gp,3g2,mj2", 0, "h264")
    assert (info.width, info.height, info.pix_fmt, info.bit_depth, info.subsampling) == (62, 46, "yuv420p", 8, (1, 1))
    assert (info.time_base, info.fps, info.vfr, info.frames) == (Fraction(1, 12800), 25, False, 30)
    assert (info.start_pts, info.end_pts, info.seconds) == (0, 15360, 1.2)
    assert (info.timestamps, info.sar, info.rotation, info.field_order, info.warnings) == (
        True,
        1,
        0,
        "progressive",
        (),
    )


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "extension", "depth", "subsampling"),
    [
        ("ffv1", "gray", "mkv", 8, None),
        ("ffv1", "gray12le", "mkv", 12, None),
        ("ffv1", "yuv410p", "mkv", 8, (2, 2)),
        ("ffv1", "yuv440p12le", "mkv", 12, (0, 1)),
        ("ffv1", "gbrp10le", "mkv", 10, (0, 0)),
        ("prores_ks", "yuva444p10le", "mov", 12, (0, 0)),  # the decoder gives 4444 at 12 bits
        ("libx265", "yuv444p10le", "mp4", 10, (0, 0)),
        ("mjpeg", "yuvj422p", "avi", 8, (1, 0)),
        ("libsvtav1", "yuv420p10le", "mp4", 10, (1, 1)),
    ],
)
def test_depth_and_subsampling(
    tmp_path: Path, codec: str, pix_fmt: str, extension: str, depth: int, subsampling: tuple[int, int] | None
) -> None:
    info = probed(tmp_path / f"a.{extension}", codec=codec, pix_fmt=pix_fmt, frames=4)
    assert (info.bit_depth, info.subsampling) == (depth, subsampling)
    assert info.codec in (codec, {"prores_ks": "prores", "libx265": "hevc", "libsvtav1": "av1"}.get(codec))


def test_tags_are_taken_over(tmp_path: Path) -> None:
    tags = {"colorspace": 9, "color_range": 2, "color_trc": 16, "color_primaries": 9}
    color = probed(tmp_path / "a.mkv", pix_fmt="yuv420p10le", tags=tags, frames=2).color
    assert (color.matrix, color.matrix_code, color.full_range) == ("bt2020", 9, True)
    assert (color.transfer, color.primaries, color.assumed) == (16, 9, ())


@pytest.mark.parametrize(
    ("video", "matrix", "full"),
    [
        (Video(width=1024, height=576), "bt601", False),
        (Video(width=1280, height=720), "bt709", False),
        (Video("ffv1", "gray"), "bt601", True),
        (Video("libx265", "gray"), "bt601", False),
        (Video("mjpeg", "yuvj420p", 1280, 720), "bt601", True),  # JFIF is BT.601, and FFmpeg tags it so
        (Video("libx264rgb", "rgb24", 1280, 720), "bt709", True),
        (Video("rawvideo", "yuv422p"), "bt601", False),
    ],
)
def test_what_stands_in_for_missing_tags(tmp_path: Path, video: Video, matrix: str, full: bool) -> None:
    color = probed(tmp_path / "a.mkv", video=video, frames=2).color
    assert (color.matrix, color.full_range) == (matrix, full)
    assert ("range" in color.assumed) == (video.codec not in ("mjpeg", "libx265") and video.pix_fmt != "rgb24")
    assert {"transfer", "primaries"} <= set(color.assumed)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(16), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("extension", ["mkv", "mp4", "ts", "flv"])
def test_rounded_timestamps_are_a_constant_rate(tmp_path: Path, rate: Fraction, extension: str) -> None:
    info = probed(tmp_path / f"a.{extension}", rate=rate, frames=40, b_frames=2)
    assert (info.fps, info.vfr) == (rate, False)


@pytest.mark.parametrize("extension", ["mkv", "mp4"])
def test_a_varying_rate(tmp_path: Path, extension: str) -> None:
    pts = ticks([40, 40, 120] * 13)
    info = probed(tmp_path / f"a.{extension}", pts=pts, frames=40, time_base=Fraction(1, 1000))
    assert info.vfr
    assert float(info.fps) == pytest.approx(15)
    assert info.end_pts * info.time_base >= Fraction(2600, 1000)


def test_frame_rate_of_timestamps() -> None:
    ms, frames = Fraction(1, 1000), np.arange(200_000)
    ntsc = np.round(frames * 1001 / 24).astype(np.int64)
    assert frame_rate(ntsc, ms, None) == (Fraction(24000, 1001), False)
    assert frame_rate(frames * 1001 // 24, ms, Fraction(24000, 1001)) == (Fraction(24000, 1001), False)
    assert frame_rate(ntsc * 90, Fraction(1, 90000), None) == (Fraction(24000, 1001), False)
    assert frame_rate(frames * 3, Fraction(1, 43), None) == (Fraction(43, 3), False)
    one_lost = np.delete(frames[:300], 100)
    assert frame_rate(one_lost, Fraction(1, 25), Fraction(25))[1]
    assert frame_rate(np.array([5]), ms, Fraction(18)) == (Fraction(18), False)
    assert frame_rate(np.array([0, 40, 1 << 40]), ms, Fraction(25)) == (Fraction(25), True)


def test_timelines_that_start_over_are_continued() -> None:
    pts = np.array([0, 10, 30, 20, 40, 1, 11, 31, 21, 0, 10])
    dts = np.array([-10, 0, 10, 20, 30, -9, 1, 11, 21, -10, 0])
    unknown = np.full(len(pts), NO_PTS)
    for known in (dts, unknown):
        moved = continued(pts, known, 15, 10, 1000)
        assert moved.tolist() == [0, 10, 30, 20, 40, 50, 60, 80, 70, 90, 100]
        assert continued(pts[:5], known[:5], 15, 10, 1000).tolist() == pts[:5].tolist()
        ahead = np.where(np.arange(len(pts)) < 5, pts, pts + 2000)
        assert continued(ahead, known, 15, 10, 1000).tolist() == moved.tolist()
        assert continued(ahead, known, 15, 10, 3000)[5] == 2001


def test_a_long_gap_that_b_frames_are_coded_across_is_no_new_timeline(tmp_path: Path) -> None:
    pts = ticks([40] * 16 + [300_000] + [40] * 42)
    options = {"x264-params": "bframes=3:b-adapt=0:keyint=10:min-keyint=10:scenecut=0:threads=1"}
    path = write(
        tmp_path / "a.mkv", frames=60, pts=pts, time_base=Fraction(1, 1000), b_frames=3, gop=10, options=options
    )
    with av.open(str(path)) as container:
        coded = [p.pts for p in container.demux(video=0) if p.size]
    assert min(np.diff(coded)) < -300_000, "the gap is inside a group of pictures"
    info = probe(Source(str(path)))
    assert info.warnings == ()
    assert (info.start_pts, info.end_pts) == (0, pts[-1] + 40)


def test_shape_rotation_and_fields(tmp_path: Path) -> None:
    assert probed(tmp_path / "sar.mp4", sar=Fraction(64, 45), frames=2).sar == Fraction(64, 45)
    for degrees in (90, 180, 270):
        assert probed(tmp_path / f"{degrees}.mov", rotation=degrees, frames=2).rotation == degrees
    for order in ("tff", "bff"):
        assert probed(tmp_path / f"{order}.mp4", interlaced=True, fields=order, frames=4).field_order == order
    dv = probed(tmp_path / "a.dv", video=Video("dvvideo", "yuv411p", 720, 480, 4, rate=Fraction(30000, 1001)))
    assert (dv.field_order, dv.fps, dv.warnings) == ("bff", Fraction(30000, 1001), ())


def test_fields_that_hevc_codes_as_pictures_are_not_taken_for_frames(tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none:pools=1:interlace=tff"}
    info = probed(tmp_path / "a.mkv", codec="libx265", frames=6, options=options)
    assert (info.field_order, info.height, info.frames) == ("progressive", 48, 6)
    assert info.warnings == ("its pictures are single fields; they stay apart, and are not marked as fields",)


@pytest.mark.parametrize(
    ("matrix", "degrees", "mirrored", "words"),  # (a, b, c, d) of x' = ax + cy, y' = bx + dy, with y downward
    [
        ((-1, 0, 0, 1), 0, True, None),
        ((1, 0, 0, -1), 180, True, None),  # the bottom edge on top
        ((0, 1, 1, 0), 270, True, None),  # the left edge on top
        ((0, -1, -1, 0), 90, True, None),  # the right edge on top
        ((0, 2, -2, 0), 270, False, None),
        ((1, 0.5, -0.5, 1), 0, False, "display rotation of 333° is taken as 0°"),
        ((0, 0, 0, 0), 0, False, "leaves nothing of the picture"),
        ((1, 1, 1, 1), 0, False, "leaves nothing of the picture"),
    ],
)
def test_display_matrices_of_every_kind(
    tmp_path: Path, matrix: tuple[float, ...], degrees: int, mirrored: bool, words: str | None
) -> None:
    path = write(tmp_path / "a.mov", frames=2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    info = probe(Source(str(path)))
    assert (info.rotation, info.mirrored) == (degrees, mirrored)
    assert [words in w for w in info.warnings if words] == [True] * bool(words)


def test_what_pictures_carry_beside_luma_and_chroma_is_said(tmp_path: Path) -> None:
    clear = probed(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuva420p", frames=2)
    assert clear.warnings == ("its alpha channel (transparency) is not carried over",)
    primaries = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    hdr = {"x265-params": f"log-level=none:pools=1:hdr10=1:max-cll=1000,400:master-display={primaries}"}
    bright = probed(tmp_path / "b.mkv", codec="libx265", pix_fmt="yuv420p10le", frames=2, options=hdr)
    assert bright.warnings == ("its mastering display, content light level are not carried over",)
    assert probed(tmp_path / "c.mkv", codec="ffv1", pix_fmt="gray10le", frames=2).warnings == ()


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "mjpeg"), ("a.mxf", "mpeg2video")])
def test_pictures_that_end_before_the_headers_say_so_are_told_of(tmp_path: Path, name: str, codec: str) -> None:
    """FFmpeg reads what is there, and is silent."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = write(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=50, gop=5)
    assert "headers" not in str(probe(Source(str(whole))).warnings)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    (said,) = [words for words in probe(Source(str(whole))).warnings if "headers" in words]
    assert re.fullmatch(
        r"its pictures end after [01]\.\d\d s of the \d\.\d\d s that .*; the rest is missing or damaged", said
    )


def test_only_shown_pictures_count(tmp_path: Path) -> None:
    info = probed(tmp_path / "a.mp4", pts=range(-14, 16), b_frames=2, mux={"avoid_negative_ts": "disabled"})
    assert (info.frames, info.start_pts, info.seconds) == (16, 0, 16 / 25)
    late = probed(tmp_path / "b.mkv", pts=range(50, 80))
    assert (late.start_pts, late.end_pts) == (2000, 3200)


def test_raw_streams_take_the_rate_they_are_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h264", b_frames=2)
    for fps, expected in ((None, Fraction(25)), (Fraction(16), Fraction(16))):
        info = probe(Source(str(path)), fps)
        assert (info.timestamps, info.fps, info.time_base, info.end_pts) == (False, expected, 1 / expected, 30)
    assert probed(tmp_path / "a.mp4", fps=Fraction(16)).fps == 25


def test_company(tmp_path: Path) -> None:
    source = Source(str(write_with_company(tmp_path / "a.mkv")))
    assert other_streams(source) == (
        OtherStream(1, "audio", "pcm_s16le", "eng"),
        OtherStream(2, "audio", "pcm_s16le", "deu"),
        OtherStream(3, "subtitle", "subrip", "fra", "Sous-titres"),
        OtherStream(4, "attachment", "application/x-truetype-font", "", "font.ttf"),
    )
    assert chapters(source) == (Chapter(0, 0.6, "Reel one"), Chapter(0.6, 1.2, "Reel two"))
    assert probe(source).index == 0


def test_cover_pictures_are_not_the_film(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    cover, film = Video("mjpeg", "yuvj420p", 640, 480), Video()
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 640, 480, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, film.pix_fmt
        for target, video, count in ((picture, cover, 1), (stream, film, 10)):
            for n in range(count):
                shown = frame(n, video)
                shown.pts = n
                container.mux(target.encode(shown))
            container.mux(target.encode(None))
    source = Source(str(path))
    assert (probe(source).codec, probe(source).frames) == ("h264", 10)
    assert [(s.codec, s.attached_picture) for s in other_streams(source)] == [("mjpeg", True)]


def two_films(path: Path, second: Video, default: tuple[bool, bool], frames: tuple[int, int] = (6, 6)) -> Path:
    """A file with two video streams: 64×48, and `second`."""
    films = Video(), second
    with av.open(str(path), "w") as container:
        streams = [add_video(container, film) for film in films]
        for stream, wanted in zip(streams, default, strict=True):
            stream.disposition = av.stream.Disposition.default if wanted else av.stream.Disposition(0)
        for stream, film, count in zip(streams, films, frames, strict=True):
            for n in range(count):
                container.mux(encode(stream, film, n))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "default", "chosen"),
    [
        ("a.mp4", (True, True), 0),
        ("a.mkv", (False, True), 1),
        ("a.mkv", (False, False), 0),
        ("a.ts", (False, False), 0),
    ],
)
def test_of_several_films_the_one_that_players_show(
    tmp_path: Path, name: str, default: tuple[bool, bool], chosen: int
) -> None:
    source = Source(str(two_films(tmp_path / name, Video(width=320, height=240, options={"crf": "1"}), default)))
    info = probe(source)
    assert info.index == chosen
    (warning,) = info.warnings
    sizes = ["0 (h264, 64×48)", "1 (h264, 320×240)"]
    assert f"of its 2 video streams only {sizes[chosen]} is coloured" in warning
    assert f"copied as it is: {sizes[1 - chosen]};" in warning
    assert f"-map 0:{1 - chosen} " in warning


def test_one_picture_is_no_film_though_it_comes_first(tmp_path: Path) -> None:
    path = two_films(tmp_path / "a.mp4", Video(width=32, height=32), (True, True), frames=(1, 6))
    info = probe(Source(str(path)))
    assert (info.index, info.warnings) == (1, ())


def test_what_cannot_be_coloured_is_told_in_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4").read_bytes()
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb"}
    keys["encryption_kid"] = "a7e61c373e219033c21091fa607bf3b8"
    write(tmp_path / "locked.mp4", mux=keys)
    write_sound(tmp_path / "sound.wav")
    content = {
        "empty.mp4": b"",
        "cut off.mp4": whole[: len(whole) // 2],
        "text.mp4": b"not a film\n" * 99,
        "text.txt": b"not a film\n" * 99,
        "noise.mkv": np.random.default_rng(1).bytes(5000),
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    expected = {
        "nothing.mp4": "no such file",
        "": "is a folder, expected a file",
        "empty.mp4": r"is empty \(0 bytes\)",
        "cut off.mp4": r"its index \(moov\) is missing",
        "text.mp4": "is not a video that FFmpeg knows",
        "text.txt": "is a text file",
        "noise.mkv": "is not a video that FFmpeg knows",
        "sound.wav": r"has no video stream \(found audio\)",
        "locked.mp4": "is encrypted",
    }
    for name, message in expected.items():
        with pytest.raises(InputError, match=message) as caught:
            probe(Source(str(tmp_path / name)))
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_film_of_which_nothing_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray", frames=3)
    with av.open(str(path)) as given, av.open(str(tmp_path / "b.mkv"), "w") as spoilt:
        stream = given.streams.video[0]
        copy = spoilt.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.size:
                noise = av.Packet(b"\xff" * packet.size)
                noise.pts, noise.dts, noise.time_base, noise.stream = packet.pts, packet.dts, packet.time_base, copy
                spoilt.mux(noise)
    with pytest.raises(InputError, match="none of its ffv1 pictures can be decoded"):
        probe(Source(str(tmp_path / "b.mkv")))


def test_names_that_look_like_protocols(tmp_path: Path) -> None:
    for name in ("http:x.mp4", "a%d.mp4", "-v.mp4", "concat:a|b.mp4"):
        plain = write(tmp_path / "plain.mp4", frames=2)
        plain.rename(tmp_path / name)
        assert probe(Source(str(tmp_path / name))).frames == 2


LISTS = {
    "concat": "ffconcat version 1.0\nfile film.ts\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfilm.ts\n#EXT-X-ENDLIST\n",
    "dash": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>film.ts</BaseURL></Period></MPD>',
    "vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n",
}


@pytest.mark.parametrize(
    ("kind", "name"), [("concat", "a.mp4"), ("hls", "a.m3u8"), ("dash", "a.mpd"), ("vobsub", "a.idx")]
)
def test_a_playlist_is_refused_and_nothing_that_it_names_is_read(tmp_path: Path, kind: str, name: str) -> None:
    write(tmp_path / "film.ts", frames=3)
    path = tmp_path / name
    path.write_text(LISTS[kind])
    with pytest.raises(InputError, match=r"a\.\w+: is a playlist, .* pass the film's own files"):
        probe(Source(str(path)))
    with pytest.raises(av.FFmpegError), open_written(path):
        pass


@pytest.mark.parametrize("name", ["s%d.tga", "s*.tga"])
def test_a_name_with_a_pattern_is_one_image(tmp_path: Path, name: str) -> None:
    for n, file in enumerate((name, "s0.tga", "s1.tga")):
        Image.new("RGB", (32 + 16 * n, 8)).save(tmp_path / file, "TGA")
    info = probe(Source(str(tmp_path / name)))
    assert (info.frames, info.width) == (1, 32)


def test_a_url_is_read_through_fsspec(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=5)
    assert probe(Source(f"file://{path}")).frames == 5
    import fsspec

    with fsspec.open("memory://films/a.mp4", "wb") as f:
        f.write(path.read_bytes())
    source = Source("memory://films/a.mp4")
    assert probe(source).frames == 5
    with open_media(source) as container:
        assert container.format.name.startswith("mov")
