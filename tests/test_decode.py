"""Against plain PyAV: whatever the file, segments give the linear decode, frame for frame and byte for byte."""

import contextlib
import gc
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Video, damaged, linear, ordinal, picture, ticks, write
from reels import stream_info

from pipeline.decode import DecodeReport, _Clock, decode_frames, decode_segment, open_stream
from pipeline.errors import InputError
from pipeline.frames import Segment, Source, StreamInfo, Timeline
from pipeline.probe import probe
from pipeline.segments import cut_segments
from pipeline.streams import rescale

WARMUP = 3
OPEN_GOP = {"x264-params": "open-gop=1:keyint=10:min-keyint=5:bframes=3:b-adapt=0:scenecut=0:threads=1"}
HEVC_OPEN_GOP = {
    "x265-params": "open-gop=1:keyint=10:min-keyint=5:bframes=3:b-adapt=0:scenecut=0:log-level=none:pools=1"
}
INTRA_REFRESH = {"preset": "medium", "x264-params": "intra-refresh=1:keyint=12:bframes=0:threads=1"}
UNEVEN = ticks((20, 40, 60, 400, 40, 40, 20) * 9)
GAP = {"x264-params": "bframes=3:b-adapt=0:keyint=10:min-keyint=10:scenecut=0:threads=1"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer"}

ODD = {
    "plain.mp4": Video(b_frames=2),
    "open_gop.mp4": Video(options=OPEN_GOP, b_frames=3),
    "open_gop.ts": Video(options=OPEN_GOP, b_frames=3),
    "intra_refresh.mkv": Video(options=INTRA_REFRESH),
    "intra_refresh.ts": Video(options=INTRA_REFRESH),
    "all_intra.mp4": Video(gop=1),
    "hevc_open_gop.mp4": Video("libx265", options=HEVC_OPEN_GOP, b_frames=3),
    "hevc_open_gop.ts": Video("libx265", options=HEVC_OPEN_GOP, b_frames=3),
    "hevc10.mkv": Video("libx265", "yuv420p10le", b_frames=2),
    "hevc_grey.mp4": Video("libx265", "gray", b_frames=2),
    "mpeg2.ts": Video("mpeg2video", b_frames=2),
    "mpeg2.mpg": Video("mpeg2video", b_frames=2),
    "mpeg2.mxf": Video("mpeg2video", "yuv422p", b_frames=2, interlaced=True),
    "mpeg4.avi": Video("mpeg4", b_frames=2),
    "h264.avi": Video(),
    "vp9.webm": Video("libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp8_hidden_frames.webm": Video("libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "8", "cpu-used": "8"}),
    "mjpeg.avi": Video("mjpeg", "yuvj422p"),
    "prores.mov": Video("prores_ks", "yuv422p10le"),
    "dv.dv": Video("dvvideo", width=720, height=576, frames=16, interlaced=True),
    "ffv1_grey10.mkv": Video("ffv1", "gray10le"),
    "ffv1_every_frame.mkv": Video("ffv1", "yuv444p", gop=1, options={"level": "3"}),
    "ffv1_odd_size.mkv": Video("ffv1", "yuv420p", width=63, height=47),
    "raw.y4m": Video("wrapped_avframe", format="yuv4mpegpipe"),
    "two_pixels.mp4": Video(width=2, height=2),
    "one_frame.mp4": Video(frames=1),
    "uneven.mp4": Video(pts=UNEVEN, time_base=Fraction(1, 1000), b_frames=2),
    "uneven.mkv": Video(pts=UNEVEN, time_base=Fraction(1, 1000), b_frames=2),
    "late_start.mkv": Video(pts=range(500, 560), b_frames=2),
    "edit_list.mp4": Video(pts=range(-14, 46), b_frames=2, mux={"avoid_negative_ts": "disabled"}),
    "fragmented.mp4": Video(b_frames=2, mux=FRAGMENTED),
    "no_index.mkv": Video(b_frames=2, mux={"live": "1"}),
    "clock_wraps.ts": Video(b_frames=2, mux={"output_ts_offset": "95442.5"}),  # 2^33 ticks of 90 kHz are 95443.7 s
    "msmpeg4.asf": Video("msmpeg4v3"),
    "flash.flv": Video(b_frames=1),
    "gap.mkv": Video(
        pts=ticks([40] * 16 + [300_000] + [40] * 42), time_base=Fraction(1, 1000), b_frames=3, options=GAP
    ),
}


def made(folder: Path, name: str) -> tuple[Source, StreamInfo]:
    """The odd file of this name, 60 pictures unless it says otherwise, and what probing says of it."""
    video = ODD[name]
    changes = {"frames": 60} if video.frames == 30 else {}
    source = Source(str(write(folder / name, video, **changes)))
    return source, probe(source)


def decoded(
    source: Source, info: StreamInfo, segments: tuple[Segment, ...], warmup: int = WARMUP
) -> tuple[list[tuple[int, bytes]], list[list[tuple[int, bytes]]]]:
    """(pts, luma) of all pictures of all segments, and of each segment's warm-up."""
    pictures, warmups = [], []
    for segment in segments:
        leading = []
        for batch in decode_segment(source, info, segment, warmup):
            rows = [(int(pts), luma.tobytes()) for pts, luma in zip(batch.pts, batch.luma, strict=True)]
            leading += rows[: batch.warmup]
            pictures += rows[batch.warmup :]
        warmups.append(leading)
    return pictures, warmups


@pytest.mark.parametrize("name", ODD)
def test_segments_give_the_linear_decode(tmp_path: Path, name: str) -> None:
    source, info = made(tmp_path, name)
    segments = cut_segments(source, info, 0.5, WARMUP)
    expected = linear(Path(source.url), info.width * (1 if info.bit_depth <= 8 else 2))
    pictures, warmups = decoded(source, info, segments)
    assert pictures == expected
    assert sum(segment.frames for segment in segments) == len(expected) == info.frames
    begun = 0
    for segment, leading in zip(segments, warmups, strict=True):
        assert leading == expected[max(0, begun - WARMUP) : begun]
        begun += segment.frames
    if info.seconds > 2:
        assert len(segments) > 1


@pytest.mark.parametrize("name", ["ffv1_grey10.mkv", "mpeg2.mpg", "open_gop.ts", "uneven.mp4", "prores.mov", "raw.y4m"])
def test_every_picture_comes_once_and_in_order(tmp_path: Path, name: str) -> None:
    source, info = made(tmp_path, name)
    numbers = []
    for segment in cut_segments(source, info, 0.5, WARMUP):
        for batch in decode_segment(source, info, segment, WARMUP):
            numbers += [ordinal(luma, info.bit_depth) for luma in batch.luma[batch.warmup :]]
    assert numbers == list(range(60))


def test_luma_is_as_it_was_written(tmp_path: Path) -> None:
    for pix_fmt, depth in (("gray", 8), ("gray10le", 10), ("gray16le", 16), ("yuv420p", 8), ("yuv422p12le", 12)):
        source = Source(
            str(write(tmp_path / f"{pix_fmt}.mkv", codec="ffv1", pix_fmt=pix_fmt, width=61, height=35, frames=3))
        )
        (batch,) = decode_frames(source, probe(source))
        assert batch.luma.dtype == (np.uint8 if depth == 8 else np.uint16)
        np.testing.assert_array_equal(batch.luma, [picture(n, 61, 35, depth) for n in range(3)])


@pytest.mark.parametrize("name", ["plain.h264", "plain.hevc", "plain.mjpeg"])
def test_pictures_without_timestamps_are_counted(tmp_path: Path, name: str) -> None:
    codec = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}[name.split(".")[1]]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = Source(str(write(tmp_path / name, codec=codec, pix_fmt=pix_fmt, b_frames=2)))
    info = probe(source, Fraction(18))
    assert (info.timestamps, info.time_base, info.fps) == (False, Fraction(1, 18), Fraction(18))
    (segment,) = cut_segments(source, info, 0.5, WARMUP)
    batches = list(decode_segment(source, info, segment, WARMUP))
    assert np.concatenate([b.pts for b in batches]).tolist() == list(range(30))
    assert [ordinal(luma) for b in batches for luma in b.luma] == list(range(30))


def test_avi_with_b_frames_is_timed_by_its_decoder(tmp_path: Path) -> None:
    source = Source(str(write(tmp_path / "b.avi", b_frames=2, frames=90)))
    info = probe(source)
    segments = cut_segments(source, info, 0.5, WARMUP)
    pictures, warmups = decoded(source, info, segments)
    assert len(segments) > 2
    assert [pts for pts, _ in pictures] == list(range(90))
    assert [luma for _, luma in pictures] == [luma for _, luma in linear(Path(source.url), info.width)]
    assert all(len(leading) == WARMUP for leading in warmups[1:])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_films_that_were_made_like_avi_are_timed_by_their_decoder(tmp_path: Path, suffix: str) -> None:
    """Packets shown when they are decoded, though pictures are reordered; at a varying rate."""
    times = [40 * n + 7 * (n % 3) for n in range(90)]
    path = tmp_path / f"late.{suffix}"
    with av.open(str(write(tmp_path / "plain.mp4", b_frames=2, frames=90))) as plain, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(plain.streams.video[0])
        packets = [packet for packet in plain.demux(video=0) if packet.size]
        for packet, time in zip(packets, times, strict=True):
            packet.stream, packet.time_base, packet.duration = copy, Fraction(1, 1000), 0
            packet.pts = packet.dts = time
            out.mux(packet)
    source, info = Source(str(path)), probe(Source(str(path)))
    assert (info.timestamps, info.decoding_times, info.vfr, info.frames) == (False, True, True, 90)
    segments = cut_segments(source, info, 0.5, WARMUP)
    pictures, _ = decoded(source, info, segments)
    assert len(segments) > 2
    assert [round(pts * info.time_base * 1000) for pts, _ in pictures] == times
    assert [luma for _, luma in pictures] == [luma for _, luma in linear(path, info.width)]


NEGATIVE = {"avoid_negative_ts": "disabled"}


@pytest.mark.parametrize("b_frames", [0, 2])
def test_pictures_before_the_first_timestamp_are_counted_back_from_it(tmp_path: Path, b_frames: int) -> None:
    """Matroska with times before zero, which FFmpeg writes and does not read."""
    times = [40 * n - 300 for n in range(30)]
    video = Video(frames=30, pts=times, time_base=Fraction(1, 1000), b_frames=b_frames, mux=NEGATIVE)
    source, report = Source(str(write(tmp_path / "a.mkv", video))), DecodeReport()
    info = probe(source)
    assert info.start_pts == times[0]
    batches = list(decode_frames(source, info, report))
    assert np.concatenate([batch.pts for batch in batches]).tolist() == times
    assert [ordinal(luma) for batch in batches for luma in batch.luma] == list(range(30))
    assert 1 <= report.retimed <= 8


def test_packed_b_frames_in_avi_come_in_order() -> None:
    path = Path(__file__).parents[2] / "shared" / "clips" / "color_surveillance_road.avi"  # XviD, 2 pictures dropped
    if not path.exists():
        pytest.skip("../shared/clips is not there")
    source = Source(str(path))
    info = probe(source)
    segments = cut_segments(source, info, 8, WARMUP)
    pictures, warmups = decoded(source, info, segments)
    assert [pts for pts, _ in pictures] == list(range(2, 750))
    assert [luma for _, luma in pictures] == [luma for _, luma in linear(path, info.width)]
    assert [len(leading) for leading in warmups] == [0] + [WARMUP] * (len(segments) - 1)
    assert len(segments) > 2


def test_warmup_is_as_asked_and_fewer_only_at_the_beginning(tmp_path: Path) -> None:
    source, info = made(tmp_path, "plain.mp4")
    for warmup in (0, 1, 15):
        segments = cut_segments(source, info, 0.5, warmup)
        _, warmups = decoded(source, info, segments, warmup)
        assert [len(leading) for leading in warmups] == [0] + [warmup] * (len(segments) - 1)
    _, (leading,) = decoded(source, info, (Segment(0, int(2 / 25 / info.time_base), None),), 15)
    assert len(leading) == 2


def test_batches_depend_on_the_stream_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, small_info = made(tmp_path, "plain.mp4")
    assert [len(b) for b in decode_frames(small, small_info)] == [16, 16, 16, 12]
    monkeypatch.setattr("pipeline.decode._BATCH_BYTES", 20 * 64 * 48)
    assert [len(b) for b in decode_frames(small, small_info)][:2] == [13, 13]  # 4:2:0 is one and a half bytes a pixel


def test_a_file_that_cannot_be_sought_is_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, info = made(tmp_path, "open_gop.ts")
    segments = cut_segments(source, info, 0.5, WARMUP)
    sought, _ = decoded(source, info, segments)
    monkeypatch.setattr("pipeline.decode.seek_keyframe", lambda *_: None)
    assert decoded(source, info, segments)[0] == sought


def test_a_keyframe_that_is_gone_is_told(tmp_path: Path) -> None:
    source, info = made(tmp_path, "plain.mp4")
    with pytest.raises(InputError, match=r"keyframe at pts 77 is gone"):
        list(decode_segment(source, info, Segment(1, 1000, None, seek=77), WARMUP))


@pytest.mark.parametrize(
    "name", ["plain.mp4", "open_gop.ts", "prores.mov", "ffv1_grey10.mkv", "mpeg4.avi", "mjpeg.avi"]
)
def test_damage_is_counted_and_decodes_the_same_each_time(tmp_path: Path, name: str) -> None:
    sound, _ = made(tmp_path, name)
    for seed in range(2):
        source = Source(str(damaged(tmp_path / f"{seed}_{name}", Path(sound.url), seed)))
        info = probe(source)
        segments = cut_segments(source, info, 0.5, WARMUP)
        first, _ = decoded(source, info, segments)
        assert len(first) > 20
        assert all(a < b for (a, _), (b, _) in pairwise(first))
        again, _ = decoded(source, info, segments)
        assert [pts for pts, _ in again] == [pts for pts, _ in first]
        assert again == first
        report = DecodeReport()
        assert sum(len(b) for b in decode_frames(source, info, report)) > 20
        assert report.warnings or name == "mjpeg.avi"  # a JPEG decoder cannot tell damage from detail


def test_pictures_are_freed_at_once(tmp_path: Path) -> None:
    """ProRes shows in damaged places what was in its memory, which must not hang on the garbage collector."""
    sound, _ = made(tmp_path, "prores.mov")
    source = Source(str(damaged(tmp_path / "damaged.mov", Path(sound.url), 3, 20)))
    info = probe(source)
    runs = []
    thresholds = gc.get_threshold()
    try:
        for often in (0, 1):
            gc.collect()
            gc.set_threshold(often)
            runs.append([(batch.pts.tolist(), batch.luma.tobytes()) for batch in decode_frames(source, info)])
            assert not [held for held in gc.get_objects() if type(held) is av.VideoFrame]
    finally:
        gc.set_threshold(*thresholds)
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mpeg2video"), ("b.mpg", "mpeg1video")])
def test_slices_that_may_write_to_one_place_have_one_thread(tmp_path: Path, name: str, codec: str) -> None:
    """With two, one in 240 runs over a damaged film gave another picture."""
    source = Source(str(write(tmp_path / name, codec=codec, format="mpeg" if codec == "mpeg1video" else "vob")))
    with contextlib.ExitStack() as stack:
        _, stream, decoder = open_stream(source, stack)
        assert (stream.codec_context.name, decoder.thread_count) == (codec, 1)


def test_damage_inside_h264_pictures_is_patched_and_counted(tmp_path: Path) -> None:
    """Which FFmpeg's decoder does with one thread only."""
    options = {"preset": "medium", "crf": "5", "x264-params": "slices=4"}
    data = bytearray(write(tmp_path / "a.ts", width=320, height=240, gop=30, options=options).read_bytes())
    for at in np.random.default_rng(1).integers(len(data) // 5, len(data) * 4 // 5, 6):
        data[at] ^= 16
    (tmp_path / "b.ts").write_bytes(data)
    report, source = DecodeReport(), Source(str(tmp_path / "b.ts"))
    assert sum(len(batch) for batch in decode_frames(source, probe(source), report)) > 20
    assert report.concealed


@pytest.mark.parametrize("second_start", ["0", "0.2"])
def test_timestamps_that_start_over_go_on(tmp_path: Path, second_start: str) -> None:
    first = write(tmp_path / "first.ts", b_frames=2, frames=100).read_bytes()
    second = write(tmp_path / "second.ts", b_frames=2, frames=50, mux={"output_ts_offset": second_start}).read_bytes()
    (tmp_path / "both.ts").write_bytes(first + second)
    source = Source(str(tmp_path / "both.ts"))
    info = probe(source)
    assert (info.fps, info.vfr, info.seconds) == (25, False, 6)
    assert info.warnings == ("its timestamps start over (1×); pictures go on from the ones before",)
    segments = cut_segments(source, info, 0.5, WARMUP)
    pictures, _ = decoded(source, info, segments)
    assert {b - a for (a, _), (b, _) in pairwise(pictures)} == {3600}
    assert [luma for _, luma in pictures] == [luma for _, luma in linear(tmp_path / "both.ts", info.width)]
    times = [int(b.pts[-1]) for segment in segments[:-1] for b in list(decode_segment(source, info, segment, 0))[-1:]]
    assert max(times) < info.start_pts + 100 * 3600  # no cut after the jump: a seek would not find it


@pytest.mark.parametrize("b_frames", [0, 2])
def test_pictures_that_share_a_time_in_mpeg_s_streams_keep_their_distance(tmp_path: Path, b_frames: int) -> None:
    """Of several small pictures of H.264 in one packet of MPEG's only the first has a time, or FFmpeg the one after."""
    source = Source(str(write(tmp_path / "a.mpg", b_frames=b_frames, frames=60)))
    with av.open(source.url) as container:
        told = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert len(told) < 40, "each has one: the test is void"
    info = probe(source)
    assert (info.fps, info.vfr) == (25, False)
    times = [int(p) for batch in decode_frames(source, info) for p in batch.pts]
    assert len(times) == 60
    assert max(abs(at - times[0] - 3600 * n) for n, at in enumerate(times)) <= 3600


def test_doubled_timestamps_are_parted(tmp_path: Path) -> None:
    pts = ticks([40] * 20 + [0, 0] + [40] * 37)
    with av.open(str(tmp_path / "doubled.mkv"), "w") as container:  # FFV1 packets: mux what no encoder would give
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        stream.codec_context.gop_size = 1
        for n, time in enumerate(pts):
            shown = av.VideoFrame.from_ndarray(picture(n, 64, 48).astype(np.uint8), "gray")
            shown.pts = n
            for packet in stream.encode(shown):
                packet.pts = packet.dts = time
                packet.time_base = Fraction(1, 1000)
                container.mux(packet)
    source = Source(str(tmp_path / "doubled.mkv"))
    info = probe(source)
    report = DecodeReport()
    pictures = [
        (int(p), ordinal(y)) for b in decode_frames(source, info, report) for p, y in zip(b.pts, b.luma, strict=True)
    ]
    assert pictures == [(time + (n == 21) + 2 * (n == 22), n) for n, time in enumerate(pts)]
    assert report.retimed == 2
    segments = cut_segments(source, info, 0.4, WARMUP)
    assert [p for p, _ in decoded(source, info, segments)[0]] == [p for p, _ in pictures]
    shared = DecodeReport()
    assert [list(decode_segment(source, info, segment, WARMUP, shared)) for segment in segments]
    assert shared.retimed == 2, "each in one segment, not in warm-ups too"


def test_a_recording_whose_first_pictures_are_lost_begins_where_its_packets_do() -> None:
    """Else it would be early by them, and the sound, which goes by the packets, late."""
    clock_round = Fraction(1 << 33, 90000)  # FFmpeg takes 10 s for the time after 26.5 hours
    begin = clock_round + 10
    first = Timeline(Fraction(90), Fraction(100), Fraction(0))
    second = Timeline(begin, begin + 10, Fraction(10004, 100) - begin)
    clock = _Clock(stream_info(container="mpegts", timelines=(first, second)))
    ahead = [clock_round + Fraction(t, 100) for t in (1060, 1064)]
    told = [Fraction(9996, 100), 100, ahead[0], Fraction(9992, 100), ahead[1]]  # the fourth comes too late
    times = [(clock.time(round(t * 90000)), clock.retimed) for t in told]
    assert [time for time, _ in times] == [round(t * 90000) for t in (99.96, 100, 100.64, 100.641, 100.68)]
    assert [retimed for _, retimed in times] == [False, False, False, True, False]


@pytest.mark.parametrize("time_base", [Fraction(1, 12800), Fraction(1, 90000), Fraction(1, 1000), Fraction(1, 25)])
def test_pictures_whose_timestamps_run_backward_stay_apart_in_milliseconds(time_base: Fraction) -> None:
    """Also from the sound one that follows them at once; pictures that lie closer by themselves stay as they are."""
    info = stream_info(time_base=time_base)
    unit = 1 / time_base
    told = [0.04, 0.03, 0.031, 0.0405, 0.0421, 0.08, 0.08, 0.12, 0.12 + float(time_base), None, 0.12, 0.16]
    clock = _Clock(info)
    times = [clock.time(None if t is None else round(t * unit)) for t in told]
    assert times == sorted(set(times))
    if time_base < Fraction(1, 1000):
        milliseconds = [rescale(t, time_base, Fraction(1, 1000)) for t in times]
        assert milliseconds[:8] == sorted(set(milliseconds[:8]))
        assert times[8] - times[7] == 1
    assert times[0] == round(Fraction(1, 25) * unit)


@pytest.mark.parametrize(
    ("codec", "options", "seeds"),
    [
        ("libvpx", {"cpu-used": "8", "deadline": "realtime", "crf": "10", "b": "2M"}, (8, 10)),
        ("libsvtav1", {"preset": "11", "crf": "30"}, (0, 4)),
    ],
)
def test_no_more_pictures_are_lost_to_damage_than_have_to(
    tmp_path: Path, codec: str, options: dict[str, str], seeds: tuple[int, ...]
) -> None:
    """As many as with one thread."""
    whole = write(tmp_path / "whole.mkv", codec=codec, width=192, height=144, frames=40, gop=20, options=options)
    for seed in seeds:
        source = Source(str(damaged(tmp_path / "damaged.mkv", whole, seed)))
        expected = 0
        with av.open(source.url) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for packet in container.demux(video=0):
                with contextlib.suppress(av.FFmpegError):
                    expected += len(packet.decode())
        assert sum(map(len, decode_frames(source, probe(source)))) == expected > 0


def test_a_change_of_size_that_no_header_told_of_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.ts", frames=30).read_bytes()
    info = probe(Source(str(tmp_path / "a.ts")))
    second = write(tmp_path / "b.ts", frames=30, width=96, mux={"output_ts_offset": "1.2"}).read_bytes()
    (tmp_path / "both.ts").write_bytes(first + second)
    source = Source(str(tmp_path / "both.ts"))
    with pytest.raises(InputError, match=r"both\.ts: changes from 64×48 yuv420p to 96×48 yuv420p at pts 108000; split"):
        list(decode_frames(source, info))


def test_closed_captions_inside_pictures_are_counted(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.h264", frames=12).read_bytes()
    caption = bytes.fromhex("b50031") + b"GA94" + bytes.fromhex("0341fffc9420ff")  # ATSC A/53 part 4, one pair of bytes
    sei = b"\0\0\1\x06\x04" + bytes([len(caption)]) + caption + b"\x80"
    units = plain.split(b"\0\0\1")
    path = tmp_path / "captions.h264"
    path.write_bytes(
        units[0] + b"".join((sei if unit[0] & 31 in (1, 5) else b"") + b"\0\0\1" + unit for unit in units[1:])
    )
    for name, count in (("plain.h264", 0), ("captions.h264", 12)):
        source, report = Source(str(tmp_path / name)), DecodeReport()
        assert sum(len(b) for b in decode_frames(source, probe(source), report)) == 12
        assert report.captions == count
        assert any("closed captions" in w for w in report.warnings) == (count > 0)


def test_a_palette_that_only_the_first_packet_has(tmp_path: Path) -> None:
    """As in AVI and QuickTime, where later packets, keyframes too, are of no use without it."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for n in range(60):
            shown = av.VideoFrame(64, 48, "pal8")
            shown.planes[0].update(picture(n, 64, 48).astype(np.uint8))
            shown.planes[1].update(np.arange(0, 0x1000000, 0x10101, np.uint32) | np.uint32(0xFF000000))
            container.mux(stream.encode(shown))
    source = Source(str(tmp_path / "a.avi"))
    info = probe(source)
    assert info.pix_fmt == "pal8"
    luma = [y for s in cut_segments(source, info, 0.5, 0) for b in decode_segment(source, info, s, 0) for y in b.luma]
    np.testing.assert_array_equal(luma, [picture(n, 64, 48) for n in range(60)])


def test_rgb_video_is_read_as_full_range_444(tmp_path: Path) -> None:
    source = Source(str(write(tmp_path / "rgb.mov", codec="qtrle", pix_fmt="rgb24", frames=20)))
    info = probe(source)
    assert (info.subsampling, info.bit_depth, info.color.full_range) == ((0, 0), 8, True)
    batches = list(decode_frames(source, info))
    np.testing.assert_array_equal(np.concatenate([b.luma for b in batches]), [picture(n, 64, 48) for n in range(20)])
    assert all((plane == 128).all() for b in batches for plane in b.chroma or ())


def test_raw_samples_beyond_their_depth_become_the_greatest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nut", codec="rawvideo", pix_fmt="gray10le", frames=3)
    data = path.read_bytes()
    second = linear(path, 2 * 64)[1][1]
    path.write_bytes(data.replace(second, b"\xff\x7f\xff\x03" + second[4:]))
    info, report = probe(Source(str(path))), DecodeReport()
    luma = np.concatenate([batch.luma for batch in decode_frames(Source(str(path)), info, report)])
    assert luma[1, 0, :2].tolist() == [1023, 1023]
    assert luma[1].tobytes()[4:] == second[4:]
    assert report.warnings == (
        "1 pictures with samples that are too great for their depth, which became the greatest of it",
    )
