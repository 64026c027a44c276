"""Streams that begin far behind a file's beginning: taken where FFmpeg can be told to look that far, else said."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from colorizers import Tinter
from media import Video, add_video, encode, write
from reels import QUICK

from pipeline.assemble import assemble
from pipeline.containers import choose_container
from pipeline.encode import resolve_encoder
from pipeline.errors import InputError
from pipeline.frames import Look, Segment, Source, StreamInfo
from pipeline.probe import other_streams, probe
from pipeline.reel import colorize_segment
from pipeline.verify import verify_reel

FILM = Video("mpeg2video", gop=5, format="vob")
LARGE = {"width": 128, "height": 96, "options": {"qmin": "1", "qmax": "1"}}
EARLY, LATE = 250, 120  # pictures: FFmpeg looks at 7 seconds of the beginning, and at 250 kB of the end


def part(path: Path, first: int, frames: int, sound: bool = False) -> bytes:
    """Pictures from the `first` on, in a program or transport stream of their own, with or without sound."""
    video = replace(FILM, frames=frames, **LARGE)
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".ts" else "vob") as out:
        stream = add_video(out, video)
        mp2: Any = out.add_stream("mp2", rate=48000, layout="mono") if sound else None
        packets = [packet for n in range(frames) for packet in encode(stream, video, n)] + stream.encode(None)
        for packet in packets:
            packet.pts += first
            packet.dts += first
            out.mux(packet)
        if sound:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1920 * frames), np.int16), "s16", "mono")
            tone.sample_rate, tone.pts, tone.time_base = 48000, 1920 * first, Fraction(1, 48000)
            out.mux([*mp2.encode(tone), *mp2.encode(None)])
    return path.read_bytes()


def colorized(info: StreamInfo, path: Path) -> Path:
    spec = resolve_encoder(info, QUICK)
    done = colorize_segment(info.source, info, Segment(0, None, None), Tinter(), Look(), spec, path)
    container = choose_container(info, spec, other_streams(info.source))
    return assemble(info.source, info, spec, container, [done], path.with_suffix(container.extension), {}).path


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path), options={"probesize": str(1 << 28), "analyzeduration": "1000000000"}) as given:
        return [bytes(packet) for packet in given.demux(audio=0) if packet.size]


def test_sound_that_begins_late_goes_along(tmp_path: Path) -> None:
    path = tmp_path / "a.vob"
    spans = [(0, EARLY, False), (EARLY, 10, True), (EARLY + 10, LATE, False)]
    path.write_bytes(b"".join(part(tmp_path / "part.vob", *span) for span in spans))
    with av.open(str(path)) as plain:
        assert [stream.type for stream in plain.streams] == ["video"], "FFmpeg sees it at once: the test is void"
    info = probe(Source(str(path)))
    assert [stream.codec for stream in other_streams(info.source)] == ["mp2"]
    made = colorized(info, tmp_path / "a.seg")
    assert sound_packets(made) == sound_packets(path) != []
    proof = verify_reel(Source(str(path)), made)
    assert (proof.problems, proof.streams) == ((), 2)


def test_sound_of_a_later_program_map_goes_along(tmp_path: Path) -> None:
    """FFmpeg takes the first map for all there is, once it has seen a picture and 100 kB."""
    path = tmp_path / "a.ts"
    spans = [(0, EARLY, False), (EARLY, 10, True), (EARLY + 10, LATE, False)]
    path.write_bytes(b"".join(part(tmp_path / "part.ts", *span) for span in spans))
    info = probe(Source(str(path)))
    assert [stream.codec for stream in other_streams(info.source)] == ["mp2"]
    made = colorized(info, tmp_path / "a.seg")
    proof = verify_reel(Source(str(path)), made)
    assert (proof.problems, proof.streams) == ((), 2)


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_sound_that_is_announced_and_comes_late_goes_along(tmp_path: Path, suffix: str) -> None:
    """As of a tape that runs before its sound begins: FFmpeg knows of the stream, and no more of it."""
    path = tmp_path / f"a{suffix}"
    video = replace(FILM, frames=EARLY, **LARGE)
    with av.open(str(path), "w") as out:
        stream, mp2 = add_video(out, video), out.add_stream("mp2", rate=48000, layout="mono")
        for n in range(EARLY):
            out.mux(encode(stream, video, n))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), "s16", "mono")
        tone.sample_rate, tone.pts, tone.time_base = 48000, 1920 * EARLY, Fraction(1, 48000)
        out.mux([*stream.encode(None), *mp2.encode(tone), *mp2.encode(None)])
    info = probe(Source(str(path)))
    made = colorized(info, tmp_path / "a.seg")
    assert sound_packets(made) == sound_packets(path) != []
    proof = verify_reel(Source(str(path)), made)
    assert (proof.problems, proof.streams) == ((), 2)


def test_sound_that_begins_too_late_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.vob"
    early, late = (part(tmp_path / "part.vob", first, n, True) for first, n in ((0, EARLY), (EARLY, 10)))
    rest = part(tmp_path / "part.vob", EARLY + 10, LATE)
    path.write_bytes(early + late.replace(b"\0\0\1\xc0", b"\0\0\1\xc1") + rest)
    monkeypatch.setattr("pipeline.latecomers._LOOKED_AT", (1 << 12,))
    info = probe(Source(str(path)))
    assert info.warnings == ("audio (mp2) that begins in its middle is left out",)
    made = colorized(info, tmp_path / "a.seg")
    assert len(other_streams(info.source)) == 1
    assert sound_packets(made) == sound_packets(path) != []
    proof = verify_reel(Source(str(path)), made)
    assert (proof.problems, proof.streams) == ((), 2)


def test_damage_that_looks_like_a_stream_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.vob"
    head, junk = (508).to_bytes(2, "big") + b"\x80\x80\5!\0\xa1\0\1", b"\x55" * 493
    no_such_pcm = b"\xa0\1\0\4\x0c\xff\x80"
    kinds = {0xC7: bytes(7), 0xE5: bytes(7), 0xBD: no_such_pcm}
    phantoms = [b"\0\0\1" + bytes([kind]) + head + start + junk for kind, start in kinds.items()]
    parts = [part(tmp_path / "part.vob", 0, EARLY), *phantoms, part(tmp_path / "part.vob", EARLY, LATE)]
    path.write_bytes(b"".join(parts))
    info = probe(Source(str(path)))
    assert [warning for warning in info.warnings if "left out" in warning] == [
        "audio stream 1 (mp2) begins in its middle and tells nothing of itself; it is left out",
        "video stream 2 (unknown) begins in its middle and tells nothing of itself; it is left out",
        "audio stream 3 (pcm_dvd) begins in its middle and tells nothing of itself; it is left out",
    ]
    made = colorized(info, tmp_path / "a.seg")
    proof = verify_reel(Source(str(path)), made)
    assert (proof.problems, proof.frames) == ((), EARLY + LATE)


@pytest.mark.parametrize("rest", [0, LATE])
def test_a_film_that_goes_on_under_another_pid_is_refused(tmp_path: Path, rest: int) -> None:
    """At the file's end FFmpeg has a look at its pictures' PID, before that it does not know of it."""
    first = write(tmp_path / "a.ts", codec="mpeg2video", frames=EARLY, **LARGE)
    second = write(tmp_path / "b.ts", codec="mpeg2video", mux={"mpegts_start_pid": "512"}, **LARGE)
    parts = [first.read_bytes(), second.read_bytes()]
    if rest:
        parts.append(write(tmp_path / "c.ts", codec="mpeg2video", frames=rest, **LARGE).read_bytes())
    path = tmp_path / "all.ts"
    path.write_bytes(b"".join(parts))
    with av.open(str(path)) as plain:
        assert len(plain.streams) == (1 if rest else 2)
    with pytest.raises(InputError, match=r"another video stream \(mpeg2video\) begins in its middle.*pass the parts"):
        probe(Source(str(path)))


@pytest.mark.parametrize("rest", [0, LATE])
def test_a_film_that_goes_on_as_another_stream_is_refused_though_it_could_be_copied(tmp_path: Path, rest: int) -> None:
    path = tmp_path / "a.vob"
    spans = [(0, EARLY, 0xE0), (EARLY, 20, 0xE1), (EARLY + 20, rest, 0xE0)]
    parts = [
        part(tmp_path / "part.vob", first, frames).replace(b"\0\0\1\xe0", b"\0\0\1" + bytes([kind]))
        for first, frames, kind in spans
        if frames
    ]
    path.write_bytes(b"".join(parts))
    with pytest.raises(InputError, match=r"another video stream \(mpeg2video\) begins in its middle"):
        probe(Source(str(path)))
