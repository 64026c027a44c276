"""The proof: source and output decoded side by side, pictures at their times, luma compared, streams counted."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np

from pipeline.ahead import ahead
from pipeline.copying import Copier
from pipeline.decode import DecodeReport, decode_frames
from pipeline.demux import open_whole
from pipeline.frames import Plane, Source, StreamInfo
from pipeline.join import same_family
from pipeline.lumamap import LumaMap
from pipeline.probe import probe
from pipeline.storage import Place
from pipeline.streams import (
    before_zero,
    codec_name,
    cover_pictures,
    describe,
    is_cover,
    is_made_by_muxer,
    kept_tags,
    rescale,
)
from pipeline.written import Expected, changed_tags, chapters_of, find_problems, open_written

LOSSLESS = frozenset(("ffv1", "ffvhuff", "huffyuv", "magicyuv", "rawvideo", "utvideo"))
LEAST_PSNR = 20.0  # dB of every picture in a lossy output; another picture in its place gives about 10 to 15
_EQUAL = 100.0  # dB counted for pictures without any difference

Picture = tuple[int, Plane]  # pts, luma (H, W)


@dataclass(frozen=True)
class Verification:
    """What a comparison found; good when `problems` is empty.

    exact: every luma sample equals the source's, as the output's depth and range hold it; the two SHA-256 are over
    those Y planes in order, little-endian. psnr_mean, psnr_min: PSNR-Y in dB per picture, 100 where equal.
    """

    frames: int
    streams: int
    exact: bool
    source_sha256: str
    output_sha256: str
    psnr_mean: float
    psnr_min: float
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def verify_reel(source: Source, output: str | Place) -> Verification:
    """Compare an output with its source by decoding both whole.

    Tolerances: timestamps must agree to the tick of the output's time base; luma of a lossless codec exactly, of a
    lossy one to 20 dB in every picture; chapters to a millisecond; tags are compared, but only warned of. Raises
    InputError where either cannot be read.
    """
    made = Source(str(output))
    result = probe(made)
    info = probe(source, result.fps)
    source = info.source
    shift = _shift(source, info, result)
    later = round(shift / result.time_base)
    report = DecodeReport()

    def moved(pts: int) -> int:
        return rescale(pts, info.time_base, result.time_base) + later

    def spoilt(pts: int) -> bool:
        at = bisect_left(report.spoilt, pts, key=moved)
        return at < len(report.spoilt) and moved(report.spoilt[at]) == pts

    comparison = _Comparison(info, result, spoilt)
    ours, theirs = _pictures(source, info, report), _pictures(made, result, DecodeReport())
    for wanted, got in _aligned(ours, theirs, info, result, later):
        comparison.add(wanted, got)
    problems = comparison.problems()
    expected, left_out = _expected(source, info, output, result, comparison.pts, shift)
    problems += [expected] if isinstance(expected, str) else find_problems(output, expected)
    with open_whole(source) as opened:
        tags = changed_tags(output, kept_tags(opened, _muxer(result)))
        streams = len(opened.streams)
    warnings = [f"{name} is not in it" for name in left_out]
    warnings += [f"tag {key} is not the source's" for key in tags]
    if report.beyond:
        warnings.append(f"{report.beyond} pictures of the source have samples too great for their depth")
    if shift:
        warnings.append(f"every time is {float(shift):g} s later than in the source, which begins before zero")
    return comparison.verification(streams, problems, warnings)


def _shift(source: Source, info: StreamInfo, result: StreamInfo) -> Fraction:
    """Seconds by which an output is later, where the source begins before zero and the container could not."""
    with open_whole(source) as opened:
        shift = before_zero(opened, info.start_pts * info.time_base)
    found = result.start_pts * result.time_base - info.start_pts * info.time_base
    return shift if 2 * found > shift else Fraction(0)


def _pictures(source: Source, info: StreamInfo, report: DecodeReport) -> Iterator[Picture]:
    for batch in ahead(decode_frames(source, info, report)):
        yield from ((int(pts), cast(Plane, luma)) for pts, luma in zip(batch.pts, batch.luma, strict=True))


def _aligned(
    wanted: Iterator[Picture], got: Iterator[Picture], info: StreamInfo, result: StreamInfo, later: int
) -> Iterator[tuple[Picture | None, Picture | None]]:
    """Pictures of the two that are shown at one time, in the result's unit; None for a side that has none then.

    later: ticks of the result by which it is later than the source.
    """

    def following(pictures: Iterator[Picture], unit: StreamInfo) -> Picture | None:
        picture = next(pictures, None)
        moved = later if unit is info else 0
        return picture and (rescale(picture[0], unit.time_base, result.time_base) + moved, picture[1])

    ours, theirs = following(wanted, info), following(got, result)
    while ours or theirs:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            yield ours, None
            ours = following(wanted, info)
        elif ours is None or theirs[0] < ours[0]:
            yield None, theirs
            theirs = following(got, result)
        else:
            yield ours, theirs
            ours, theirs = following(wanted, info), following(got, result)


class _Comparison:
    """Gathers what pairs of pictures have in common.

    spoilt: whether the source's picture at a time, in the result's unit, is damaged; what a decoder puts in place of
    what is missing depends on where it began.
    """

    def __init__(self, info: StreamInfo, result: StreamInfo, spoilt: Callable[[int], bool]) -> None:
        self._info, self._result, self._spoilt = info, result, spoilt
        self._same_size = (info.width, info.height) == (result.width, result.height)
        self._widened = result.color.full_range and not info.color.full_range
        self._map = LumaMap(
            info.bit_depth, result.bit_depth, info.color.full_range, result.color.full_range and not self._widened
        )
        self._digests = hashlib.sha256(), hashlib.sha256()
        self._psnr: list[float] = []
        self._patched = 0
        self._unequal: float | None = None  # seconds of the first picture whose luma differs
        self._missing: list[float] = []
        self._extra: list[float] = []
        self.pts: list[int] = []  # of the source's pictures, in the result's unit

    def add(self, wanted: Picture | None, got: Picture | None) -> None:
        """Count one time at which either has a picture."""
        unit = self._result.time_base
        if wanted is not None:
            self.pts.append(wanted[0])
        if wanted is None or got is None:
            missing, at = (self._missing, wanted) if wanted else (self._extra, got)
            missing.append(float(cast(Picture, at)[0] * unit))
        elif self._same_size:
            self._compare(self._map.apply(wanted[1]), got[1], wanted[0])

    def _compare(self, wanted: Plane, got: Plane, pts: int) -> None:
        for digest, plane in zip(self._digests, (wanted, got), strict=True):
            digest.update(np.ascontiguousarray(plane).data)
        if np.array_equal(wanted, got):
            self._psnr.append(_EQUAL)
            return
        peak = (1 << self._result.bit_depth) - 1
        error = cv2.norm(wanted, got, cv2.NORM_L2SQR) / wanted.size
        psnr = min(_EQUAL, 10 * math.log10(peak * peak / error))
        if (self._result.codec in LOSSLESS or psnr < LEAST_PSNR) and self._spoilt(pts):
            self._patched += 1
            return
        if self._unequal is None:
            self._unequal = float(pts * self._result.time_base)
        self._psnr.append(psnr)

    def problems(self) -> list[str]:
        """What is wrong with the pictures."""
        found = []
        if not self._same_size:
            sizes = f"{self._result.width}×{self._result.height}, expected {self._info.width}×{self._info.height}"
            found.append(f"pictures are {sizes}")
        if self._widened:
            found.append("tagged as full range, but the source is limited")
        for what, times in (("missing", self._missing), ("not in the source", self._extra)):
            if times:
                found.append(f"{len(times)} pictures {what}, the first at {times[0]:.6f} s")
        if self._result.codec in LOSSLESS and self._unequal is not None:
            found.append(f"luma differs, first at {self._unequal:.6f} s, though {self._result.codec} is lossless")
        elif self._psnr and min(self._psnr) < LEAST_PSNR:
            found.append(f"luma of a picture is {min(self._psnr):.1f} dB from the source's, expected {LEAST_PSNR:g}")
        return found

    def verification(self, streams: int, problems: list[str], warnings: list[str]) -> Verification:
        """The result."""
        compared = bool(self._psnr)
        if self._patched:
            warnings.append(f"{self._patched} damaged pictures of the source were patched otherwise by the decoder")
        return Verification(
            frames=len(self.pts),
            streams=streams,
            exact=compared and self._unequal is None and not (self._missing or self._extra or self._patched),
            source_sha256=self._digests[0].hexdigest(),
            output_sha256=self._digests[1].hexdigest(),
            psnr_mean=sum(self._psnr) / len(self._psnr) if compared else 0.0,
            psnr_min=min(self._psnr) if compared else 0.0,
            problems=tuple(problems),
            warnings=tuple(warnings),
        )


def _expected(
    source: Source, info: StreamInfo, output: str | Place, result: StreamInfo, pts: list[int], shift: Fraction
) -> tuple[Expected | str, list[str]]:
    """What the source says must be in the output, and the data streams that are not; a problem in words where their
    streams do not pair up.
    """
    with open_written(output) as written:
        there = [s for s in written.streams if s.index != result.index and _has_packets(s)]
        units, codecs = [s.time_base for s in there], [codec_name(s) for s in there if s.type == "data"]
    with open_whole(source) as opened:
        covers = cover_pictures(opened)
        attached = [len(data) for data in covers.values()] + [len(s.data) for s in opened.streams.attachments]
        streams = [s for s in opened.streams if _has_packets(s) and s.index not in info.silent]
        missing = {s.index: describe(s) for s in _missing_data(streams, codecs)}
        kept = [s.index for s in streams if s.index not in missing]
        others = [index for index in kept if index != info.index]
        if len(others) != len(units):
            return f"{len(units)} other streams, expected {len(others)}", []
        targets = {i: SimpleNamespace(time_base=unit) for i, unit in zip(others, units, strict=True)}
        chapters = chapters_of(opened, shift)
        copier = Copier(
            opened, targets, source.url,
            muxer=_muxer(result), timelines=info.timelines, shift=shift,
        )  # fmt: skip
        for _ in copier.packets():
            pass
    expected = Expected(
        video_pts=pts,
        time_base=result.time_base,
        streams=[copier.records.get(index) for index in kept],
        attached=attached,
        chapters=chapters,
        same_container=same_family(info, _muxer(result)),
    )
    return expected, list(missing.values())


def _missing_data(streams: Sequence[Any], codecs: Sequence[str]) -> list[Any]:
    """Those data streams that are not among the output's, which have these `codecs`, in order."""
    left, missing = list(codecs), []
    for stream in streams:
        if stream.type == "data" and left[:1] == [codec_name(stream)]:
            left.pop(0)
        elif stream.type == "data":
            missing.append(stream)
    return missing


def _has_packets(stream: object) -> bool:
    return cast(SimpleNamespace, stream).type != "attachment" and not is_cover(stream) and not is_made_by_muxer(stream)


def _muxer(result: StreamInfo) -> str:
    """The muxer that a file read back was written with."""
    kinds = result.container.split(",")
    if "mov" in kinds:
        return "mov" if result.source.url.lower().endswith(".mov") else "mp4"
    return kinds[0]
