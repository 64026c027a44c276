"""What Matroska has no code of its own for goes along with FFV1 byte for byte, in .mkv or else in .mov."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Video, add_video, encode, linear
from reels import choose, colorized, contents

from pipeline.encode import PROFILES
from pipeline.errors import UnsupportedError
from pipeline.frames import Source
from pipeline.scheduling import ordinary_threads
from pipeline.verify import verify_reel

FFV1 = PROFILES["preservation"]
SECOND = 22050  # samples, where the codec asks for no other rate


def film(path: Path, sound: str, video: Video) -> Path:
    """Pictures with a second of noise; in MOV with a timecode."""
    with av.open(str(path), "w", format=video.format) as out:
        stream = add_video(out, video)
        if path.suffix == ".mov":
            stream.metadata["timecode"] = "10:20:30:00"
        rate = 8000 if "amr" in sound else SECOND
        heard: Any = out.add_stream(sound, rate=rate, layout="mono")
        noise = np.random.default_rng(1).normal(0, 3000, (1, rate))
        kind = {"nellymoser": "flt", "pcm_s8": "u8", "adpcm_ima_qt": "s16p"}.get(sound, "s16")
        scaled = {"flt": noise / 32768, "u8": 128 + noise / 256}.get(kind, noise)
        dtype = {"flt": np.float32, "u8": np.uint8}.get(kind, np.int16)
        tone = av.AudioFrame.from_ndarray(scaled.astype(dtype), kind, "mono")
        tone.sample_rate, tone.pts = rate, 0
        packets = [packet for n in range(video.frames) for packet in encode(stream, video, n)] + stream.encode(None)
        packets += [*heard.encode(tone), *heard.encode(None)]
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)
    return path


def shape(path: Path) -> tuple[Any, ...]:
    """What a player has to know of the first picture."""
    with av.open(str(path)) as given:
        shown = next(given.decode(video=0))
        return shown.rotation, shown.interlaced_frame, given.streams.video[0].sample_aspect_ratio or 1


def carried(path: Path) -> tuple[str, int, bytes, float]:
    """(codec, rate, all bytes, first time after the first picture's) of the sound, by a plain demuxer."""
    with av.open(str(path)) as given:
        sound = given.streams.audio[0]
        packets = [p for p in given.demux(sound) if p.size]
        context = sound.codec_context
        name, rate = context.codec.canonical_name, context.sample_rate
    with av.open(str(path)) as given:
        shown = next(given.decode(video=0))
    assert packets[0].pts is not None
    assert shown.pts is not None
    start = float(packets[0].pts * packets[0].time_base - shown.pts * shown.time_base)
    return name, rate, b"".join(bytes(p) for p in packets), start


@pytest.mark.parametrize(
    ("name", "sound", "video", "extension"),
    [
        ("a.mov", "pcm_mulaw", Video(frames=12), ".mkv"),
        ("a.mov", "pcm_alaw", Video("mjpeg", "yuvj420p", frames=12), ".mkv"),
        ("a.mov", "pcm_s8", Video(frames=12), ".mov"),
        ("a.mov", "adpcm_ima_qt", Video(frames=12, rotation=90, sar=Fraction(4, 3)), ".mov"),
        ("a.mov", "adpcm_ima_qt", Video("mpeg2video", frames=12, interlaced=True), ".mov"),
        ("a.3gp", "libopencore_amrnb", Video(frames=12, rate=Fraction(30000, 1001)), ".mov"),
        ("a.flv", "nellymoser", Video("flv", frames=12), ".mov"),
    ],
)
def test_sound_goes_along_byte_for_byte(tmp_path: Path, name: str, sound: str, video: Video, extension: str) -> None:
    path = film(tmp_path / name, sound, video)
    made = Path(str(colorized(path, FFV1).path))
    assert made.suffix == extension
    codec, rate, payload, start = carried(path)
    kept_codec, kept_rate, kept, kept_start = carried(made)
    assert (kept_codec, kept_rate, kept) == (codec, rate, payload)
    assert len(payload) > 500
    assert abs(kept_start - start) < 0.0011
    assert [luma for _, luma in linear(made, video.width)] == [luma for _, luma in linear(path, video.width)]
    assert shape(made) == shape(path)
    with av.open(str(made)) as given:
        assert given.streams.video[0].codec_context.name == "ffv1"
        timed = "10:20:30:00" in given.streams.video[0].metadata.values()
    assert timed == name.endswith(".mov")
    assert verify_reel(Source(str(path)), made).problems == ()


def test_closed_captions_of_mov_stay_in_mov(tmp_path: Path) -> None:
    path, video = tmp_path / "a.mov", Video(frames=12)
    with av.open(str(path), "w") as out:
        stream, captions = add_video(out, video), out.add_mux_stream("eia_608")
        captions.time_base = Fraction(1, 1000)
        with ordinary_threads():
            out.start_encoding()
        out.mux([packet for n in range(12) for packet in encode(stream, video, n)] + stream.encode(None))
        for at in (0, 200):
            pair = av.Packet(b"\0\0\0\x0acdat\x94\x20")
            pair.stream, pair.time_base, pair.pts, pair.dts, pair.duration = captions, Fraction(1, 1000), at, at, 200
            out.mux(pair)
    made = Path(str(colorized(path, FFV1).path))
    told = [packets for name, packets in contents(path).items() if name.startswith("subtitle")]
    assert [len(packets) for packets in told] == [2]
    assert [packets for name, packets in contents(made).items() if name.startswith("subtitle")] == told
    assert verify_reel(Source(str(path)), made).problems == ()


def test_the_container_is_explained(tmp_path: Path) -> None:
    *_, container = choose(film(tmp_path / "a.3gp", "libopencore_amrnb", Video(frames=2)), FFV1)
    assert "written as .mov: Matroska cannot hold audio stream 1 (amr_nb); mp4 cannot" in container.notes[0]


def test_what_nothing_holds_is_named(tmp_path: Path) -> None:
    path = film(tmp_path / "a.flv", "adpcm_swf", Video("flv", frames=2))
    with pytest.raises(
        UnsupportedError, match=r"Matroska cannot hold audio stream \d \(adpcm_swf\); mov cannot"
    ) as caught:
        choose(path, FFV1)
    assert str(caught.value).endswith("convert that stream beforehand, remove it, or choose another --codec")
