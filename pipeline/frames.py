"""What crosses the stages: frozen, checked dataclasses with units in their names.

A `Source` says how to open a file, a `StreamInfo` what is in it, a `Segment` which part of it is one unit of work,
and a `FrameBatch` carries that part's pictures from stage to stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8] | NDArray[np.uint16]
Matrix = Literal["bt601", "bt709", "bt2020", "smpte240m", "fcc"]
FieldOrder = Literal["progressive", "tff", "bff"]
_NEAR_SECONDS = 10  # that sound or text may precede or outlast the pictures that it goes with
Subsampling = tuple[int, int]  # log2 of the chroma plane's (horizontal, vertical) reduction: 4:2:0 is (1, 1)


@dataclass(frozen=True)
class Source:
    """How to open one input: a path or URL, for numbered scans the demuxer and its options.

    looked_at: bytes of its beginning that are searched for streams to be copied; 0 where FFmpeg's own choice finds all.
    """

    url: str
    format: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    looked_at: int = 0


@dataclass(frozen=True)
class ColorTags:
    """Colour description of a stream (ITU-T H.273).

    `matrix` and `full_range` are what the pixels are read with; `transfer` and `primaries` are H.273 code points,
    passed through (2 = unspecified). `assumed` names the fields that the source left untagged. `matrix_code` is the
    code point behind `matrix` where the source has one, so that 5 stays 5 and 6 stays 6 (both are BT.601).
    """

    matrix: Matrix
    full_range: bool
    transfer: int = 2
    primaries: int = 2
    assumed: tuple[str, ...] = ()
    matrix_code: int = 2


@dataclass(frozen=True)
class Timeline:
    """A part of a stream whose timestamps start over after it, as where recordings were put end to end.

    begin, end: least and greatest timestamp; offset: what is added so that the part follows the one before; seconds.
    """

    begin: Fraction
    end: Fraction
    offset: Fraction

    def near(self, seconds: Fraction) -> bool:
        """Whether a timestamp, also of sound or text that goes with the pictures, may be of this part."""
        return self.begin - _NEAR_SECONDS <= seconds <= self.end + _NEAR_SECONDS


@dataclass(frozen=True)
class StreamInfo:
    """One video stream as the demuxer, its headers and the first frame tell it.

    `start_pts`, `end_pts` and `frames` come from the packets: pts in units of `time_base`, `end_pts` exclusive.
    `timestamps` is false where the container carries none: pts are then frame ordinals in 1/fps (raw H.264), or, with
    `decoding_times`, tell when a picture leaves the decoder (AVI with B-frames, and files that were made like it). RGB
    sources are read as full-range 4:4:4. `timelines`: in the order of the file, none where timestamps never start over.
    """

    source: Source
    container: str
    index: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    bit_depth: int
    subsampling: Subsampling | None  # None: the source is grey
    time_base: Fraction
    fps: Fraction
    vfr: bool
    frames: int
    start_pts: int
    end_pts: int
    color: ColorTags
    timestamps: bool = True
    decoding_times: bool = False
    sar: Fraction = Fraction(1)
    rotation: int = 0  # degrees counter-clockwise that a player applies: 0, 90, 180, 270
    mirrored: bool = False  # left to right, by a player, after that
    field_order: FieldOrder = "progressive"
    mixed_fields: bool = False  # interlaced, but some pictures say that they are progressive
    field_packets: bool = False  # a picture is two packets, one a field
    timelines: tuple[Timeline, ...] = ()
    silent: tuple[int, ...] = ()  # other streams that are announced and hold nothing, or nothing that can be told of
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"expected a picture of at least 1×1, got {self.width = }, {self.height = }")

    @property
    def interlaced(self) -> bool:
        """Whether a frame holds two fields."""
        return self.field_order != "progressive"

    @property
    def seconds(self) -> float:
        """Duration."""
        return float((self.end_pts - self.start_pts) * self.time_base)


@dataclass(frozen=True)
class Segment:
    """A unit of work, retry and resume: the frames with `start <= pts < end` of one reel.

    For a run of images of an archive, start and end are member ordinals. None leaves that side open, so that the
    first and the last segment take whatever the decoder yields before or after the packets' own timestamps.
    `seek` is the keyframe that decoding starts from, at or before the warm-up (None: from the file's beginning).
    """

    index: int
    start: int | None
    end: int | None
    seek: int | None = None
    frames: int = 0  # expected, from the packets; the decoder has the last word

    def holds(self, pts: int) -> bool:
        """Whether a frame at `pts` belongs to this segment."""
        return (self.start is None or pts >= self.start) and (self.end is None or pts < self.end)


@dataclass(frozen=True)
class Look:
    """What the recipe says of the picture itself.

    `saturation` scales ab (1 = as the network says); `recolor` also colours what is in colour already.
    """

    saturation: float = 1.0
    recolor: bool = False


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive pictures in presentation order.

    luma: (N, H, W) code values at the source's bit depth, uint8 up to 8 bits and uint16 above (low bits used).
    chroma: the source's own (Cb, Cr), each (N, Hc, Wc) at the same depth, or None where the source is grey.
    pts, duration: (N,) int64 in the stream's time base; duration 0 where the source does not tell.
    progressive: (N,) whether a picture is of one moment, in a stream that is interlaced otherwise.
    warmup: how many leading pictures only prime the temporal state and are not written.
    """

    luma: Plane
    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    chroma: tuple[Plane, Plane] | None = None
    progressive: NDArray[np.bool_] | None = None
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.luma.ndim != 3 or self.luma.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"expected luma (N, H, W) uint8 or uint16, got {self.luma.shape = }, {self.luma.dtype = }")
        if not len(self.luma) == len(self.pts) == len(self.duration):
            raise ValueError(f"expected equal lengths, got {self.luma.shape = }, {self.pts.shape = }")
        if self.chroma is not None and not all(len(c) == len(self.luma) for c in self.chroma):
            raise ValueError(f"expected chroma for {len(self.luma)} pictures, got {self.chroma[0].shape = }")

    def __len__(self) -> int:
        return len(self.luma)


@dataclass(frozen=True)
class SegmentFile:
    """A finished segment on storage, as its ledger record describes it.

    `gamut_pulled` counts chroma samples moved toward neutral to stay inside RGB; `passed_through` counts frames
    whose own colour was kept; `luma_sha256` is over the Y planes handed to the encoder, in order.
    """

    path: str
    frames: int
    pts: tuple[int, ...]
    sha256: str
    bytes: int
    luma_sha256: str
    gamut_pulled: int = 0
    passed_through: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
