"""FFV1's slices tell which pictures are damaged, as a CRC bit by bit and FFmpeg's own log have it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fakes import run
from hypothesis import given
from hypothesis import strategies as st
from media import Video, write

from pipeline.declaring import declare_unlisted_video
from pipeline.decode import DecodeReport, decode_frames, decode_segment
from pipeline.ffv1 import _AFTER_ONE, crc_reference, is_damaged
from pipeline.frames import Source
from pipeline.probe import probe
from pipeline.segments import cut_segments
from pipeline.temporal import warmup_frames
from pipeline.verify import verify_reel

Hurt = Callable[[bytearray], object]  # what happens to a packet
SLICED = {"level": "3", "slices": "4"}
FOURTH = {"level": "4", "slices": "4", "strict": "experimental"}
REFERENCES = {0: None, 1: 0xFFFFFFFF, 2: 0xA1CEFD61}  # by ec
INITIAL = {"3": 0, "4": 0x79408C7A}  # by version, as this library's FFmpeg writes them
KINDS = {
    "8 bit": Video("ffv1", "yuv420p", gop=1, options=SLICED),
    "16 bit": Video("ffv1", "gray16le", gop=1, options=SLICED | {"slices": "9"}),
    "10 bit, gop": Video("ffv1", "gray10le", gop=12, options=SLICED | {"context": "1"}),
    "range coder, gop": Video("ffv1", "yuv444p", gop=12, options=SLICED | {"coder": "1"}),
    "default table": Video("ffv1", "yuv422p10le", gop=1, options=SLICED | {"coder": "-2"}),
    "version 4": Video("ffv1", "gray", gop=1, options=FOURTH),
    "version 4, gop": Video("ffv1", "yuv420p10le", gop=12, options=FOURTH | {"coder": "1"}),
}
WITHOUT = {
    "version 0": Video("ffv1", "gray", options={"level": "0"}),
    "version 1": Video("ffv1", "gray10le", options={"level": "1"}),
    "version 3": Video("ffv1", "gray", options=SLICED | {"slicecrc": "0"}),
    "version 4": Video("ffv1", "gray10le", options=FOURTH | {"slicecrc": "0"}),
}


def remainder(data: bytes, initial: int) -> int:
    """The CRC of RFC 9043, 4.9.3, bit by bit."""
    register = initial
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


def slices(packet: bytes) -> Iterator[bytes]:
    """From the last to the first (9.1.1)."""
    while packet:
        size = int.from_bytes(packet[-8:-5]) + 8
        assert 8 < size <= len(packet)
        yield packet[-size:]
        packet = packet[:-size]


def packets(path: Path) -> list[av.Packet[Any]]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def record(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return bytes(container.streams.video[0].codec_context.extradata or b"")


def hurt(path: Path, target: Path, hurts: Mapping[int, Hurt]) -> Path:
    """The same packets but those of these ordinals, to which something happens."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        stream = declare_unlisted_video(out, source.streams.video[0], Fraction(25))
        stream.time_base = Fraction(1, 25)
        for n, packet in enumerate(p for p in source.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            hurts.get(n, len)(data)
            copy = av.Packet(bytes(data))
            copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            out.mux(copy)
    return target


def flip(at: float, number: int = 0) -> Hurt:
    """One bit of a slice changes, at a share of what it has before its footer; number: from the last slice on."""

    def flipped(data: bytearray) -> None:
        end = len(data) - sum(map(len, list(slices(bytes(data)))[:number])) - 8
        size = int.from_bytes(data[end : end + 3])
        data[end - size + int(at * (size - 1))] ^= 8

    return flipped


class RangeEncoder:
    """Codes bits and numbers as RFC 9043, 3.8.1 has them decoded, in one long number."""

    def __init__(self) -> None:
        self.low, self.range, self.bytes = 0, 0xFF00, 2

    def bit(self, bit: bool, state: bytearray, at: int = 0) -> None:
        ones = self.range * state[at] >> 8
        self.low += (self.range - ones) * bit
        self.range = ones if bit else self.range - ones
        state[at] = _AFTER_ONE[state[at]] if bit else 256 - _AFTER_ONE[256 - state[at]]
        if self.range < 256:
            self.low, self.range, self.bytes = self.low << 8, self.range << 8, self.bytes + 1

    def number(self, value: int, state: bytearray, signed: bool = False) -> None:
        self.bit(not value, state)
        if value:
            digits = f"{abs(value):b}"[1:]
            for n in range(len(digits) + 1):
                self.bit(n < len(digits), state, 1 + min(n, 9))
            for n, digit in enumerate(digits):
                self.bit(digit == "1", state, 22 + min(len(digits) - 1 - n, 9))
            if signed:
                self.bit(value < 0, state, 11 + min(len(digits), 10))


def two_pass_record(ec: int, coder: int) -> bytes:
    """A configuration record with states to begin with, as of an encoder that has seen the pictures before."""
    coded, state = RangeEncoder(), bytearray([128] * 32)
    for value in (3, 4, coder):
        coded.number(value, state)
    for n in range(255 if coder == 2 else 0):
        coded.number(n % 2, state, signed=True)
    for value, is_bit in ((0, 0), (8, 0), (0, 1), (0, 0), (0, 0), (0, 1), (1, 0), (1, 0), (2, 0)):
        coded.bit(bool(value), state) if is_bit else coded.number(value, state)
    for lengths in [(9, 19, 100), (28, 100), (128,), (128,), (128,)] * 2:  # so many entries are alike: 8 contexts
        table = bytearray([128] * 32)
        for length in lengths:
            coded.number(length - 1, table)
    coded.bit(True, state)
    deltas = [bytearray([128] * 32) for _ in range(32)]
    for context in range(8):
        for n, delta in enumerate(deltas):
            coded.number((context * n) % 37 - 18, delta, signed=True)
    coded.bit(False, state)
    coded.number(ec, state)
    coded.number(1, state)
    body = (coded.low + coded.range - 1).to_bytes(coded.bytes)
    return body + remainder(body, 0).to_bytes(4)


def as_ffmpeg_reads(record: bytes) -> int:
    """`ec` of a configuration record, from FFmpeg's log."""
    decoder: Any = av.CodecContext.create("ffv1", "r")
    decoder.extradata, decoder.width, decoder.height, decoder.options = record, 64, 48, {"debug": "pict"}
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture() as lines:
            decoder.open()
    finally:
        av.logging.set_level(None)
    return int(re.findall(r" ec:(\d)", "".join(text for _, _, text in lines))[0])


def decoded(path: Path) -> tuple[DecodeReport, list[int]]:
    """What the whole file's decoding tells, and the ordinals of pictures that are spoilt."""
    source, report = Source(str(path)), DecodeReport()
    pts = [int(t) for batch in decode_frames(source, probe(source), report) for t in batch.pts]
    return report, [pts.index(t) for t in report.spoilt]


def logged(path: Path) -> list[int]:
    """Ordinals of packets of which FFmpeg's decoder logs that a slice's CRC is wrong."""
    found = []
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for n, packet in enumerate(p for p in container.demux(video=0) if p.size):
                with av.logging.Capture() as lines:
                    packet.decode()
                found += [n] * any("slice CRC mismatch" in text for _, _, text in lines)
    finally:
        av.logging.set_level(None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found_and_nothing_else(tmp_path: Path, kind: str) -> None:
    video = KINDS[kind]
    path = write(tmp_path / "a.mkv", video, frames=3)
    initial, reference = INITIAL[video.options["level"]], crc_reference(record(path))
    assert reference is not None
    random = np.random.default_rng(0)
    for packet in map(bytes, packets(path)):
        assert not is_damaged(packet, reference)
        whole = list(slices(packet))
        assert len(whole) == int(video.options["slices"])
        assert all(remainder(one, initial) == initial for one in whole)
        for bit in {0, 8 * len(packet) - 1, *random.integers(0, 8 * len(packet), 50)}:
            changed = bytearray(packet)
            changed[bit // 8] ^= 1 << bit % 8
            assert is_damaged(bytes(changed), reference)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "version" not in kind])
def test_damaged_pictures_are_counted_as_ffmpeg_logs_them(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.mkv", KINDS[kind], frames=40)
    assert decoded(path)[0].warnings == ()
    hurts = {3: flip(0.4), 4: flip(0.9, 2), 17: flip(0.2, 3), 30: flip(1, 1)}
    report, spoilt = decoded(hurt(path, tmp_path / "b.mkv", hurts))
    assert logged(tmp_path / "b.mkv") == [*hurts]
    assert report.warnings == ("4 damaged pictures patched by the decoder",)
    gop = KINDS[kind].gop
    assert spoilt == sorted({n for at in hurts for n in range(at, min(40, at // gop * gop + gop))})


@pytest.mark.parametrize("name", ["a.avi", "a.mov", "a.mp4", "a.nut", "a.mkv"])
def test_in_every_container(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "whole.mkv", KINDS["8 bit"], frames=20)
    report, spoilt = decoded(hurt(path, tmp_path / name, {2: flip(0.5), 9: flip(0.1)}))
    assert (report.concealed, spoilt) == (2, [2, 9])


def middle(data: bytearray) -> None:
    data[len(data) // 2] ^= 8


@pytest.mark.parametrize("kind", WITHOUT)
def test_nothing_is_claimed_where_slices_have_no_crc(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a.mkv", WITHOUT[kind], frames=12)
    assert crc_reference(record(path)) is None
    assert decoded(hurt(path, tmp_path / "b.mkv", {5: middle}))[0].concealed == 0


def test_pictures_that_segments_share_in_warm_ups_count_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", KINDS["8 bit"], frames=60)
    hurts = {n: flip(0.5) for n in range(0, 60, 4)}
    source = Source(str(hurt(path, tmp_path / "b.mkv", hurts)))
    info = probe(source)
    segments = cut_segments(source, info, 0.4, 3)
    assert len(segments) > 3
    reports = [DecodeReport() for _ in segments]
    for segment, report in zip(segments, reports, strict=True):
        assert sum(map(len, decode_segment(source, info, segment, 3, report)))
    assert sum(report.concealed for report in reports) == len(hurts)


def test_cut_and_lengthened_and_emptied_packets(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", KINDS["8 bit"], frames=1)
    (packet,), reference = map(bytes, packets(path)), crc_reference(record(path))
    assert reference is not None
    ends = {len(packet) - sum(map(len, list(slices(packet))[:n])) for n in range(5)}
    assert {n for n in range(len(packet) + 1) if not is_damaged(packet[:n], reference)} == ends
    for zeros in range(1, 40):
        assert is_damaged(bytes(zeros), reference)
        assert is_damaged(packet + bytes(zeros), reference)
        assert is_damaged(bytes(zeros) + packet, reference)


def test_what_the_decoder_refuses_is_no_patched_picture_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", KINDS["8 bit"], frames=20)

    def cut(data: bytearray) -> None:
        del data[len(data) // 2 :]

    def zero(data: bytearray) -> None:
        data[:] = bytes(len(data))

    report, _ = decoded(hurt(path, tmp_path / "b.mkv", {4: cut, 8: flip(0.5), 12: zero}))
    refused = 0
    with av.open(str(tmp_path / "b.mkv")) as container:
        for packet in container.demux(video=0):
            try:
                packet.decode()
            except av.FFmpegError:
                refused += 1
    assert refused
    assert (report.undecodable, report.concealed) == (refused, 3 - refused)


@pytest.mark.parametrize("kind", [*KINDS, *WITHOUT])
def test_the_record_is_read_as_ffmpeg_reads_it(tmp_path: Path, kind: str) -> None:
    video = (KINDS | WITHOUT)[kind]
    path = write(tmp_path / "a.mkv", video, frames=1)
    has_record = video.options["level"] > "1"
    ec = as_ffmpeg_reads(record(path)) if has_record else 0
    assert crc_reference(record(path)) == REFERENCES[ec]


@pytest.mark.parametrize("ec", REFERENCES)
@pytest.mark.parametrize("coder", [0, 1, 2])
def test_states_of_a_first_pass_are_passed_over(ec: int, coder: int) -> None:
    made = two_pass_record(ec, coder)
    assert ec == 2 or as_ffmpeg_reads(made) == ec  # whose record has another CRC itself
    assert crc_reference(made) == REFERENCES[ec]


@pytest.mark.usefixtures("no_ray")
def test_a_damaged_keyframe_in_a_warm_up_comes_out_otherwise_and_verifies(tmp_path: Path) -> None:
    """Its slices are the picture's before it where there is one, and damaged where decoding begins with it."""
    whole = write(tmp_path / "whole.mkv", KINDS["range coder, gop"], frames=60, rate=Fraction(10), gop=20)
    path = hurt(whole, tmp_path / "a.mkv", {5: flip(0.5), 20: flip(0.3), 50: flip(0.5)})
    info = probe(Source(str(path)))
    *_, last = cut_segments(info.source, info, 1, warmup_frames(info.fps))
    assert (last.seek, last.start) == (2000, 3600), "ms of pictures 20 and 36"
    (result,) = run(path, out=tmp_path / "out", codec="ffv1", preset=None).results
    assert (result.status, result.frames) == ("done", 60)
    assert "3 damaged pictures patched by the decoder" in result.warnings
    proof = verify_reel(Source(str(path)), result.output)
    assert proof.problems == ()
    assert "4 damaged pictures of the source were patched otherwise by the decoder" in proof.warnings


@given(st.binary(max_size=300), st.integers(0, 2), st.integers(0, 300))
def test_any_bytes_are_a_record_or_none(data: bytes, coder: int, at: int) -> None:
    assert crc_reference(data) in REFERENCES.values()
    made = two_pass_record(1, coder)
    assert crc_reference(made[:at] + data[:4] + made[at + 4 :]) in REFERENCES.values()


@given(st.lists(st.binary(max_size=20), max_size=4), st.binary(max_size=12))
def test_a_packet_is_right_where_all_its_slices_are(contents: list[bytes], before: bytes) -> None:
    packet = b""
    for content in contents:
        body = content + len(content).to_bytes(3) + bytes(1)
        packet += body + remainder(body, 0).to_bytes(4)
    assert is_damaged(packet, 0xFFFFFFFF) == (not all(contents))
    assert is_damaged(before + packet, 0xFFFFFFFF) == bool(before or not all(contents))
