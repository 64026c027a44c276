"""PCM as discs and SMPTE 302M wrap it comes out as plain PCM of the same samples, by decoding both."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Video, add_video, encode
from numpy.typing import NDArray
from reels import QUICK, choose, colorized

from pipeline.encode import PROFILES, EncoderSettings
from pipeline.frames import Source
from pipeline.verify import verify_reel

FRAMES = 12


def disc(path: Path, codec: str, format: str, layout: str, kind: str) -> Path:
    """Pictures with half a second of noise."""
    wide = kind == "s32"
    channels = av.AudioLayout(layout).nb_channels
    noise = np.random.default_rng(1).integers(-(1 << 23), 1 << 23, (1, 24000 * channels))
    samples = (noise << 8).astype(np.int32) if wide else (noise >> 8).astype(np.int16)
    video = Video("mpeg2video", frames=FRAMES, format=format)
    with av.open(str(path), "w", format=format) as out:
        stream = add_video(out, video)
        packets = [packet for n in range(FRAMES) for packet in encode(stream, video, n)] + stream.encode(None)
        if codec == "s302m":
            packets += list(smpte_302m(out.add_mux_stream(codec, rate=48000), samples.reshape(-1, channels) >> 8))
        else:
            sound: Any = out.add_stream(codec, rate=48000, layout=layout)
            sound.format = kind
            tone = av.AudioFrame.from_ndarray(samples, kind, layout)
            tone.sample_rate, tone.pts = 48000, 0
            packets += [*sound.encode(tone), *sound.encode(None)]
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)
    return path


def smpte_302m(stream: Any, samples: NDArray[Any]) -> Iterator[av.Packet[Any]]:
    """Codes (N, C) of 24 bits as AES3 has them, the lowest bit first and four flags after each, 1/25 s a packet."""
    stream.time_base = Fraction(1, 48000)
    for at in range(0, len(samples), 1920):
        part = samples[at : at + 1920]
        bits = np.pad(part.reshape(-1, 1) >> np.arange(24) & 1, ((0, 0), (0, 4)))
        body = np.packbits(bits.astype(np.uint8)).tobytes()
        header = len(body) << 16 | (part.shape[1] - 2) // 2 << 14 | 2 << 4
        packet = av.Packet(header.to_bytes(4, "big") + body)
        packet.stream, packet.time_base = stream, stream.time_base
        packet.pts = packet.dts = at
        yield packet


def heard(path: Path) -> tuple[NDArray[Any], float]:
    """(samples, channels interleaved; when the first is heard, after the first picture)."""
    with av.open(str(path)) as given:
        frames = list(given.decode(audio=0))
    with av.open(str(path)) as given:
        shown = next(given.decode(video=0))
    assert shown.pts is not None
    assert frames[0].pts is not None
    start = float(frames[0].pts * frames[0].time_base - shown.pts * shown.time_base)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), start


@pytest.mark.parametrize(
    ("codec", "format", "layout", "kind", "settings", "plain"),
    [
        ("pcm_dvd", "vob", "stereo", "s16", QUICK, "pcm_s16le"),
        ("pcm_dvd", "vob", "stereo", "s32", PROFILES["preservation"], "pcm_s24le"),
        ("pcm_bluray", "mpegts", "5.1(side)", "s32", PROFILES["preservation"], "pcm_s24le"),
        ("pcm_bluray", "mpegts", "stereo", "s16", PROFILES["mezzanine"], "pcm_s16le"),
        ("s302m", "mpegts", "5.1(side)", "s32", PROFILES["preservation"], "pcm_s24le"),
    ],
)
def test_every_sample_is_kept(
    tmp_path: Path, codec: str, format: str, layout: str, kind: str, settings: EncoderSettings, plain: str
) -> None:
    path = disc(tmp_path / ("a.m2ts" if format == "mpegts" else "a.vob"), codec, format, layout, kind)
    made = colorized(path, settings)
    notes = choose(path, settings)[-1].notes
    assert any(f"audio stream 1 ({codec}) becomes {plain}, sample for sample: " in note for note in notes)
    with av.open(str(made.path)) as given:
        context = given.streams.audio[0].codec_context
        channels = av.AudioLayout(layout).nb_channels  # Matroska keeps no more of a layout of PCM
        assert (context.name, context.sample_rate, context.layout.nb_channels) == (plain, 48000, channels)
    samples, start = heard(path)
    kept, kept_start = heard(Path(str(made.path)))
    np.testing.assert_array_equal(kept, samples)
    assert len(samples) >= 24000
    assert abs(kept_start - start) < 0.0011
    assert verify_reel(Source(str(path)), made.path).problems == ()


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path) -> None:
    path = disc(tmp_path / "a.m2ts", "pcm_bluray", "mpegts", "stereo", "s16")
    samples, _ = heard(path)
    data = bytearray(path.read_bytes())
    begins = [at for at in range(len(data) - 9) if data[at : at + 4] == b"\0\0\1\xbd"]
    data[begins[9] + 9 + data[begins[9] + 8] + 3] = 0  # bits of a sample
    path.write_bytes(data)
    made = colorized(path, PROFILES["preservation"])
    assert "1 packets of audio stream 1 (pcm_bluray) left out: damaged, or PCM of another kind" in made.warnings
    each = len(samples) // len(begins)
    np.testing.assert_array_equal(heard(Path(str(made.path)))[0], np.delete(samples, slice(9 * each, 10 * each)))
    assert verify_reel(Source(str(path)), made.path).problems == ()


@pytest.mark.parametrize(("layout", "kind"), [("mono", "s16"), ("stereo", "s32")])
def test_pcm_that_becomes_another_kind_is_left_out_from_there_and_said(tmp_path: Path, layout: str, kind: str) -> None:
    """As where recordings were put end to end; in plain PCM its bytes would be noise."""
    path = disc(tmp_path / "a.m2ts", "pcm_bluray", "mpegts", "stereo", "s16")
    samples, _ = heard(path)
    other = disc(tmp_path / "b.m2ts", "pcm_bluray", "mpegts", layout, kind)
    count = other.read_bytes().count(b"\0\0\1\xbd")
    path.write_bytes(path.read_bytes() + other.read_bytes())
    made = colorized(path, PROFILES["preservation"])
    lost = f"{count} packets of audio stream 1 (pcm_bluray) left out: damaged, or PCM of another kind"
    assert lost in made.warnings
    np.testing.assert_array_equal(heard(Path(str(made.path)))[0], samples)
    assert verify_reel(Source(str(path)), made.path).problems == ()
