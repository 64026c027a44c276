"""JPEG, PNG, WebP and BMP: one picture a file. Metadata is carried over as the bytes it came in, segment by segment."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline import jpegs, pngs
from pipeline.errors import InputError, UnsupportedError
from pipeline.frames import Plane
from pipeline.pictures import ImageFormat, Picture
from pipeline.profiles import is_srgb, profile_space, to_srgb
from pipeline.rendering import output_profile

# Pixels are bounded by Limits.image_pixels from the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # on metadata that is passed on as bytes

_ORIENTATION = 274


class RasterFile:
    """An opened JPEG, PNG, WebP or BMP. Raises UnsupportedError for animations."""

    def __init__(self, data: bytes, kind: ImageFormat) -> None:
        self._data, self._kind = data, kind
        if kind == "jpeg":
            jpegs.check(data)
        self._pixels = pngs.pixels_alone(data) if kind == "png" else data
        try:
            self._image = self._opened()
        except UnidentifiedImageError as e:
            rare = f"is damaged, or a {kind.upper()} of a rare kind"
            raise InputError(jpegs.unreadable(data) if kind == "jpeg" else rare) from e
        frames = pngs.frame_count(data) if kind == "png" else getattr(self._image, "n_frames", 1)
        if frames > 1 and kind != "jpeg":
            raise UnsupportedError("is animated; make a video of it to colour it")
        self._out = b""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height)."""
        return [self._image.size]

    def read(self, page: int) -> Picture:  # noqa: ARG002
        """Decode the picture."""
        if self._kind == "jpeg":
            jpegs.check_length(self._data)
        icc = pngs.profile(self._data) if self._kind == "png" else self._image.info.get("icc_profile")
        orientation = exif_orientation(self._exif())
        if self._kind == "png" and self._data[24] == 16:  # Pillow would make 8 bits of colour
            pixels, alpha = split_alpha(imagecodecs.png_decode(self._pixels))
            return Picture(pixels, 16, alpha, orientation, icc)
        image = self._opened()  # which goes with its pixels
        notes: tuple[str, ...] = ()
        if image.mode == "CMYK":
            pixels, note = cmyk_to_rgb(np.asarray(image), icc)
            return Picture(pixels, 8, None, orientation, icc, (note,))
        if (pictures := getattr(image, "n_frames", 1)) > 1:
            notes = (f"holds {pictures} pictures; only the first is kept",)
        if self._kind == "png" and self._data[24:26] in (b"\2\0", b"\4\0") and "transparency" in image.info:
            # Pillow widens grey samples of 2 and 4 bits and leaves the transparent code as it is.
            image.info["transparency"] *= 255 // ((1 << self._data[24]) - 1)
        mode = _plain_mode(image)
        pixels, alpha = split_alpha(np.asarray(image if mode == image.mode else image.convert(mode)))
        return Picture(pixels, 8, alpha, orientation, icc, notes)

    def write(self, page: int, picture: Picture, rgb: Plane) -> None:  # noqa: ARG002
        """Encode."""
        profile = output_profile(picture)
        replaced = profile if profile != picture.icc else None
        if self._kind == "jpeg":
            lightness = picture.pixels if _in_srgb(picture) else rgb
            self._out = jpegs.encode(self._data, rgb, lightness, replaced, drop_profile=profile != picture.icc)
        elif self._kind == "png":
            self._out = pngs.encode(self._data, with_alpha(rgb, picture.alpha), drop_profile=profile != picture.icc)
        elif self._kind == "webp":
            self._out = self._webp(with_alpha(rgb, picture.alpha), profile)
        else:
            self._out = _bmp(self._data, with_alpha(rgb, picture.alpha))

    def finish(self) -> bytes:
        """The whole file."""
        return self._out

    def _opened(self) -> Image.Image:
        return Image.open(io.BytesIO(self._pixels), formats=[self._kind.upper()])

    def _exif(self) -> bytes:
        if self._kind == "png":
            return pngs.exif(self._data)
        return bytes(self._image.info.get("exif") or b"")

    def _webp(self, pixels: Plane, profile: bytes | None) -> bytes:
        """Without loss, whatever the source: VP8 has 220 codes of luma, and cannot hold lightness to one of 256."""
        out = io.BytesIO()
        info = self._image.info
        Image.fromarray(pixels).save(
            out, "WEBP", lossless=True, quality=80, method=4, exact=True,
            icc_profile=profile or b"", exif=self._exif(), xmp=info.get("xmp", b""),
        )  # fmt: skip
        return out.getvalue()


def exif_orientation(exif: bytes) -> int:
    """EXIF orientation 1..8 from a TIFF structure, with or without its `Exif` prefix; 1 where it does not tell."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    at = struct.unpack_from(order + "I", tiff, 4)[0]
    count = struct.unpack_from(order + "H", tiff, at)[0] if at + 2 <= len(tiff) else 0
    for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == _ORIENTATION and kind == 3:
            return value if 1 <= value <= 8 else 1
    return 1


def split_alpha(samples: NDArray[Any]) -> tuple[Plane, Plane | None]:
    """Grey, grey+alpha, RGB or RGBA samples → (H, W) or (H, W, 3), and alpha."""
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        colour = samples[..., 0] if samples.shape[2] == 2 else samples[..., :3]
        return np.ascontiguousarray(colour), np.ascontiguousarray(samples[..., -1])
    return samples.reshape(samples.shape[:2]) if samples.shape[2:] == (1,) else samples, None


def with_alpha(rgb: Plane, alpha: Plane | None) -> Plane:
    """RGB (H, W, 3), with alpha (H, W) as a fourth sample where there is one."""
    return rgb if alpha is None else cast(Plane, np.dstack([rgb, alpha]))


def cmyk_to_rgb(cmyk: NDArray[Any], icc: bytes | None) -> tuple[Plane, str]:
    """Ink (H, W, 4), 0 none, full scale all, → sRGB of the same type, and a note that says how."""
    if icc is not None and profile_space(icc) == "cmyk":
        rgb = to_srgb(cmyk, icc, "cmyk")
        narrow = rgb if cmyk.dtype == np.uint16 else np.rint(rgb / 257).astype(np.uint8)
        return narrow, "converted from CMYK to sRGB by its profile"
    peak = np.float32(np.iinfo(cmyk.dtype).max)
    light = 1 - cmyk.astype(np.float32) / peak
    return np.rint(light[..., :3] * light[..., 3:] * peak).astype(cmyk.dtype), "converted from CMYK to RGB"


def _in_srgb(picture: Picture) -> bool:
    """Whether the codes are sRGB's: a CMYK profile has been applied, and a grey one tells another curve."""
    space = profile_space(picture.icc)
    return space in (None, "cmyk") or (space == "rgb" and picture.icc is not None and is_srgb(picture.icc))


def _plain_mode(image: Image.Image) -> str:
    """The 8-bit mode that holds what `image` does; bilevel becomes 0 and 255."""
    transparent = "transparency" in image.info
    if image.mode in ("P", "PA"):
        return "RGBA" if transparent or image.mode == "PA" else "RGB"
    if image.mode in ("1", "L"):
        return "LA" if transparent else "L"
    if image.mode == "RGB":
        return "RGBA" if transparent else "RGB"
    if image.mode in ("LA", "RGBA"):
        return image.mode
    if image.mode == "RGBX":
        return "RGB"
    raise UnsupportedError(f"has pixels of the kind {image.mode}; convert it to 8 or 16 bit grey or RGB")


def _bmp(source: bytes, pixels: Plane) -> bytes:
    """A bottom-up 24-bit BMP, or 32-bit with a BITMAPV4HEADER where there is alpha; the source's resolution."""
    height, width, samples = pixels.shape
    header_size = struct.unpack_from("<I", source, 14)[0]
    resolution = source[38:46] if header_size >= 40 else bytes(8)
    rows = np.zeros((height, -(-width * samples // 4) * 4), np.uint8)
    order = [2, 1, 0, 3][:samples]
    rows[:, : width * samples] = pixels[::-1, :, order].reshape(height, -1)
    size = 108 if samples == 4 else 40
    info = struct.pack("<IiiHHII", size, width, height, 1, 8 * samples, 3 if samples == 4 else 0, rows.size)
    info += resolution + bytes(8)
    if samples == 4:  # masks of R, G, B, A; the colour space is sRGB
        info += struct.pack("<IIII4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs").ljust(size - 40, b"\0")
    offset = 14 + size
    return struct.pack("<2sIII", b"BM", offset + rows.size, 0, offset) + info + rows.tobytes()
