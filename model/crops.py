"""Random square crops, as batches: on the CPU, or from a set that lies in the device's memory."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data import Photos

_LEAST = 0.5  # share of the short edge that a crop shows at least


@dataclass(frozen=True)
class Boxes:
    """Squares inside pictures: (N,) int64 y, x, side in pixels; flip: whether mirrored."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    side: NDArray[np.int64]
    flip: NDArray[np.bool_]


def random_boxes(sizes: NDArray[np.int64], rng: np.random.Generator) -> Boxes:
    """Squares of half to all of the short edge at any place of pictures of `sizes` (N, 2), (h, w); half mirrored."""
    share, down, right, mirror = rng.random((4, len(sizes)))
    side = np.rint(sizes.min(axis=1) * (_LEAST + (1 - _LEAST) * share)).astype(np.int64)
    room = sizes - side[:, None] + 1
    return Boxes((room[:, 0] * down).astype(np.int64), (room[:, 1] * right).astype(np.int64), side, mirror < 0.5)


def random_crops(photos: Photos, indices: NDArray[np.int64], size: int, rng: np.random.Generator) -> Tensor:
    """Square crops of half to all of the short edge, half of them mirrored, as (N, size, size, 3) uint8 sRGB."""
    return crops(photos, indices, random_boxes(photos.sizes[indices], rng), size)


def crops(photos: Photos, indices: NDArray[np.int64], boxes: Boxes, size: int) -> Tensor:
    """These squares of photographs `indices` (N,), resized: (N, size, size, 3) uint8 sRGB."""
    found = np.empty((len(indices), size, size, 3), np.uint8)
    for out, index, y, x, side, flip in zip(found, indices, boxes.y, boxes.x, boxes.side, boxes.flip, strict=True):
        crop = photos[index][y : y + side, x : x + side]
        resized = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
        out[:] = resized[:, ::-1] if flip else resized
    return torch.from_numpy(found)


class DevicePhotos:
    """All photographs in a device's memory, as uint8; crops are cut, resized and mirrored there."""

    def __init__(self, photos: Photos, device: torch.device) -> None:
        self._photos = photos
        self._device = device
        self._pixels = torch.empty(len(photos.pixels), dtype=torch.uint8, device=device)
        step = 1 << 28
        for start in range(0, len(photos.pixels), step):
            part = np.array(photos.pixels[start : start + step])
            self._pixels[start : start + step] = torch.from_numpy(part).to(device)

    def crops(self, indices: NDArray[np.int64], size: int, rng: np.random.Generator) -> Tensor:
        """As `random_crops`, with the same squares for a generator in the same state; equal but for rounding.

        (N, size, size, 3) uint8 on the device.
        """
        boxes = random_boxes(self._photos.sizes[indices], rng)
        count = max(2, int(np.ceil(boxes.side.max() / size)) + 1)
        widths, starts = self._photos.sizes[indices, 1], self._photos.offsets[indices]
        side, y, x, flip, width, start = self._on_device(boxes.side, boxes.y, boxes.x, boxes.flip, widths, starts)
        rows, row_weights = _taps(side, y, torch.zeros_like(flip), size, count)
        columns, column_weights = _taps(side, x, flip, size, count)
        found = torch.zeros(len(indices), size, size, 3, device=self._device)
        for row, row_weight in zip(rows.unbind(2), row_weights.unbind(2), strict=True):
            line = torch.zeros_like(found)
            for column, column_weight in zip(columns.unbind(2), column_weights.unbind(2), strict=True):
                at = start + 3 * (row[:, :, None] * width + column[:, None, :])
                pixels = torch.stack([self._pixels[at + channel] for channel in range(3)], dim=3)
                line += column_weight[:, None, :, None] * pixels
            found += row_weight[:, :, None, None] * line
        return found.round().clamp(0, 255).to(torch.uint8)

    def _on_device(self, *values: NDArray[np.int64] | NDArray[np.bool_]) -> tuple[Tensor, ...]:
        """Each (N,) as (N, 1, 1) int64; in one transfer, which waits for nothing that the device has still to do."""
        table = torch.from_numpy(np.stack(values).astype(np.int64))
        if self._device.type == "cuda":
            table = table.pin_memory()
        return table.to(self._device, non_blocking=True)[:, :, None, None].unbind()


def _taps(side: Tensor, first: Tensor, flip: Tensor, size: int, count: int) -> tuple[Tensor, Tensor]:
    """Which `count` source pixels make each of `size` output pixels, and how much: (N, size, count) each.

    Area averages where the crop shrinks, linear interpolation where it grows, as OpenCV's.
    """
    sides = side.double()
    out = torch.arange(size, device=side.device)[None, :, None]
    out = torch.where(flip > 0, size - 1 - out, out)
    scale = sides / size
    low, middle = out * scale, (out + 0.5) * scale - 0.5
    taps = torch.where(scale > 1, low, middle).floor() + torch.arange(count, device=side.device)
    overlap = (torch.minimum(low + scale, taps + 1) - torch.maximum(low, taps)).clamp_min(0) / scale
    weights = torch.where(scale > 1, overlap, (1 - (taps - middle).abs()).clamp_min(0))
    inside = torch.minimum(taps.clamp_min(0), sides - 1).long()
    return inside + first, weights.float()
