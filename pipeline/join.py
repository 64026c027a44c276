"""One output file from coded pictures and the source's other streams, merged in order of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.copying import Copier
from pipeline.errors import VerificationError
from pipeline.frames import StreamInfo
from pipeline.mux import Reel, ReelMuxer
from pipeline.streams import rescale
from pipeline.written import Expected, chapters_of

if TYPE_CHECKING:
    from av.container import InputContainer

# Muxer and the demuxer that reads its files.
_DEMUXERS = {"mov": "mov", "mp4": "mov", "matroska": "matroska", "webm": "matroska", "mpegts": "mpegts"}


@dataclass(frozen=True)
class CodedPicture:
    """One coded picture in coding order; times in the encoder's time base."""

    payload: bytes
    pts: int
    duration: int
    key: bool


@dataclass(frozen=True)
class Written:
    """What must now be found in the file, the tags that should be, and what had to be repaired."""

    expected: Expected
    tags: Mapping[str, str]
    warnings: tuple[str, ...]


def same_family(info: StreamInfo, format: str) -> bool:
    """Whether a muxer writes the kind of file that the source is, in which payloads keep their form."""
    return _DEMUXERS.get(format) in info.container.split(",")


def decoding_times(pts: Sequence[int], reorder: int, time_base: Fraction) -> Iterator[int]:
    """Decoding times for sorted display times when the decoder holds `reorder` pictures back.

    The i-th picture to be decoded is due when the (i - reorder)-th is shown; the first few are set before the start,
    a picture's time apart and at least a millisecond, so that they stay apart in every container.
    """
    least = math.ceil(Fraction(1, 1000) / time_base)
    step = max(1, least, pts[1] - pts[0] if len(pts) > 1 else 1)
    yield from (pts[0] - ahead * step for ahead in range(reorder, 0, -1))
    yield from pts[: max(0, len(pts) - reorder)]


def write_reel(
    path: Path,
    source: InputContainer,
    reel: Reel,
    *,
    pictures: Iterable[CodedPicture],
    pts: Sequence[int],
    reorder: int,
    extradata: bytes | None = None,
    sample: bool = False,
) -> Written:
    """Write `path`: the pictures, of which `pts` are the sorted display times, and the source's other streams.

    extradata: the encoder's headers that the pictures were coded with, to be the output's too. sample: copy only the
    beginning of the other streams. Raises UnsupportedError
    where the container does not take a stream, VerificationError where pictures do not fit together.
    """
    info, spec, container = reel.info, reel.spec, reel.container
    chapters = chapters_of(source, container.shift)
    with ReelMuxer(path, source, reel) as muxer:
        if extradata is not None and muxer.extradata != extradata:
            raise VerificationError(
                f"{info.source.url}: segments were made by another version of {spec.encoder}; run with --overwrite"
            )
        unit = muxer.time_base
        later = round(container.shift / unit)
        shown = [rescale(p, spec.time_base, unit) + later for p in pts]
        if len(set(shown)) != len(shown):
            raise VerificationError(f"{info.source.url}: {container.name} cannot keep pictures apart in time; use .mov")
        copier = Copier(
            source, muxer.copies, info.source.url,
            muxer=container.format, sample=sample, timelines=info.timelines,
            shift=container.shift,
        )  # fmt: skip
        others = copier.packets()
        waiting = next(others, None)
        for picture, dts in zip(pictures, decoding_times(pts, reorder, spec.time_base), strict=True):
            due = float(dts * spec.time_base + container.shift)
            while waiting is not None and waiting[0] <= due:
                muxer.write_copy(*waiting[1:])
                waiting = next(others, None)
            at, due_at, lasting = (rescale(t, spec.time_base, unit) for t in (picture.pts, dts, picture.duration))
            muxer.write_video(picture.payload, at + later, due_at + later, lasting, picture.key)
        while waiting is not None:
            muxer.write_copy(*waiting[1:])
            waiting = next(others, None)
    muxer.set_pixel_shape(path, source)
    expected = Expected(
        video_pts=shown,
        time_base=unit,
        streams=[None if index is None else copier.records[index] for index in muxer.order],
        attached=muxer.attached,
        chapters=chapters,
        same_container=same_family(info, container.format),
        format=_DEMUXERS[container.format],
    )
    return Written(expected, muxer.tags if container.format != "mpegts" else {}, copier.warnings)
