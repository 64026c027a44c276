from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import shown_fields
from reels import QUICK, decode_segment_file, files_up_to, luma_of, noise, stream_info, write_segment

from pipeline.encode import PROFILES, EncoderSettings, LumaMap, SegmentWriter, resolve_encoder
from pipeline.errors import RecipeError, StorageError, UnsupportedError, VerificationError
from pipeline.frames import ColorTags
from pipeline.packets import open_packets

FULL = ColorTags("bt709", full_range=True)
FFV1 = PROFILES["preservation"]
SMALL = {  # of each codec, a quick way to code
    "h264": QUICK,
    "hevc": EncoderSettings("hevc", 20.0, "ultrafast"),
    "av1": EncoderSettings("av1", 40.0, "12"),
    "prores": EncoderSettings("prores"),
    "ffv1": EncoderSettings("ffv1"),
}


@pytest.mark.parametrize(
    ("changes", "pix_fmt"),
    [
        ({}, "yuv420p"),
        ({"pix_fmt": "gray", "subsampling": None, "color": FULL}, "yuv420p"),
        ({"pix_fmt": "gray9le", "subsampling": None, "bit_depth": 9, "color": FULL}, "yuv420p9le"),
        ({"pix_fmt": "yuv422p10le", "subsampling": (1, 0), "bit_depth": 10}, "yuv422p10le"),
        ({"pix_fmt": "yuv444p12le", "subsampling": (0, 0), "bit_depth": 12}, "yuv444p12le"),
        ({"pix_fmt": "gray16le", "subsampling": None, "bit_depth": 16, "color": FULL}, "yuv420p16le"),
        ({"pix_fmt": "yuv411p", "subsampling": (2, 0)}, "yuv411p"),
        ({"pix_fmt": "yuv410p", "subsampling": (2, 2)}, "yuv410p"),
        ({"pix_fmt": "yuv440p", "subsampling": (0, 1)}, "yuv440p"),
        ({"pix_fmt": "gbrp", "subsampling": (0, 0), "color": FULL}, "yuv444p"),
        ({"width": 35, "height": 21}, "yuv420p"),
        ({"width": 2, "height": 2}, "yuv420p"),
        ({"field_order": "bff"}, "yuv420p"),
    ],
)
def test_lossless_luma_is_the_source_s_bit_for_bit(tmp_path: Path, changes: dict[str, Any], pix_fmt: str) -> None:
    info = stream_info(**changes)
    spec = resolve_encoder(info, FFV1)
    assert spec.pix_fmt == pix_fmt
    assert spec.luma.identity
    segment = write_segment(spec, tmp_path / "a.seg", [0, 3600, 7200], lambda at: noise(info, at))
    frames = decode_segment_file(spec, segment)
    assert [f.pts for f in frames] == [0, 3600, 7200]
    for frame in frames:
        np.testing.assert_array_equal(luma_of(frame), noise(info, frame.pts or 0))


def test_luma_that_stays_is_not_even_copied() -> None:
    plane = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert LumaMap(8, 8, False, False).apply(plane) is plane


def test_luma_tables() -> None:
    eight, twelve = np.arange(256, dtype=np.uint8), np.arange(4096, dtype=np.uint16)
    np.testing.assert_array_equal(LumaMap(8, 10, False, False).apply(eight), np.arange(256) * 4)
    np.testing.assert_array_equal(LumaMap(9, 10, True, True).apply(np.arange(512, dtype=np.uint16)), np.arange(512) * 2)
    rounded = np.minimum(np.floor(np.arange(4096) / 4 + 0.5), 1023)
    np.testing.assert_array_equal(LumaMap(12, 10, False, False).apply(twelve), rounded)
    limited = LumaMap(8, 10, True, False).apply(eight)  # H.273: 64 + 876 E'
    np.testing.assert_array_equal(limited, np.floor(64 + 876 * np.arange(256) / 255 + 0.5))
    assert limited.dtype == np.uint16
    assert len(np.unique(limited)) == 256


@pytest.mark.parametrize(
    ("codec", "changes", "pix_fmt", "note"),
    [
        ("h264", {"pix_fmt": "yuv420p10le", "bit_depth": 10}, "yuv420p10le", None),
        ("h264", {"pix_fmt": "yuv422p12le", "bit_depth": 12, "subsampling": (1, 0)}, "yuv422p10le", "from 12 to 10"),
        ("h264", {"pix_fmt": "gray9le", "bit_depth": 9, "subsampling": None}, "yuv420p10le", "exact left shift"),
        ("hevc", {"pix_fmt": "yuv444p12le", "bit_depth": 12, "subsampling": (0, 0)}, "yuv444p12le", None),
        ("prores", {"pix_fmt": "yuv422p", "subsampling": (1, 0)}, "yuv422p10le", "exact left shift"),
        ("prores", {"pix_fmt": "gray", "subsampling": None, "color": FULL}, "yuv422p10le", "full to limited range"),
        ("prores", {"pix_fmt": "gbrp", "subsampling": (0, 0), "color": FULL}, "yuv444p10le", "RGB becomes"),
        ("h264", {"pix_fmt": "gbrp", "subsampling": (0, 0), "color": FULL}, "yuv420p", "RGB becomes"),
        ("h264", {"width": 34, "height": 21}, "yuv422p", "cannot code 34×21 at 4:2:0"),
        ("h264", {"width": 35, "height": 21}, "yuv444p", "cannot code 35×21 at 4:2:0"),
        ("h264", {"width": 34, "height": 22, "field_order": "tff"}, "yuv422p", "cannot code 34×22 at 4:2:0"),
        ("h264", {"width": 2, "height": 2}, "yuv420p", None),
        ("hevc", {"field_order": "tff"}, "yuv420p", "in the container only"),
        ("h264", {"pix_fmt": "yuv411p", "subsampling": (2, 0)}, "yuv422p", "4:1:1"),
    ],
)
def test_formats_follow_the_source_and_changes_are_stated(
    tmp_path: Path, codec: str, changes: dict[str, Any], pix_fmt: str, note: str | None
) -> None:
    info = stream_info(**changes)
    spec = resolve_encoder(info, SMALL[codec])
    assert spec.pix_fmt == pix_fmt
    assert any(note in n for n in spec.notes) if note else not spec.notes
    segment = write_segment(spec, tmp_path / "a.seg", [0, 3600], lambda at: noise(info, at))
    assert len(decode_segment_file(spec, segment)) == 2


def test_what_a_codec_cannot_code_is_refused_with_one_that_can() -> None:
    with pytest.raises(UnsupportedError, match=r"reel\.mp4: hevc cannot code 2×2 .*--codec h264") as caught:
        resolve_encoder(stream_info(width=2, height=2), SMALL["hevc"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UnsupportedError, match=r"av1 cannot code 32×32"):
        resolve_encoder(stream_info(width=32, height=32), SMALL["av1"])
    with pytest.raises(UnsupportedError, match=r"h264 cannot code interlaced 35×21 .*--profile preservation"):
        resolve_encoder(stream_info(width=35, height=21, field_order="tff"), QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EncoderSettings("h264", 60.0), "0..51, got 60"),
        (EncoderSettings("prores", 18.0), "prores has no CRF"),
        (EncoderSettings("ffv1", None, "slow"), "preset 'slow'"),
        (EncoderSettings("h264", None, "12"), "preset '12'"),
        (EncoderSettings("h264", threads=0), "at least 1"),
        (EncoderSettings("mpeg2"), "'mpeg2' is not known"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_make_no_sense(settings: EncoderSettings, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        resolve_encoder(stream_info(), settings)


@pytest.mark.parametrize(
    "time_base",
    [Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 1000), Fraction(1, 14112000), Fraction(1, 1_000_000_000)],
)
@pytest.mark.parametrize("start", [0, -70_000, 95_443 * 90_000 * 1000])
def test_timestamps_and_durations_come_back_exactly(tmp_path: Path, time_base: Fraction, start: int) -> None:
    info = stream_info(time_base=time_base)
    spec = resolve_encoder(info, QUICK)
    pts = [start + at for at in (0, 1, 3, 700, 701, 5000, 5001, 5002, 9000)]
    segment = write_segment(spec, tmp_path / "a.seg", pts, lambda at: noise(info, at - start), duration=7)
    file = open_packets(segment.path)
    assert file.header.time_base == time_base
    assert sorted(file.pts.tolist()) == pts == list(segment.pts)
    assert file.duration.tolist() == [7] * 9
    assert [f.pts for f in decode_segment_file(spec, segment)] == pts


@pytest.mark.parametrize("codec", SMALL)
def test_segments_stand_alone_and_share_their_headers(tmp_path: Path, codec: str) -> None:
    info = stream_info(width=64, height=64)
    spec = resolve_encoder(info, SMALL[codec])
    first = write_segment(spec, tmp_path / "1.seg", range(0, 36000, 3600), lambda at: noise(info, at))
    second = write_segment(spec, tmp_path / "2.seg", range(36000, 64800, 3600), lambda at: noise(info, at))
    again = write_segment(spec, tmp_path / "3.seg", range(36000, 64800, 3600), lambda at: noise(info, at))
    assert second.sha256 == again.sha256 != first.sha256
    headers = [open_packets(s.path) for s in (first, second)]
    assert headers[0].header == headers[1].header
    assert all(h.key[0] for h in headers)
    frames = [decode_segment_file(spec, s) for s in (first, second)]
    assert [len(f) for f in frames] == [10, 8]
    assert frames[1][0].pts == 36000
    assert first.bytes == (tmp_path / "1.seg").stat().st_size


@pytest.mark.parametrize("codec", ["h264", "prores", "ffv1"])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_interlaced_stays_interlaced(tmp_path: Path, codec: str, order: str) -> None:
    info = stream_info(field_order=order)
    spec = resolve_encoder(info, SMALL[codec])
    segment = write_segment(spec, tmp_path / "a.seg", [0, 3600, 7200], lambda at: noise(info, at))
    frames = decode_segment_file(spec, segment)
    assert len(frames) == 3
    assert all(frame.interlaced_frame for frame in frames)
    assert shown_fields(frames) == 3 * {"tff": "T", "bff": "B"}[order]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_tags_are_in_the_coded_stream(tmp_path: Path, codec: str) -> None:
    tags = ColorTags("bt601", full_range=True, transfer=6, primaries=5, matrix_code=5)
    info = stream_info(width=64, height=64, color=tags, sar=Fraction(16, 15))
    spec = resolve_encoder(info, SMALL[codec])
    frame = decode_segment_file(spec, write_segment(spec, tmp_path / "a.seg", [0], lambda at: noise(info, at)))[0]
    assert (frame.color_range, frame.colorspace, frame.color_trc, frame.color_primaries) == (2, 5, 6, 5)


def test_profiles() -> None:
    options = dict(resolve_encoder(stream_info(), FFV1).options)
    assert (options["level"], options["g"], options["slicecrc"]) == ("3", "1", "1")
    access = resolve_encoder(stream_info(), PROFILES["access"])
    assert (access.encoder, dict(access.options)["crf"], dict(access.options)["preset"]) == ("libx264", "18", "medium")
    assert dict(resolve_encoder(stream_info(), PROFILES["mezzanine"]).options)["profile"] == "hq"


def test_luma_hash_is_over_what_the_encoder_got(tmp_path: Path) -> None:
    import hashlib

    info = stream_info(bit_depth=12, pix_fmt="gray12le", subsampling=None)
    spec = resolve_encoder(info, QUICK)
    segment = write_segment(spec, tmp_path / "a.seg", [0, 1], lambda at: noise(info, at))
    codes = [np.minimum(noise(info, n).astype(int) + 2 >> 2, 1023).astype("<u2") for n in (0, 1)]
    assert segment.luma_sha256 == hashlib.sha256(b"".join(c.tobytes() for c in codes)).hexdigest()


def test_bits_above_the_depth_are_clipped_and_told(tmp_path: Path) -> None:
    info = stream_info(bit_depth=10, pix_fmt="yuv420p10le")
    spec = resolve_encoder(info, FFV1)
    segment = write_segment(spec, tmp_path / "a.seg", [0, 1, 2], lambda at: noise(info, at) | 0x4000 * (at == 1))
    frames = decode_segment_file(spec, segment)
    for at, wanted in enumerate((noise(info, 0), np.full((48, 64), 1023), noise(info, 2))):
        np.testing.assert_array_equal(luma_of(frames[at]), wanted)
    assert segment.warnings == ("1 pictures had luma above the peak of their depth",)


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    info = stream_info()
    spec = resolve_encoder(info, QUICK)
    grey = np.full((24, 32), 128, np.uint8)
    path = tmp_path / "a.seg"
    with pytest.raises(RuntimeError, match="decoder"), SegmentWriter(spec, path) as writer:
        _write_and_fail(writer, noise(info, 0), grey)
    with SegmentWriter(spec, path) as writer:
        writer.write(noise(info, 0), grey, grey, 5, 0)
        with pytest.raises(ValueError, match="expected pts above 5"):
            writer.write(noise(info, 0), grey, grey, 5, 0)
        with pytest.raises(ValueError, match=r"cb\.shape"):
            writer.write(noise(info, 0), grey[1:], grey, 6, 0)
        assert not path.exists()
    path.unlink()
    assert not list(tmp_path.iterdir())


def _write_and_fail(writer: SegmentWriter, luma: Any, grey: Any) -> None:
    writer.write(luma, grey, grey, 0, 0)
    raise RuntimeError("decoder")


def test_a_disk_that_fills_up_is_a_storage_error(tmp_path: Path) -> None:
    info = stream_info(width=320, height=240)
    spec = resolve_encoder(info, FFV1)
    with files_up_to(100_000), pytest.raises(StorageError, match=r"a\.seg: cannot be written") as caught:
        write_segment(spec, tmp_path / "a.seg", range(20), lambda at: noise(info, at))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_damage_to_a_segment_file_is_seen(tmp_path: Path) -> None:
    info = stream_info()
    spec = resolve_encoder(info, QUICK)
    path = tmp_path / "a.seg"
    segment = write_segment(spec, path, range(5), lambda at: noise(info, at))
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    with pytest.raises(VerificationError, match=r"a\.seg: damaged .*SHA-256"):
        list(open_packets(path).payloads(segment.sha256))
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(VerificationError, match="damaged"):
            open_packets(path)
    for at in range(len(whole) - 24, len(whole), 3):  # the trailer's numbers, made absurd
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with pytest.raises(VerificationError):
            list(open_packets(path).payloads(segment.sha256))


def test_the_same_frames_give_the_same_bits_whatever_lay_in_memory(tmp_path: Path) -> None:
    """Fresh memory filled with other bytes each time (glibc's MALLOC_PERTURB_) must not reach the bitstream."""
    program = (
        "import sys; import numpy as np; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from reels import stream_info, write_segment\n"
        "from pipeline.encode import EncoderSettings, resolve_encoder\n"
        "y, x = np.mgrid[0:240, 0:320]\n"
        "def moving(at):\n"
        "    grain = np.random.default_rng(at).normal(0, 3, y.shape)\n"
        "    return (120 + 60 * np.sin((x + at / 1200) / 9) * np.cos(y / 7) + grain).astype(np.uint8)\n"
        "spec = resolve_encoder(stream_info(width=320, height=240), EncoderSettings('h264', 18.0, 'medium'))\n"
        "print(write_segment(spec, Path(sys.argv[2]), range(0, 60 * 3600, 3600), moving).sha256)\n"
    )
    hashes = set()
    for fill in ("1", "85", "255"):
        command = [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / f"{fill}.seg")]
        environment = os.environ | {"MALLOC_PERTURB_": fill}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        hashes.add(run.stdout)
    assert len(hashes) == 1
