from __future__ import annotations

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import damaged, write
from numpy.typing import NDArray
from reels import luma_of, rich_source
from skimage.metrics import peak_signal_noise_ratio

from pipeline.decode import DecodeReport, decode_frames
from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.probe import probe
from pipeline.verify import verify_reel

Change = Callable[[int, NDArray[Any]], NDArray[Any] | None]  # (ordinal, luma) → luma of the copy, None to leave out


def recode(
    source: Path,
    output: Path,
    *,
    codec: str = "ffv1",
    options: dict[str, str] | None = None,
    change: Change = lambda _, luma: luma,
    shift: Callable[[int], int] = lambda _: 0,
    sound: bool = True,
) -> Path:
    """A copy of a file with its luma as `change` has it, pts moved by `shift` milliseconds, with or without sound."""
    with av.open(str(source)) as given, av.open(str(output), "w") as out:
        original = given.streams.video[0]
        video: Any = out.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = original.width, original.height, original.pix_fmt
        video.codec_context.time_base = original.time_base
        copies = {
            s.index: out.add_stream_from_template(s, opaque=True) for s in given.streams if s.type == "audio" and sound
        }
        for n, frame in enumerate(given.decode(original)):
            luma = change(n, luma_of(frame))
            if luma is not None:
                rows = np.frombuffer(frame.planes[0], luma.dtype).reshape(frame.height, -1)
                rows[:, : frame.width] = luma
                frame.pts += round(Fraction(shift(n), 1000) / frame.time_base)
                out.mux(video.encode(frame))
        out.mux(video.encode(None))
        given.seek(0)
        for packet in given.demux(*[given.streams[i] for i in copies]) if copies else ():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    return output


@pytest.fixture
def reel(tmp_path: Path) -> Path:
    return rich_source(tmp_path / "a.mkv", frames=12, audio=("pcm_s16le",))


def test_a_true_copy_is_proven(reel: Path, tmp_path: Path) -> None:
    result = verify_reel(Source(str(reel)), recode(reel, tmp_path / "b.mkv"))
    assert result.problems == ()
    assert (result.frames, result.streams, result.exact) == (12, 2, True)
    with av.open(str(reel)) as file:
        planes = b"".join(luma_of(f).tobytes() for f in file.decode(video=0))
    assert result.source_sha256 == result.output_sha256 == hashlib.sha256(planes).hexdigest()
    assert result.psnr_min == result.psnr_mean == 100


def test_one_altered_sample_in_a_lossless_output(reel: Path, tmp_path: Path) -> None:
    def alter(n: int, luma: NDArray[Any]) -> NDArray[Any]:
        luma[20, 30] += n == 7
        return luma

    result = verify_reel(Source(str(reel)), recode(reel, tmp_path / "b.mkv", change=alter))
    assert not result.exact
    assert result.source_sha256 != result.output_sha256
    assert result.problems == ("luma differs, first at 0.280000 s, though ffv1 is lossless",)


def test_a_dropped_frame(reel: Path, tmp_path: Path) -> None:
    result = verify_reel(
        Source(str(reel)), recode(reel, tmp_path / "b.mkv", change=lambda n, luma: None if n == 5 else luma)
    )
    assert "1 pictures missing, the first at 0.200000 s" in result.problems
    assert "video: 11 packets, expected 12" in result.problems
    assert not result.exact


def test_a_shifted_timestamp(reel: Path, tmp_path: Path) -> None:
    result = verify_reel(Source(str(reel)), recode(reel, tmp_path / "b.mkv", shift=lambda n: n == 4))
    assert "1 pictures missing, the first at 0.160000 s" in result.problems
    assert "1 pictures not in the source, the first at 0.161000 s" in result.problems


def test_a_lost_sound_track(reel: Path, tmp_path: Path) -> None:
    result = verify_reel(Source(str(reel)), recode(reel, tmp_path / "b.mkv", sound=False))
    assert result.problems == ("0 other streams, expected 1",)


def test_a_lossy_output_is_measured(tmp_path: Path) -> None:
    reel = write(tmp_path / "a.mkv", frames=8)
    output = recode(reel, tmp_path / "b.mkv", codec="libx264", options={"crf": "30"})
    result = verify_reel(Source(str(reel)), output)
    assert result.problems == ()
    assert not result.exact
    with av.open(str(reel)) as one, av.open(str(output)) as two:
        pairs = zip(one.decode(video=0), two.decode(video=0), strict=True)
        psnr = [peak_signal_noise_ratio(luma_of(a), luma_of(b)) if differ(a, b) else 100.0 for a, b in pairs]
    assert result.psnr_mean == pytest.approx(np.mean(psnr), abs=1e-6)
    assert result.psnr_min == pytest.approx(min(psnr), abs=1e-6)


def differ(a: av.VideoFrame, b: av.VideoFrame) -> bool:
    return not np.array_equal(luma_of(a), luma_of(b))


def test_another_picture_in_a_lossy_output(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", frames=8)
    output = recode(
        path, tmp_path / "b.mkv", codec="libx264", change=lambda n, luma: luma[::-1].copy() if n == 3 else luma
    )
    (problem,) = verify_reel(Source(str(path)), output).problems
    assert "dB from the source's, expected 20" in problem


def test_depth_and_range_of_the_output_are_taken_into_account(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", frames=4, pix_fmt="yuv420p", tags={"color_range": 1})
    deeper = tmp_path / "b.mkv"
    with av.open(str(path)) as given, av.open(str(deeper), "w") as out:
        video: Any = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p10le"
        video.codec_context.time_base, video.codec_context.color_range = Fraction(1, 1000), 1
        for frame in given.decode(video=0):
            made = av.VideoFrame(64, 48, "yuv420p10le")
            for plane in made.planes:
                plane.update(bytes(plane.buffer_size))
            rows = np.frombuffer(made.planes[0], np.uint16).reshape(48, -1)
            rows[:, :64] = luma_of(frame).astype(np.uint16) << 2
            made.pts, made.time_base = frame.pts, frame.time_base
            out.mux(video.encode(made))
        out.mux(video.encode(None))
    result = verify_reel(Source(str(path)), deeper)
    assert result.problems == ()
    assert result.exact


def test_what_cannot_be_read(reel: Path, tmp_path: Path) -> None:
    broken = tmp_path / "b.mkv"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"b\.mkv"):
        verify_reel(Source(str(reel)), broken)


def test_only_damaged_pictures_may_be_patched_otherwise(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mkv", codec="mpeg4", frames=40, gop=10, options={"b": "2000000"})
    path = damaged(tmp_path / "a.mkv", whole, seed=3, places=2)
    source, report = Source(str(path)), DecodeReport()
    pts = [int(p) for b in decode_frames(source, probe(source), report) for p in b.pts]
    spoilt = {pts.index(p) for p in report.spoilt}
    assert 0 < len(spoilt) < 30, "up to the next keyframe"

    def inverted(at: set[int]) -> Change:
        return lambda n, luma: 255 - luma if n in at else luma

    for codec in ("ffv1", "libx264"):
        other = verify_reel(source, recode(path, tmp_path / "b.mkv", codec=codec, change=inverted(spoilt)))
        assert (other.problems, other.exact) == ((), False)
        assert f"{len(spoilt)} damaged pictures of the source were patched otherwise by the decoder" in other.warnings
        sound = min(set(range(len(pts))) - spoilt)
        wrong = verify_reel(source, recode(path, tmp_path / "c.mkv", codec=codec, change=inverted({sound})))
        assert "luma" in str(wrong.problems)


def test_samples_that_are_no_codes_of_their_depth_are_compared_as_the_greatest_and_said(tmp_path: Path) -> None:
    source = write(tmp_path / "a.nut", codec="rawvideo", pix_fmt="gray10le", frames=3)
    with av.open(str(source)) as given:
        second = [bytes(packet) for packet in given.demux(video=0)][1]
    source.write_bytes(source.read_bytes().replace(second, b"\xff\x7f" + second[2:]))
    copy = recode(source, tmp_path / "a.mkv", change=lambda _, luma: np.minimum(luma, 1023))
    proof = verify_reel(Source(str(source)), copy)
    assert proof.problems == ()
    assert "1 pictures of the source have samples too great for their depth" in proof.warnings
