"""Image files of every supported format: opened from their bytes, checked against the limits before decoding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import InputError, ReelcolorError
from pipeline.limits import Limits
from pipeline.pictures import ImageFile, sniff

_FILE_PIXELS = 100  # times the limit of one picture, in all pages of a file


def open_image(data: bytes, limits: Limits) -> ImageFile:
    """Open an image from its bytes: headers only. InputError where it is none, or its pictures exceed `limits`."""
    from pipeline.dpx import DpxFile
    from pipeline.rasters import RasterFile
    from pipeline.tiffs import TiffFile

    kind = sniff(data[:32])
    if kind is None:
        raise InputError("is empty" if not data else "is not a JPEG, PNG, TIFF, WebP, BMP or DPX image")
    with guarded("opened"):
        image: ImageFile
        if kind == "tiff":
            image = TiffFile(data, limits.image_pages)
        else:
            image = DpxFile(data) if kind == "dpx" else RasterFile(data, kind)
        if not image.sizes:
            raise InputError("holds no picture")
        total = sum(width * height for width, height in image.sizes)
        if total > _FILE_PIXELS * limits.image_pixels:
            raise InputError(f"has {total} pixels in its {len(image.sizes)} pages, which looks like a bomb")
        for width, height in image.sizes:
            if width < 1 or height < 1:
                raise InputError(f"says that it has {width}×{height} pixels")
            if width * height > limits.image_pixels:
                most = f"the limit of {limits.image_pixels} (image-pixels)"
                raise InputError(f"has {width}×{height} pixels, more than {most}")
    return image


@contextmanager
def guarded(done: str) -> Iterator[None]:
    """Turn whatever a codec raises over one file's bytes into an InputError: that it cannot be `done`, and why.

    Hostile bytes make codecs raise anything from KeyError to struct.error, and one file must not stop the others.
    """
    try:
        yield
    except ReelcolorError:
        raise
    except MemoryError as e:
        raise InputError("needs more memory than this machine has") from e
    except Exception as e:
        raise InputError(f"cannot be {done} ({type(e).__name__}: {' '.join(str(e).split())[:200]})") from e
