"""Photographs for training: decoded once into a memory-mapped file, then random crops as Lab batches.

A sample's input is not always its own lightness. Film saw colours with other weights than the eye, prints fade,
and scans are soft and grainy; part of every batch is treated so (see `film_lightness` and `age`).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.color import RGB_TO_XYZ, WHITE_D65
from pipeline.errors import InputError
from pipeline.storage import replacing

SHORT_EDGE = 160  # pixels that photographs are reduced to
HELD_OUT = 20  # one photograph in so many is never trained on
_SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}


def held_out(name: str) -> bool:
    """Whether the photograph of this file name is kept for evaluation: a twentieth, by hash of the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % HELD_OUT == 0


@dataclass(frozen=True)
class Photos:
    """Decoded photographs, one behind the other in one flat array.

    pixels: (bytes,) uint8, sRGB, usually a memory map. names, sizes (N, 2) as (h, w), offsets (N,) into `pixels`.
    """

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3) sRGB."""
        (h, w), start = self.sizes[index], self.offsets[index]
        return self.pixels[start : start + h * w * 3].reshape(h, w, 3)

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the photographs to train on, and of those held out."""
        test = np.array([held_out(name) for name in self.names], dtype=bool)
        return np.flatnonzero(~test), np.flatnonzero(test)


def open_photos(shards: Sequence[Path], cache: Path, short_edge: int = SHORT_EDGE) -> Photos:
    """The photographs of tar shards, decoded and reduced into `cache` on first use, memory-mapped from there later.

    Raises InputError for a shard that cannot be read, or that holds no photograph.
    """
    key = hashlib.sha256(json.dumps([short_edge, [[s.name, s.stat().st_size] for s in shards]]).encode()).hexdigest()
    index, flat = cache / f"photos-{key[:12]}.json", cache / f"photos-{key[:12]}.rgb"
    if not index.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(flat) as part:
            entries = _decode_all(shards, part, short_edge)
        with replacing(index) as part:
            part.write_text(json.dumps(entries))
    entries = json.loads(index.read_text())
    sizes = np.array([[h, w] for _, h, w in entries], np.int64)
    ends = np.cumsum(sizes.prod(1) * 3)
    names = tuple(name for name, _, _ in entries)
    return Photos(np.memmap(flat, np.uint8, mode="r"), names, sizes, np.concatenate([[0], ends[:-1]]))


def _decode_all(shards: Sequence[Path], destination: Path, short_edge: int) -> list[tuple[str, int, int]]:
    entries = []
    with destination.open("wb") as out:
        for shard in shards:
            for name, data in _members(shard):
                decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
                if decoded is None:
                    raise InputError(f"{shard}: {name}: not a picture; remove it from the shard")
                picture = _reduced(np.asarray(decoded[..., ::-1], np.uint8), short_edge)
                entries.append((name, picture.shape[0], picture.shape[1]))
                out.write(np.ascontiguousarray(picture).tobytes())
    if not entries:
        raise InputError(f"{', '.join(map(str, shards))}: no photographs ({', '.join(sorted(_SUFFIXES))}) inside")
    return entries


def _members(shard: Path) -> Iterable[tuple[str, bytes]]:
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile() and Path(member.name).suffix.lower() in _SUFFIXES:
                    handle = tar.extractfile(member)
                    yield Path(member.name).name, (handle or io.BytesIO()).read()
    except (tarfile.TarError, OSError, EOFError) as e:
        raise InputError(f"{shard}: cannot be read as a tar of photographs: {e}") from e


def _reduced(picture: NDArray[np.uint8], short_edge: int) -> NDArray[np.uint8]:
    h, w = picture.shape[:2]
    scale = short_edge / min(h, w)
    if scale >= 1:
        return picture
    reduced = cv2.resize(picture, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.uint8)


def random_crops(photos: Photos, indices: NDArray[np.int64], size: int, rng: np.random.Generator) -> Tensor:
    """Square crops of half to all of the short edge, half of them mirrored, as (N, size, size, 3) uint8 sRGB."""
    crops = np.empty((len(indices), size, size, 3), np.uint8)
    for out, index in zip(crops, indices, strict=True):
        picture = photos[index]
        h, w = picture.shape[:2]
        side = round(min(h, w) * rng.uniform(0.5, 1))
        y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
        crop = picture[y : y + side, x : x + side]
        filtering = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        out[:] = cv2.resize(crop, (size, size), interpolation=filtering)
        if rng.random() < 0.5:
            out[:] = out[:, ::-1]
    return torch.from_numpy(crops)


def linear_light(rgb: Tensor) -> Tensor:
    """(N, h, w, 3) uint8 sRGB to (N, 3, h, w) float32 linear light 0..1 (IEC 61966-2-1)."""
    code = torch.arange(256, dtype=torch.float64, device=rgb.device) / 255
    table = torch.where(code > 0.04045, ((code + 0.055) / 1.055) ** 2.4, code / 12.92).float()
    return table[rgb.int()].permute(0, 3, 1, 2)


def lab(linear: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) linear sRGB to L* (N, 1, h, w) in 0..100 and ab (N, 2, h, w); as pipeline.color, on a batch."""
    matrix = torch.tensor(RGB_TO_XYZ / WHITE_D65[:, None], dtype=linear.dtype, device=linear.device)
    x, y, z = _lab_f(F.conv2d(linear, matrix[:, :, None, None])).unsqueeze(2).unbind(1)
    return 116 * y - 16, torch.cat([500 * (x - y), 200 * (y - z)], dim=1)


def _lab_f(t: Tensor) -> Tensor:
    return torch.where(t > (6 / 29) ** 3, t.clamp_min(1e-3) ** (1 / 3), (29 / 6) ** 2 / 3 * t + 4 / 29)


def film_lightness(linear: Tensor, rgb: Tensor, random: torch.Generator) -> Tensor:
    """The L* (N, 1, h, w) that a monochrome copy of each picture would show.

    Two in five keep their own L*. Two in five are desaturated video: L* of the grey whose Y' is the picture's luma
    (ITU-R BT.601). One in five is film: linear light summed with random weights, from nearly blind to red
    (orthochromatic) to mostly sensitive to it.
    """
    n = len(linear)
    luma = (rgb.float() / 255) @ torch.tensor([0.299, 0.587, 0.114], device=rgb.device)
    video = torch.where(luma > 0.04045, ((luma + 0.055) / 1.055) ** 2.4, luma / 12.92)[:, None]
    eye = (linear * torch.tensor(RGB_TO_XYZ[1], dtype=linear.dtype, device=linear.device)[:, None, None]).sum(1, True)
    weights = torch.rand(n, 3, 1, 1, generator=random).to(linear) ** 2 + 0.05
    film = (linear * weights / weights.sum(1, keepdim=True)).sum(1, True)
    kind = torch.rand(n, 1, 1, 1, generator=random).to(linear)
    return 116 * _lab_f(torch.where(kind < 0.4, eye, torch.where(kind < 0.8, video, film))) - 16


def age(lightness: Tensor, random: torch.Generator) -> Tensor:
    """Half of the pictures as old film: tone curve, faded blacks and whites, softness, grain. L* (N, 1, h, w)."""
    n = len(lightness)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, 1, generator=random).to(lightness) * (high - low) + low

    x = (lightness / 100).clamp(0, 1) ** torch.exp(uniform(-0.5, 0.5))
    low, high = uniform(0, 0.2), uniform(0.75, 1)
    x = low + (high - low) * x
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = x + uniform(0, 1) * (soft - x)
    grain = torch.randn(x.shape, generator=random).to(x)
    coarse = F.avg_pool2d(F.pad(grain, (1, 1, 1, 1), mode="replicate"), 3, stride=1) * 3
    x = x + uniform(0, 0.06) * torch.where(uniform(0, 1) < 0.5, grain, coarse)
    return torch.where(uniform(0, 1) < 0.5, x.clamp(0, 1) * 100, lightness)
