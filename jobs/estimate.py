"""How long and how large, before any work: from typical figures, or from a sample that was really coloured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from jobs.reels import AlbumReel, Reel, VideoReel
from jobs.sample import Sample

# Seconds of one worker (two processors of 2024): the network on a 256² picture, and for each megapixel of the frame
# decoding, guided chroma and encoding with the codec's usual preset.
_NETWORK = 0.045
_CODING = {"h264": 0.045, "hevc": 0.20, "av1": 0.10, "prores": 0.03, "ffv1": 0.04}
_IMAGE = 0.27  # for each megapixel of an image, a JPEG
_IMAGE_GROWTH = 2.5  # bytes of a JPEG in colour to those of its source
# Bits a pixel of grainy film at the codec's default quality; for FFV1, per bit of depth.
_BITS = {"h264": 0.35, "hevc": 0.20, "av1": 0.18, "prores": 3.6, "ffv1": 0.75}
_FOLLOWS_SOURCE = ("h264", "hevc", "av1")  # what was coded small is coded small again
_PROCESSORS = 2.0  # that a worker keeps busy
_FACTOR = 3  # that typical figures may be off by
BASIS = "typical figures for grainy film, two processors a worker; not measured here, "
BASIS += f"may be off by a factor of {_FACTOR}"


@dataclass(frozen=True)
class Range:
    """The likely value, and the bounds that it may be between."""

    low: float = 0.0
    likely: float = 0.0
    high: float = 0.0

    def __add__(self, other: Self) -> Range:
        """Bounds add up: as if all were low, or all high, together."""
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        """In another unit, or of so many."""
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def rounded(self, digits: int) -> list[float]:
        """For JSON: low, likely, high."""
        return [round(value, digits) for value in (self.low, self.likely, self.high)]


@dataclass(frozen=True)
class Cost:
    """What reels take: seconds of one worker, seconds of single processors, bytes of output."""

    seconds: Range = Range()
    processor_seconds: Range = Range()
    bytes: Range = Range()

    def __add__(self, other: Self) -> Cost:
        """Of both."""
        return Cost(
            self.seconds + other.seconds,
            self.processor_seconds + other.processor_seconds,
            self.bytes + other.bytes,
        )


def total(costs: Iterable[Cost]) -> Cost:
    """Of all together."""
    return sum(costs, Cost())


def costs(reels: Sequence[Reel], samples: Mapping[str, Sample]) -> list[Cost]:
    """Of each reel: from its own sample, else from those of its kind, by the picture's size; else typical figures."""
    rates: dict[type[Reel], list[Cost]] = {}
    for reel in reels:
        if reel.id in samples and reel.pixels:
            rates.setdefault(type(reel), []).append(_scaled(from_sample(reel, samples[reel.id]), 1 / reel.pixels))
    return [
        from_sample(reel, samples[reel.id])
        if reel.id in samples
        else _like(rates[type(reel)], reel)
        if type(reel) in rates
        else typical(reel)
        for reel in reels
    ]


def from_sample(reel: Reel, sample: Sample) -> Cost:
    """A reel's cost if all of it were like its shots; the bounds, if like the easiest or the hardest of them."""
    followers = max(0, reel.frames - len(reel.segments))
    seconds = [shot.lead_seconds * len(reel.segments) + shot.frame_seconds * followers for shot in sample.shots]
    if isinstance(reel, AlbumReel):
        stored = sum(s.bytes for s in sample.shots) / max(1, sum(s.source_bytes for s in sample.shots))
        ratios = [shot.bytes / max(1, shot.source_bytes) for shot in sample.shots]
        size = Range(min(ratios), stored, max(ratios)) * reel.contents.image_bytes
    else:
        size = _range([s.lead_bytes * len(reel.segments) + s.frame_bytes * followers for s in sample.shots])
    spent = _range(seconds)
    copied = Range(*[float(sample.copied_bytes)] * 3)
    return Cost(spent, spent * sample.processors, size + copied)


def typical(reel: Reel) -> Cost:
    """A reel's cost by typical figures."""
    coding = _CODING[reel.spec.codec] if isinstance(reel, VideoReel) else _IMAGE
    seconds = _within_factor(reel.frames * _NETWORK + reel.pixels / 1e6 * coding)
    return Cost(seconds, seconds * _PROCESSORS, _within_factor(_typical_bytes(reel)))


def _typical_bytes(reel: Reel) -> float:
    if isinstance(reel, AlbumReel):
        images, stored = reel.contents.image_bytes, int(reel.fingerprint["bytes"])
        return images * _IMAGE_GROWTH + max(0, stored - images)
    assert isinstance(reel, VideoReel)
    depth = reel.spec.bit_depth if reel.spec.codec == "ffv1" else 1
    figure = reel.pixels * _BITS[reel.spec.codec] * depth / 8
    return min(figure, 1.5 * reel.fingerprint["bytes"]) if reel.spec.codec in _FOLLOWS_SOURCE else figure


def _like(rates: Sequence[Cost], reel: Reel) -> Cost:
    """The cost of a reel that was not sampled, from what others take a pixel."""

    def spread(ranges: Sequence[Range]) -> Range:
        likely = statistics.fmean(r.likely for r in ranges)
        return Range(min(r.low for r in ranges), likely, max(r.high for r in ranges))

    rate = Cost(
        spread([r.seconds for r in rates]),
        spread([r.processor_seconds for r in rates]),
        spread([r.bytes for r in rates]),
    )
    return _scaled(rate, reel.pixels)


def _scaled(cost: Cost, factor: float) -> Cost:
    return Cost(cost.seconds * factor, cost.processor_seconds * factor, cost.bytes * factor)


def _range(values: Sequence[float]) -> Range:
    return Range(min(values), statistics.fmean(values), max(values))


def _within_factor(value: float) -> Range:
    return Range(value / _FACTOR, value, value * _FACTOR)
