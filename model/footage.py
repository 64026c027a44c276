"""Pictures from colour video: every shot gives some, a fixed time apart, as sRGB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import lightness_table, neutral, ycbcr_to_rgb
from pipeline.decode import decode_frames
from pipeline.errors import InputError
from pipeline.frames import FrameBatch, Source, StreamInfo
from pipeline.probe import probe
from pipeline.shots import CutDetector

EVERY = 1.0  # seconds between the pictures drawn from one shot; the first lies half of that after the cut
SHORT_EDGE = 512  # pixels that frames are reduced to, at once
_THUMBNAIL = 96  # of the luma that cuts are found on
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of ITU-T H.273


def frames_by_shot(url: str, every: float = EVERY) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(seconds from the beginning, (h, w, 3) uint8 sRGB, upright, square pixels) of pictures of every shot.

    A shot gives a picture every so many seconds, a short one its last. Reads the file from end to end, once. Raises
    InputError where it is no video that can be read, or one of high dynamic range.
    """
    info = probe(Source(url))
    if info.color.transfer in _HDR:
        raise InputError(f"{url}: is {_HDR[info.color.transfer]} video; convert it to standard dynamic range first")
    sampler = _Sampler(every)
    waiting: _Frame | None = None
    for frame in _frames(info):
        drawn, starts = sampler.step(frame.thumbnail(), frame.seconds)
        if starts and waiting is not None:
            yield waiting.seconds, waiting.rgb(info)
        if drawn:
            yield frame.seconds, frame.rgb(info)
        waiting = None if sampler.given else frame
    if waiting is not None:
        yield waiting.seconds, waiting.rgb(info)


class _Sampler:
    """Decides which pictures to draw; `given`: the shot has given one already."""

    def __init__(self, every: float) -> None:
        self._every, self._due = every, 0.0
        self._cuts = CutDetector()
        self.given = False

    def step(self, lightness: NDArray[np.float32], seconds: float) -> tuple[bool, bool]:
        """(whether to draw this picture, whether it begins a shot)."""
        starts = self._cuts.step(lightness)
        if starts:
            self._due, self.given = seconds + self._every / 2, False
        drawn = seconds >= self._due
        if drawn:
            self._due, self.given = seconds + self._every, True
        return drawn, starts


@dataclass(frozen=True)
class _Frame:
    batch: FrameBatch
    index: int
    seconds: float
    table: NDArray[np.float32]

    def thumbnail(self) -> NDArray[np.float32]:
        luma = self.batch.luma[self.index]
        size = min(_THUMBNAIL, luma.shape[1]), min(_THUMBNAIL, luma.shape[0])
        small = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA))
        return np.asarray(self.table[small])

    def rgb(self, info: StreamInfo) -> NDArray[np.uint8]:
        luma = self.batch.luma[self.index]
        size = _shown_size(luma.shape[1], luma.shape[0], float(info.sar))
        y = _resized(luma, size)
        cb = cr = np.full_like(y, neutral(info.bit_depth))
        if self.batch.chroma is not None:
            cb, cr = (_resized(plane[self.index], size) for plane in self.batch.chroma)
        rgb = ycbcr_to_rgb(y, cb, cr, info.color.matrix, info.color.full_range, info.bit_depth)
        codes = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(np.rot90(codes, info.rotation // 90))


def _frames(info: StreamInfo) -> Iterator[_Frame]:
    table = lightness_table(info.bit_depth, info.color.full_range)
    for batch in decode_frames(info.source, info):
        for index, pts in enumerate(batch.pts):
            yield _Frame(batch, index, float((int(pts) - info.start_pts) * info.time_base), table)


def _shown_size(width: int, height: int, sar: float) -> tuple[int, int]:
    """(width, height) with square pixels, reduced to the short edge."""
    wide, high = (width * sar, float(height)) if sar >= 1 else (float(width), height / sar)
    scale = min(1.0, SHORT_EDGE / min(wide, high))
    return max(1, round(wide * scale)), max(1, round(high * scale))


def _resized(plane: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    shrinking = plane.shape[1] >= size[0] and plane.shape[0] >= size[1]
    how = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane.astype(np.float32), size, interpolation=how))
