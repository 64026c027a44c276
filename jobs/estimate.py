"""How long and how large, before any work; a rough model, said with every figure it gives."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.reels import Reel, VideoReel

# Seconds of one worker (two processors of 2024): the network on a 256² picture, and for each megapixel of the frame
# decoding, guided chroma and encoding with the codec's usual preset.
_NETWORK = 0.045
_CODING = {"h264": 0.045, "hevc": 0.20, "av1": 0.10, "prores": 0.03, "ffv1": 0.04}
_IMAGE = 0.10  # for each megapixel of an image
# Bits a pixel of grainy film at the codec's default quality; for FFV1, per bit of depth.
_BITS = {"h264": 0.35, "hevc": 0.20, "av1": 0.18, "prores": 3.6, "ffv1": 0.75}
_FOLLOWS_SOURCE = ("h264", "hevc", "av1")  # what was coded small is coded small again
BASIS = "typical figures for grainy film, two processors a worker; not measured here, may be off by a factor of 3"


def seconds(reels: Sequence[Reel], workers: int) -> float:
    """Wall-clock time to colour the reels with this many workers."""
    return sum(map(_worker_seconds, reels)) / workers


def _worker_seconds(reel: Reel) -> float:
    coding = _CODING[reel.spec.codec] if isinstance(reel, VideoReel) else _IMAGE
    return reel.frames * _NETWORK + reel.pixels / 1e6 * coding


def output_bytes(reel: Reel) -> float:
    """Size of the output."""
    if not isinstance(reel, VideoReel):
        return float(reel.fingerprint.get("bytes", 0)) * 1.2
    depth = reel.spec.bit_depth if reel.spec.codec == "ffv1" else 1
    typical = reel.pixels * _BITS[reel.spec.codec] * depth / 8
    return min(typical, 1.5 * reel.fingerprint["bytes"]) if reel.spec.codec in _FOLLOWS_SOURCE else typical
