"""NVDEC: the same pictures as FFmpeg's own decoders give, and those where it gives up. The real thing is marked gpu."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Video, damaged, write

from pipeline import decode
from pipeline.decode import DecodeReport, choose_decoder, decode_segment, nvdec_failure
from pipeline.frames import FrameBatch, Source, StreamInfo
from pipeline.gpu import FORMATS, no_nvdec
from pipeline.probe import probe
from pipeline.segments import cut_segments

WARMUP = 3
X265 = {"x265-params": "log-level=none:pools=1"}
KINDS = {
    "h264.mp4": Video(b_frames=2),
    "hevc10.mkv": Video("libx265", "yuv420p10le", b_frames=2, options=X265),
    "hevc.mkv": Video("libx265", b_frames=2, options=X265),
    "full_range.mkv": Video(tags={"color_range": 2}),
    "vp9.webm": Video("libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "av1.mkv": Video("libsvtav1", options={"preset": "12"}),
    "interlaced.mkv": Video(interlaced=True),
}
without_nvdec = pytest.mark.skipif(no_nvdec() is None, reason="this machine has NVDEC")


class FakeDecoder:
    """FFmpeg's decoder, its pictures laid out as NVDEC's are; from picture `until` on it does `then`."""

    until, then = 10**9, "fail"

    def __init__(self, stream: Any) -> None:
        self._decoder = stream.codec_context
        self._given = 0

    def decode(self, packet: Any) -> Iterator[Any]:
        for frame in self._decoder.decode(packet):
            self._given += 1
            late = self._given > self.until
            if late and self.then == "fail":
                raise av.ExternalError(0, "the GPU is gone")
            yield frame if late and self.then == "software" else self._laid_out(frame, late)

    def _laid_out(self, frame: av.VideoFrame, wrong: bool) -> av.VideoFrame:
        made = frame.reformat(format=FORMATS[frame.format.name])
        made.pts, made.duration = frame.pts, frame.duration
        if wrong:
            np.frombuffer(memoryview(made.planes[0]), np.uint8)[::7] ^= 1
        return made


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeDecoder]:
    """A machine whose NVDEC is FFmpeg in disguise."""

    class Fake(FakeDecoder):
        pass

    monkeypatch.setattr(decode, "no_nvdec", lambda: None)
    monkeypatch.setattr(decode, "accelerator", lambda: None)
    monkeypatch.setattr(decode, "decoder_of", Fake)
    return Fake


def film(tmp_path: Path, kind: str = "h264.mp4") -> tuple[Source, StreamInfo]:
    source = Source(str(write(tmp_path / kind, KINDS[kind])))
    return source, probe(source)


def decoded(source: Source, info: StreamInfo, gpu: bool, report: DecodeReport | None = None) -> list[FrameBatch]:
    """All batches of all segments, warm-ups included."""
    segments = cut_segments(source, info, 0.5, WARMUP)
    assert len(segments) > 1 or info.frames < 20
    return [batch for s in segments for batch in decode_segment(source, info, s, WARMUP, report, gpu)]


def assert_same(found: list[FrameBatch], expected: list[FrameBatch]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.warmup == other.warmup
        assert one.luma.dtype == other.luma.dtype
        for name in ("luma", "pts", "duration"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for mine, theirs in zip(one.chroma or (), other.chroma or (), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["h264.mp4", "hevc10.mkv", "full_range.mkv", "interlaced.mkv"])
def test_what_comes_down_from_the_gpu_is_read_as_it_is(tmp_path: Path, fake: type[FakeDecoder], kind: str) -> None:
    source, info = film(tmp_path, kind)
    report = DecodeReport()
    assert_same(decoded(source, info, True, report), decoded(source, info, False))
    assert report.warnings == ()
    assert choose_decoder(source, info, "auto") == choose_decoder(source, info, "cuda") == (True, ())
    assert choose_decoder(source, info, "none") == (False, ())


@pytest.mark.parametrize("until", [0, 1, 7])
@pytest.mark.parametrize("then", ["fail", "software"])
def test_software_goes_on_where_the_gpu_stops(tmp_path: Path, fake: type[FakeDecoder], then: str, until: int) -> None:
    fake.until, fake.then = until, then
    source, info = film(tmp_path)
    report = DecodeReport()
    assert_same(decoded(source, info, True, report), decoded(source, info, False))
    why = {"fail": "NVDEC failed (the GPU is gone)", "software": "NVDEC gave yuv420p"}[then]
    assert report.warnings == (f"decoded in software: {why}",)


def test_damage_is_for_the_software_decoder(tmp_path: Path, fake: type[FakeDecoder]) -> None:
    source = Source(str(damaged(tmp_path / "b.ts", write(tmp_path / "a.ts", KINDS["h264.mp4"]), seed=1)))
    info = probe(source)
    on_gpu, in_software = DecodeReport(), DecodeReport()
    assert_same(decoded(source, info, True, on_gpu), decoded(source, info, False, in_software))
    assert in_software.warnings
    assert set(in_software.warnings) <= set(on_gpu.warnings)


@pytest.mark.parametrize(
    ("video", "why"),
    [
        (Video("mpeg2video"), "NVDEC does not decode mpeg2video bit for bit as FFmpeg does"),
        (Video(pix_fmt="yuv422p"), "NVDEC decodes 4:2:0 of 8 and 10 bits, not yuv422p"),
    ],
)
def test_formats_it_is_not_for_are_not_tried(tmp_path: Path, fake: type[FakeDecoder], video: Video, why: str) -> None:
    source = Source(str(write(tmp_path / "a.mkv", video)))
    assert choose_decoder(source, probe(source), "cuda") == (False, (f"decoded in software: {why}",))


def test_a_decoder_that_gives_other_pictures_is_found_out(tmp_path: Path, fake: type[FakeDecoder]) -> None:
    fake.until, fake.then = 5, "err"
    source, info = film(tmp_path)
    assert nvdec_failure(source, info) == "NVDEC decodes it otherwise"
    fake.until, fake.then = 0, "fail"
    assert nvdec_failure(source, info) == "NVDEC failed (the GPU is gone)"


@without_nvdec
def test_without_a_gpu_software_decodes_and_says_why(tmp_path: Path) -> None:
    source, info = film(tmp_path)
    report = DecodeReport()
    assert_same(decoded(source, info, True, report), decoded(source, info, False))
    assert report.warnings == (f"decoded in software: {no_nvdec()}",)
    assert choose_decoder(source, info, "auto") == (False, ())


def decodes_av1() -> bool:
    """What the driver says of itself, by another way into it than ours: an H100's has none, an L4's has."""
    try:
        av.CodecContext.create("av1_cuvid", "r").open()
    except av.FFmpegError:
        return False
    return True


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_nvdec_gives_the_pictures_of_the_software_decoder(tmp_path: Path, kind: str) -> None:
    if why := no_nvdec():
        pytest.skip(f"no NVDEC here: {why}")
    if kind == "av1.mkv" and not decodes_av1():
        pytest.skip("this GPU's NVDEC has no AV1, as CUVID says")
    video = KINDS[kind]
    source = Source(str(write(tmp_path / kind, video, width=640, height=480)))
    info = probe(source)
    assert nvdec_failure(source, info) is None
    report = DecodeReport()
    assert_same(decoded(source, info, True, report), decoded(source, info, False))
    assert report.fell_back == ""
