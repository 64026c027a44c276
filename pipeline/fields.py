"""Interlaced pictures as their fields, so that no stage ever mixes two moments of time."""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.frames import FrameBatch, Plane


def split_fields(batch: FrameBatch) -> tuple[FrameBatch, FrameBatch]:
    """N frames → their N top and N bottom fields, each (N, ⌈H/2⌉, W), with the frames' pts and durations.

    Where H is odd the bottom field's last row is the top field's, which `weave` drops again.
    """
    return _parity(batch, 0), _parity(batch, 1)


def weave(top: Plane, bottom: Plane, height: int) -> Plane:
    """Two fields, (⌈height/2⌉, W) or taller, → the frame (height, W) that holds them."""
    frame = np.empty((height, top.shape[1]), top.dtype)
    frame[0::2] = top[: (height + 1) // 2]
    frame[1::2] = bottom[: height // 2]
    return frame


def _parity(batch: FrameBatch, parity: int) -> FrameBatch:
    chroma = batch.chroma and (field_of(batch.chroma[0], parity), field_of(batch.chroma[1], parity))
    return dataclasses.replace(batch, luma=field_of(batch.luma, parity), chroma=chroma)


def field_of(planes: Plane, parity: int) -> Plane:
    """The top (parity 0) or bottom (1) fields of planes (N, H, W)."""
    height = planes.shape[1]
    rows = np.minimum(np.arange(parity, height + height % 2, 2), height - 1)
    return planes[:, rows]
