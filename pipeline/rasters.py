"""JPEG, PNG, WebP and BMP: one picture a file. Metadata is carried over as the bytes it came in, segment by segment."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from pipeline import pngs
from pipeline.errors import InputError, UnsupportedError
from pipeline.frames import Plane
from pipeline.pictures import ImageFormat, Picture
from pipeline.profiles import profile_space, to_srgb
from pipeline.rendering import output_profile

# Pixels are bounded by Limits.image_pixels from the header, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # on metadata that is passed on as bytes

# At least, with chroma at full size. Measured on photographs stored at 85: lightness then differs from the source's by
# 0.58 codes of 255 on average and by 2.4 in the worst 1 % of pixels (0.68 and 3.2 at 95), for 2.9 times the bytes.
_JPEG_QUALITY = 97
# ITU-T T.81 table K.1, which libjpeg scales by quality; its mean tells the quality a file was written with.
_K1_MEAN = 57.625
_ORIENTATION = 274
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # ITU-T T.81 table B.1
_JPEG_LS = 0xF7
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)  # that neither stands alone nor is data
_MOST_SCANS = 64  # of a JPEG, each of which is decoded over the whole picture; progressive ones have 6 to 20


class RasterFile:
    """An opened JPEG, PNG, WebP or BMP. Raises UnsupportedError for animations."""

    def __init__(self, data: bytes, kind: ImageFormat) -> None:
        self._data, self._kind = data, kind
        self._pixels = pngs.pixels_alone(data) if kind == "png" else data
        try:
            self._image = Image.open(io.BytesIO(self._pixels), formats=[kind.upper()])
        except UnidentifiedImageError as e:
            raise InputError(_unreadable(data, kind)) from e
        frames = pngs.frame_count(data) if kind == "png" else getattr(self._image, "n_frames", 1)
        if frames > 1 and kind != "jpeg":
            raise UnsupportedError("is animated; make a video of it to colour it")
        if kind == "jpeg":
            check_scans(data)
        self._out = b""

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height)."""
        return [self._image.size]

    def read(self, page: int) -> Picture:  # noqa: ARG002
        """Decode the picture."""
        icc = pngs.profile(self._data) if self._kind == "png" else self._image.info.get("icc_profile")
        orientation = exif_orientation(self._exif())
        if self._kind == "png" and self._data[24] == 16:  # Pillow would make 8 bits of colour
            pixels, alpha = split_alpha(imagecodecs.png_decode(self._pixels))
            return Picture(pixels, 16, alpha, orientation, icc)
        image = self._image
        notes: tuple[str, ...] = ()
        if image.mode == "CMYK":
            pixels, note = cmyk_to_rgb(np.asarray(image), icc)
            return Picture(pixels, 8, None, orientation, icc, (note,))
        if (pictures := getattr(image, "n_frames", 1)) > 1:
            notes = (f"holds {pictures} pictures; only the first is kept",)
        if self._kind == "png" and self._data[24:26] in (b"\2\0", b"\4\0") and "transparency" in image.info:
            # Pillow widens grey samples of 2 and 4 bits and leaves the transparent code as it is.
            image.info["transparency"] *= 255 // ((1 << self._data[24]) - 1)
        pixels, alpha = split_alpha(np.asarray(image.convert(_plain_mode(image))))
        return Picture(pixels, 8, alpha, orientation, icc, notes)

    def write(self, page: int, picture: Picture, rgb: Plane) -> None:  # noqa: ARG002
        """Encode."""
        profile = output_profile(picture)
        replaced = profile if profile != picture.icc else None
        if self._kind == "jpeg":
            self._out = self._jpeg(rgb, replaced, drop_profile=profile != picture.icc)
        elif self._kind == "png":
            self._out = pngs.encode(self._data, with_alpha(rgb, picture.alpha), drop_profile=profile != picture.icc)
        elif self._kind == "webp":
            self._out = self._webp(with_alpha(rgb, picture.alpha), profile)
        else:
            self._out = _bmp(self._data, with_alpha(rgb, picture.alpha))

    def finish(self) -> bytes:
        """The whole file."""
        return self._out

    def _exif(self) -> bytes:
        if self._kind == "png":
            return pngs.exif(self._data)
        return bytes(self._image.info.get("exif") or b"")

    def _jpeg(self, rgb: Plane, profile: bytes | None, drop_profile: bool) -> bytes:
        assert isinstance(self._image, JpegImagePlugin.JpegImageFile)
        out = io.BytesIO()
        quality = max(_JPEG_QUALITY, _jpeg_quality(self._image))
        progressive = bool(self._image.info.get("progressive"))
        Image.fromarray(rgb).save(out, "JPEG", quality=quality, subsampling=0, progressive=progressive, optimize=True)
        return _splice_jpeg(out.getvalue(), self._data, profile, drop_profile)

    def _webp(self, pixels: Plane, profile: bytes | None) -> bytes:
        out = io.BytesIO()
        lossless = b"VP8L" in (name for name, _ in _riff_chunks(self._data))
        info = self._image.info
        Image.fromarray(pixels).save(
            out, "WEBP", lossless=lossless, quality=80 if lossless else 95, method=4, exact=True,
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


def check_scans(jpeg: bytes) -> None:
    """InputError for a JPEG of so many scans that decoding it would take hours (ITU-T T.81, B.1.1.2)."""
    at = scans = 0
    while (found := _MARKER.search(jpeg, at)) and found[1] != b"\xd9" and found.end() + 2 <= len(jpeg):
        at = found.end()
        if found[1] != b"\xd8":
            at += struct.unpack_from(">H", jpeg, at)[0]
        scans += found[1] == b"\xda"
        if scans > _MOST_SCANS:
            raise InputError(f"is a JPEG of more than {_MOST_SCANS} scans, which looks like a bomb")


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


def _unreadable(data: bytes, kind: ImageFormat) -> str:
    """What keeps Pillow from reading this."""
    for marker, payload in _jpeg_segments(data) if kind == "jpeg" else ():
        if marker == _JPEG_LS:
            return "is a JPEG-LS; convert it to PNG or TIFF"
        if marker in _START_OF_FRAME and payload and payload[0] != 8:
            return f"is a JPEG of {payload[0]} bits a sample; convert it to a 16-bit PNG or TIFF"
    return f"is damaged, or a {kind.upper()} of a rare kind"


def _jpeg_quality(image: JpegImagePlugin.JpegImageFile) -> int:
    """The libjpeg quality whose luminance table has the mean of this file's."""
    table = image.quantization.get(0, [100])
    scale = 100 * float(np.mean(table)) / _K1_MEAN
    return max(1, min(100, round((200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def _splice_jpeg(encoded: bytes, source: bytes, profile: bytes | None, drop_profile: bool) -> bytes:
    """The encoded file with the source's application and comment segments: EXIF, XMP, IPTC, profile, density."""
    kept = density = b""
    for marker, payload in _jpeg_segments(source):
        is_profile = marker == 0xE2 and payload.startswith(b"ICC_PROFILE\0")
        is_index = marker == 0xE2 and payload.startswith(b"MPF\0")  # offsets of further pictures, which are not kept
        if marker == 0xE0 and payload.startswith(b"JFIF\0") and len(payload) >= 12:
            density = payload[:12] + b"\0\0"
        elif (0xE1 <= marker <= 0xEF and marker != 0xEE and not is_index and not (is_profile and drop_profile)) or (
            marker == 0xFE
        ):
            kept += _jpeg_segment(marker, payload)
    if profile:
        kept += _jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + profile)
    head = 4 + struct.unpack_from(">H", encoded, 4)[0]  # SOI and the encoder's own APP0
    first = _jpeg_segment(0xE0, density) if density else encoded[2:head]
    return encoded[:2] + first + kept + encoded[head:]


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, payload) up to the first scan (ITU-T T.81 B.1.1)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """(width, height) that the headers of a JPEG say."""
    for marker, payload in _jpeg_segments(data):
        if marker in _START_OF_FRAME and len(payload) >= 5:
            height, width = struct.unpack_from(">HH", payload, 1)
            yield width, height


def _jpeg_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        yield name, length
        at += 8 + length + length % 2


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
