"""TIFF 6.0 and BigTIFF: every page is coloured, and keeps tags, resolution and, where it can, its compression."""

from __future__ import annotations

import io
import logging
import math
import struct
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pipeline import jpegs
from pipeline.errors import InputError, UnsupportedError
from pipeline.frames import Plane
from pipeline.pictures import Picture
from pipeline.rasters import cmyk_to_rgb, with_alpha
from pipeline.rendering import output_profile
from pipeline.tiff_ifd import copy_directory

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters of it is raised

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEGS = frozenset({6, 7, 99})
_PLAIN = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})  # compressions that give YCbCr samples back as YCbCr
_ASSOCIATED = 1  # ExtraSamples: colours are multiplied by alpha
_CLASSIC_BYTES = 3_900_000_000  # uncompressed; a classic TIFF ends at 4 GiB
# Compressions that hold RGB without loss; JPEG becomes Deflate, the rest (fax, mostly) LZW.
_KEPT = {1: None, 5: "lzw", 7: "zlib", 8: "zlib", 32946: "zlib", 32773: "packbits", 50000: "zstd"}
_LAYOUT_TAGS = frozenset({
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 290,
    291, 292, 293, 296, 301, 317, 320, 321, 322, 323, 324, 325, 330, 332, 334, 336, 338, 339, 340, 341, 342, 347, 400,
    512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 32997, 32998, 34675,
})  # fmt: skip
# EXIF and GPS point to directories of their own. tifffile does not write these tags: they are written under the
# number before, which no tag has, so that entries stay sorted, and renumbered once their directories have a place.
_FOLDERS = (34665, 34853)
_RESOLUTION = (282, 283)
# Compressions whose data says by itself how large a picture it makes, whatever the page says; JPEG's is looked at.
_SELF_SIZED = frozenset({
    22610, 33003, 33004, 33005, 33007, 34712, 34887, 34892, 34927, 34933, 34934, 48124, 50001, 50002, 52546,
})  # fmt: skip
_SHARED = 4  # times the file's size that its pages' tags may have together, as some share theirs
_PADDING = 1 << 16  # pixels that a JPEG inside may have beyond twice its place, as some writers fill up blocks
_MOST_SAMPLES = 5  # a pixel: ink and alpha
_MOST_PARTS = 1 << 22  # strips or tiles of a page: of 16×16 pixels as many as a picture may have
_SHAPED = b'{"shape"'  # a description that tifffile writes of the array's shape, which colour changes


class TiffFile:
    """An opened TIFF; pages are decoded one at a time and written as they come."""

    def __init__(self, data: bytes, max_pages: int) -> None:
        self._data, self._order = data, {b"II": "<", b"MM": ">"}[data[:2]]
        self._tiff = tifffile.TiffFile(io.BytesIO(data))
        self._tiff.filehandle.set_lock(True)  # pages are decoded in several threads
        self._pages: list[tifffile.TiffPage] = []
        for page in self._tiff.pages:
            if len(self._pages) == max_pages:
                raise InputError(f"has more than {max_pages} pages; raise the limit image-pages if that is meant")
            self._pages.append(page.aspage())
        self._buffer = io.BytesIO()
        large = sum(page.imagewidth * page.imagelength * _bytes_out(page) for page in self._pages) > _CLASSIC_BYTES
        self._big = self._tiff.is_bigtiff or large
        self._writer = tifffile.TiffWriter(self._buffer, bigtiff=self._big, byteorder=self._tiff.byteorder)
        self._written: list[tifffile.TiffPage] = []  # the source's pages, in the order of the output's
        self._kept = 0  # bytes of their tags

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of every page."""
        return [(page.imagewidth, page.imagelength) for page in self._pages]

    def read(self, page: int) -> Picture:
        """Decode one page. UnsupportedError for samples beyond 16 bits and rare colour spaces."""
        source = self._pages[page]
        _check_supported(page + 1, source)
        if int(source.compression) in _JPEGS:
            self._check_jpeg(source)
        bits, photometric = source.bitspersample, int(source.photometric)
        samples = _samples(source)
        icc = self._raw(source.tags[34675]) if 34675 in source.tags else None
        orientation = _value_of(source, 274, 1)
        orientation = orientation if 1 <= orientation <= 8 else 1
        if photometric == _PALETTE:
            assert source.colormap is not None
            return Picture(_through_palette(samples[..., 0], source.colormap), 8, None, orientation, icc)
        depth = 8 if bits <= 8 else 16
        scaled = _to_full_scale(samples, bits)
        notes: tuple[str, ...] = (f"widened from {bits} to 16 bits",) if 8 < bits < 16 else ()
        if 330 in source.tags:
            notes = (*notes, "reduced copies inside it are left out")
        if self._big and any(code in source.tags for code in _FOLDERS):
            notes = (*notes, "EXIF and GPS data of a BigTIFF are left out")
        colours = {_SEPARATED: 4, _RGB: 3, _YCBCR: 3}.get(photometric, 1)
        alpha = np.ascontiguousarray(scaled[..., colours]) if scaled.shape[2] > colours else None
        if scaled.shape[2] > colours + 1 or scaled.shape[2] < colours:
            raise UnsupportedError(f"page {page + 1} has {scaled.shape[2]} samples a pixel")
        pixels: NDArray[Any] = np.ascontiguousarray(scaled[..., :colours])
        if _is_plain_ycbcr(source):
            pixels = _ycbcr_to_rgb(pixels, source)
        if alpha is not None and _is_associated(source):
            pixels = _divided(pixels, alpha)
        if photometric == _SEPARATED:
            pixels, note = cmyk_to_rgb(pixels, icc)
            notes = (*notes, note)
        elif colours == 1:
            pixels = pixels[..., 0]
            if photometric == _MIN_IS_WHITE:
                pixels = np.iinfo(pixels.dtype).max - pixels
        return Picture(pixels, depth, alpha, orientation, icc, notes)

    def _check_jpeg(self, page: tifffile.TiffPage) -> None:
        """InputError where libjpeg would make up what is missing, or be kept busy with more than the page."""
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.imagelength, page.imagewidth)
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if offset + count > len(self._data):
                raise InputError("is truncated")
            part = self._data[offset : offset + count]
            jpegs.check_scans(part)
            if any(w * h > 2 * width * height + _PADDING for w, h in jpegs.sizes(part)):
                raise InputError("holds a JPEG that is larger than its place")

    def write(self, page: int, picture: Picture, rgb: Plane) -> None:
        """Append one page."""
        source = self._pages[page]
        compression = _KEPT.get(int(source.compression), "lzw")
        self._written.append(source)
        extras = source.extrasamples[:1] if picture.alpha is not None else ()
        if picture.alpha is not None and _is_associated(source):
            rgb = _multiplied(rgb, picture.alpha)
        arguments: dict[str, Any] = {}
        if compression in ("lzw", "zlib", "zstd"):
            arguments = {"predictor": True}
        self._writer.write(
            with_alpha(rgb, picture.alpha), photometric="rgb", planarconfig="contig", extrasamples=extras or None,
            compression=compression, subfiletype=int(_value_of(source, 254, 0)), resolution=(1, 1),
            resolutionunit=int(_value_of(source, 296, 2 if 282 in source.tags else 1)),
            iccprofile=output_profile(picture), software=False, metadata=None, extratags=self._tags(source),
            contiguous=False, **arguments,
        )  # fmt: skip

    def finish(self) -> bytes:
        """The whole file."""
        self._writer.close()
        result = bytearray(self._buffer.getvalue())
        with tifffile.TiffFile(io.BytesIO(result)) as written:
            for source, page in zip(self._written, written.pages, strict=True):
                for tag in page.aspage().tags.values():
                    if tag.code in _RESOLUTION and tag.code in source.tags:
                        result[tag.valueoffset : tag.valueoffset + 8] = self._raw(source.tags[tag.code])[:8]
                    elif tag.code + 1 in _FOLDERS:
                        result += bytes(-len(result) % 2)
                        struct.pack_into(f"{self._order}H", result, tag.offset, tag.code + 1)
                        struct.pack_into(f"{self._order}I", result, tag.offset + 8, len(result))
                        where = self._folder_offset(source.tags[tag.code + 1])
                        folder = copy_directory(self._data, where, self._order, len(result))
                        self._count(len(folder))
                        result += folder
        return bytes(result)

    def _tags(self, source: tifffile.TiffPage) -> list[tuple[int, int, int, bytes | int, bool]]:
        """The page's own tags but for those that describe the layout; values as the bytes they are stored in."""
        tags: list[tuple[int, int, int, bytes | int, bool]] = []
        for tag in source.tags.values():
            raw = self._raw(tag)
            if tag.code in _FOLDERS:
                if not self._big:
                    tags.append((tag.code - 1, 4, 1, 0, True))  # its place in the file is known at the end
            elif tag.code not in _LAYOUT_TAGS and not (tag.code == 270 and raw.startswith(_SHAPED)):
                tags.append((tag.code, int(tag.dtype), tag.count, raw, True))
            self._count(len(raw))
        return tags

    def _count(self, size: int) -> None:
        """Count bytes of tags and their directories. InputError once they are far more than the file has."""
        self._kept += size
        if self._kept > _SHARED * len(self._data):
            raise InputError("has tags that share their bytes and would be larger than the file; it looks like a bomb")

    def _folder_offset(self, tag: tifffile.TiffTag) -> int:
        return int(struct.unpack_from(f"{self._order}I", self._data, tag.offset + 8)[0])

    def _raw(self, tag: tifffile.TiffTag) -> bytes:
        return self._data[tag.valueoffset : tag.valueoffset + tag.valuebytecount]


def _check_supported(number: int, page: tifffile.TiffPage) -> None:
    """UnsupportedError, before anything is decoded, for kinds of samples that cannot be coloured."""
    bits = page.bitspersample
    if bits > 16 or page.imagedepth > 1 or page.sampleformat not in (None, 1):
        raise UnsupportedError(
            f"page {number} has {bits}-bit samples, signed, floating or too deep; make it unsigned 16 bits"
        )
    if page.samplesperpixel > _MOST_SAMPLES:
        raise UnsupportedError(f"page {number} has {page.samplesperpixel} samples a pixel")
    parts = math.prod(page.chunked)
    if parts > _MOST_PARTS:
        raise InputError(f"page {number} is cut into {parts} parts, which looks like a bomb")
    if len(page.dataoffsets) < parts:
        raise InputError(f"page {number} lists {len(page.dataoffsets)} of its {parts} parts")
    if int(page.compression) in _SELF_SIZED:
        name = tifffile.COMPRESSION(page.compression).name
        raise UnsupportedError(f"page {number} is compressed as {name}; convert it to LZW or Deflate")
    if int(page.photometric) not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR):
        raise UnsupportedError(f"page {number} has a colour space that is not supported ({page.photometric})")
    if _is_plain_ycbcr(page) and page.is_subsampled:
        raise UnsupportedError(f"page {number} has subsampled YCbCr without JPEG; convert it to RGB")


def _is_plain_ycbcr(page: tifffile.TiffPage) -> bool:
    return int(page.photometric) == _YCBCR and int(page.compression) in _PLAIN


def _samples(page: tifffile.TiffPage) -> NDArray[Any]:
    """A page's samples (H, W, S), as stored."""
    expected = page.imagelength * page.imagewidth * page.samplesperpixel
    samples: NDArray[Any] = page.asarray()
    if samples.size != expected:
        raise InputError("its data does not match its header")
    if int(page.planarconfig or 1) == 2 and page.samplesperpixel > 1:
        return np.moveaxis(samples.reshape(page.samplesperpixel, page.imagelength, page.imagewidth), 0, -1)
    return samples.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)


def _to_full_scale(samples: NDArray[Any], bits: int) -> NDArray[Any]:
    """Codes of 1 to 16 bits to the full range of 8 or 16."""
    if bits in (8, 16):
        return samples.astype(np.uint8 if bits == 8 else np.uint16, copy=False)
    wide = samples.astype(np.uint32) * (255 if bits < 8 else 65535)
    return ((2 * wide + (1 << bits) - 1) // (2 * ((1 << bits) - 1))).astype(np.uint8 if bits < 8 else np.uint16)


def _through_palette(index: NDArray[Any], palette: NDArray[np.uint16]) -> Plane:
    """Palette indices (H, W) to RGB (H, W, 3), 8 bits; some writers fill the 16-bit palette with 8-bit values."""
    eight = palette if palette.max() <= 255 else palette >> 8
    rgb: NDArray[np.uint8] = np.ascontiguousarray(eight.astype(np.uint8).T)[index]
    return rgb


def _ycbcr_to_rgb(samples: NDArray[Any], page: tifffile.TiffPage) -> NDArray[Any]:
    """Full-scale Y, Cb, Cr (H, W, 3) → R, G, B of the same type, by the page's own tags (TIFF 6.0, section 21)."""
    red, green, blue = _values_of(page, 529, (0.299, 0.587, 0.114))
    peak = int(np.iinfo(samples.dtype).max)
    default = (0, 255, 128, 255, 128, 255)
    black = np.array(_values_of(page, 532, default), np.float32).reshape(3, 2) * (peak / 255)
    ranges = np.array([peak, peak * 127 / 255, peak * 127 / 255], np.float32)
    y, cb, cr = np.moveaxis((samples - black[:, 0]) * (ranges / (black[:, 1] - black[:, 0])), -1, 0)
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    g = (y - red * r - blue * b) / green
    rgb: NDArray[Any] = np.rint(np.clip(np.stack([r, g, b], axis=-1), 0, peak)).astype(samples.dtype)
    return rgb


def _is_associated(page: tifffile.TiffPage) -> bool:
    return bool(page.extrasamples) and int(page.extrasamples[0]) == _ASSOCIATED


def _divided(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Colours without the alpha they were multiplied by; `_multiplied` gives them back exactly."""
    peak = np.iinfo(pixels.dtype).max
    whole = np.maximum(alpha, 1).astype(np.uint64)
    if pixels.ndim == 3:
        whole = whole[..., None]
    divided: NDArray[Any] = np.minimum((2 * pixels.astype(np.uint64) * peak + whole) // (2 * whole), peak)
    return divided.astype(pixels.dtype)


def _multiplied(rgb: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    peak = int(np.iinfo(rgb.dtype).max)
    multiplied: NDArray[Any] = (2 * rgb.astype(np.uint64) * alpha[..., None] + peak) // (2 * peak)
    return multiplied.astype(rgb.dtype)


def _bytes_out(page: tifffile.TiffPage) -> int:
    """Bytes of a pixel when it is RGB."""
    return (1 if page.bitspersample <= 8 else 2) * (4 if page.extrasamples else 3)


def _values_of(page: tifffile.TiffPage, code: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """A tag's numbers, rationals as numbers; the default where it has another count of them, or none."""
    value = page.tags[code].value if code in page.tags else default
    if len(value) == 2 * len(default):
        value = tuple(n / d for n, d in zip(value[::2], value[1::2], strict=True))
    return tuple(value) if len(value) == len(default) else default


def _value_of(page: tifffile.TiffPage, code: int, default: int) -> int:
    value = page.tags[code].value if code in page.tags else default
    return int(value) if isinstance(value, int) else default
