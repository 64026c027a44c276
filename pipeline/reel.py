"""One segment, from decoder to segment file. Read this first.

decode ─► fields ─► lightness ─► colorizer ─► anchors ─► steady ─► chroma ─► weave ─► encode
 Y', pts            L* at the     ab at 1/4    ab held to  ab along  Cb, Cr at          Y' as decoded,
                    network size, of that,     seconds     motion    the plane's size   new Cb, Cr
                    between bars  or finer     around
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import ahead
from pipeline.anchors import REACH, Anchor, Anchors, held
from pipeline.bars import WHOLE, BarFinder, Window
from pipeline.chroma import ChromaLayout, chroma_planes, chroma_size
from pipeline.color import lightness_table
from pipeline.decode import DecodeReport, decode_segment
from pipeline.encode import EncoderSpec, SegmentWriter
from pipeline.fields import field_of, split_fields, weave
from pipeline.frames import FrameBatch, Look, Plane, Segment, SegmentFile, Source, StreamInfo
from pipeline.infer import Colorizer, network_size
from pipeline.keyframes import Keyframe, Keyframes
from pipeline.own_colour import OwnColour, fit_chroma
from pipeline.shots import CutDetector
from pipeline.storage import Place
from pipeline.temporal import Steady, motion_picture, strength, warmup_frames

Chroma = tuple[Plane, Plane]
Picture = NDArray[np.float32]


def colorize_segment(
    source: Source,
    info: StreamInfo,
    segment: Segment,
    colorizer: Colorizer,
    look: Look,
    spec: EncoderSpec,
    out: Place,
    progress: Callable[[int], None] | None = None,
    *,
    gpu_decoding: bool = False,
) -> SegmentFile:
    """Colour the frames of `segment` and write them to `out`; `progress` hears how many frames each batch wrote.

    The result depends on the arguments alone: not on other segments, the machine, or what ran before.
    """
    report = DecodeReport()
    with Keyframes(source, info, REACH) as keyframes, SegmentWriter(spec, out) as writer:
        parities = (0, 1) if info.interlaced else (None,)
        painters = [Painter(info, spec, colorizer, look, keyframes, parity) for parity in parities]
        for batch in ahead(decode_segment(source, info, segment, warmup_frames(info.fps), report, gpu_decoding)):
            for i, (cb, cr) in _painted(batch, painters, spec):
                one_moment = batch.progressive is not None and bool(batch.progressive[i])
                writer.write(batch.luma[i], cb, cr, int(batch.pts[i]), int(batch.duration[i]), one_moment)
            if progress:
                progress(len(batch) - batch.warmup)
    written = writer.result()
    return dataclasses.replace(
        written,
        gamut_pulled=sum(p.gamut_pulled for p in painters),
        passed_through=min(p.passed_through for p in painters),
        warnings=(*written.warnings, *report.warnings),
    )


def _painted(batch: FrameBatch, painters: list[Painter], spec: EncoderSpec) -> Iterator[tuple[int, Chroma]]:
    """(index, (Cb, Cr)) of the frames to write; top and bottom fields each have a painter and never meet before it."""
    if len(painters) == 1:
        yield from ((i, made) for i, made in painters[0].paint(batch) if made)
        return
    height, _ = chroma_size(batch.luma.shape[1], batch.luma.shape[2], spec.subsampling)
    halves = (painter.paint(fields) for painter, fields in zip(painters, split_fields(batch), strict=True))
    for (i, top), (_, bottom) in zip(*halves, strict=True):
        if top and bottom:
            yield i, (weave(top[0], bottom[0], height), weave(top[1], bottom[1], height))


def network_input(luma: Plane, table: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Luma codes (N, H, W) → L* (N, h, w), 0..100: averaged over each cell's area, then looked up in `table`."""
    return np.stack([table[_averaged(picture, size)] for picture in luma])


def _averaged(picture: Plane, size: tuple[int, int]) -> Plane:
    """The picture at (h, w); halved first where it is far larger, which OpenCV does five times as fast."""
    (height, width), (h, w) = picture.shape, size
    if height >= 4 * h and width >= 4 * w:
        picture = cast(Plane, cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    shrinking = height >= h and width >= w
    return cast(Plane, cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR))


class Painter:
    """Finds chroma for consecutive pictures, frames or fields of one parity; holds what each hands to the next."""

    def __init__(
        self,
        info: StreamInfo,
        spec: EncoderSpec,
        colorizer: Colorizer,
        look: Look,
        keyframes: Keyframes,
        parity: int | None,
    ) -> None:
        """parity: of the fields, 0 top and 1 bottom; None for frames."""
        self._info, self._spec, self._colorizer, self._look, self._parity = info, spec, colorizer, look, parity
        self._size = network_size(info.width, info.height, info.sar)
        self._table = lightness_table(info.bit_depth, info.color.full_range)
        self._source = ChromaLayout(
            info.color.matrix, info.color.full_range, info.bit_depth, info.subsampling or (1, 1)
        )
        self._target = ChromaLayout(spec.color.matrix, spec.color.full_range, spec.bit_depth, spec.subsampling)
        self._cuts, self._bars, self._window = CutDetector(), BarFinder(), WHOLE
        self._own_colour = OwnColour(info.bit_depth)
        self._anchors = Anchors(keyframes.near, self._anchor)
        self._steady = Steady(strength(info.fps))
        self.gamut_pulled = 0
        self.passed_through = 0

    def paint(self, batch: FrameBatch) -> Iterator[tuple[int, Chroma | None]]:
        """(index, (Cb, Cr)) of the batch's pictures, at the output's depth and chroma size; None in the warm-up.

        A step each, so that painters of two fields ask for the keyframes of one moment in turns.
        """
        lightness = network_input(batch.luma, self._table, self._size)
        cuts = [self._cuts.step(picture) for picture in lightness]
        keeps = [False] * len(batch) if self._look.recolor else self._own_colour.keeps(batch, cuts)
        windows = [self._bars.step(picture, cut) for picture, cut in zip(lightness, cuts, strict=True)]
        shown = [self._shown(*each) for each in zip(lightness, batch.luma, windows, strict=True)]
        new = [i for i, keeps_own in enumerate(keeps) if not keeps_own]
        raw = dict(zip(new, self._coloured([shown[i] for i in new]), strict=True))
        for i, keeps_own in enumerate(keeps):
            if not keeps_own:
                if windows[i] != self._window:
                    self._steady.reframe(*windows[i].seen_from(self._window), shown[i].shape)
                anchored = self._held(raw[i], shown[i], int(batch.pts[i]), windows[i])
                ab, self._window = self._steady.step(anchored, shown[i], cuts[i]), windows[i]
            if i < batch.warmup:
                yield i, None
            else:
                yield i, self._own_chroma(batch, i) if keeps_own else self._new_chroma(ab, batch.luma[i], windows[i])

    def _shown(self, lightness: Picture, luma: Plane, window: Window) -> Picture:
        """L* of what lies in the window, at the network's size for that; `lightness` where that is all."""
        if window == WHOLE:
            return lightness
        inside = window.of(luma)
        lines = self._info.height * inside.shape[0] // luma.shape[0]  # a field has half of the picture's
        size = network_size(inside.shape[1], lines, self._info.sar)
        return cast(Picture, network_input(inside[None], self._table, size)[0])

    def _held(self, ab: Picture, lightness: Picture, pts: int, window: Window) -> Picture:
        anchors = self._anchors.at(pts, window)
        return held(ab, motion_picture(lightness), float(pts * self._info.time_base), anchors)

    def _anchor(self, keyframe: Keyframe, window: Window) -> Anchor:
        luma = keyframe.luma if self._parity is None else field_of(keyframe.luma[None], self._parity)[0]
        lightness = self._shown(network_input(luma[None], self._table, self._size)[0], luma, window)
        (ab,) = self._coloured([lightness])
        return Anchor(float(keyframe.pts * self._info.time_base), motion_picture(lightness), ab)

    def _coloured(self, pictures: list[Picture]) -> Iterator[Picture]:
        """ab of each; those of one size that follow each other go to the network together."""
        for _, alike in groupby(pictures, lambda picture: picture.shape):
            yield from self._colorizer(np.stack(list(alike))[:, None])

    def _own_chroma(self, batch: FrameBatch, i: int) -> Chroma:
        self.passed_through += 1
        assert batch.chroma is not None
        cb, cr = (fit_chroma(plane[i], self._source, self._target, batch.luma.shape[1:]) for plane in batch.chroma)
        return cb, cr

    def _new_chroma(self, ab: Picture, luma: Plane, window: Window) -> Chroma:
        inside = self._spec.luma.apply(window.of(luma))
        cb, cr, pulled = chroma_planes(ab * np.float32(self._look.saturation), inside, self._target)
        self.gamut_pulled += pulled
        return window.framed(cb, luma.shape, self._target), window.framed(cr, luma.shape, self._target)
