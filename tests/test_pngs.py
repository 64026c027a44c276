"""PNG: odd chunks, transparency by colour at every depth, and what is passed on."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2lab

from pipeline import pngs
from pipeline.images import open_image
from pipeline.limits import DEFAULT_LIMITS
from pipeline.rendering import Canvas

H, W = 23, 37
GREY = np.random.default_rng(3).integers(0, 256, (H, W), np.uint8)


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(samples, depth, *extra, interlaced=False):
    """A grey PNG (H, W) of any depth, by hand."""
    passes = [samples]
    if interlaced:  # Adam7: x0, y0, dx, dy of each pass (ISO 15948, 8.2)
        starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in starts]
    bits = [np.unpackbits(rows.astype(">u2").view(np.uint8).reshape(*rows.shape, 2), axis=-1) for rows in passes]
    packed = [np.packbits(rows[..., -depth:].reshape(len(rows), -1), axis=1) for rows in bits]
    data = b"".join(b"\0" + row.tobytes() for rows in packed for row in rows)
    head = struct.pack(">IIBBBBB", W, H, depth, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    )


def coloured(data):
    image = open_image(data, DEFAULT_LIMITS)
    picture = image.read(0)
    canvas = Canvas(picture)
    h, w = canvas.network_input().shape[1:]
    image.write(0, picture, canvas.colour(np.full((2, h // 4, w // 4), 12, np.float32))[0])
    return image.finish()


def assert_lightness(data, expected, peak):
    rgb = imagecodecs.png_decode(pngs.pixels_alone(data))[..., :3]
    wanted = rgb2lab(np.repeat(expected[..., None], 3, axis=-1) / peak)[..., 0]
    code = np.diff(rgb2lab(np.repeat(np.arange(256)[:, None] / 255, 3, axis=1))[:, 0]).max()
    assert np.abs(rgb2lab(rgb / np.iinfo(rgb.dtype).max)[..., 0] - wanted).max() <= code


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_grey_of_every_depth_keeps_lightness_and_the_transparent_code(depth, interlaced):
    samples = (GREY.astype(np.uint16) * 257) >> (16 - depth)
    key = int(samples[0, 0])
    data = coloured(png(samples, depth, chunk(b"tRNS", struct.pack(">H", key)), interlaced=interlaced))
    assert_lightness(data, samples, (1 << depth) - 1)
    alpha = imagecodecs.png_decode(data)[..., 3]
    np.testing.assert_array_equal(alpha, np.where(samples == key, 0, np.iinfo(alpha.dtype).max))


@pytest.mark.parametrize("depth", [8, 16])
def test_text_and_profiles_of_any_size_do_not_hold_up_the_picture(depth):
    vast = zlib.compress(bytes(70_000_000), 1)
    extra = [
        chunk(b"zTXt", b"Comment\0\0" + vast),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + vast),
        chunk(b"iCCP", b"profile\0\0" + vast),
        chunk(b"tEXt", b"Title\0Harbour")[:-1] + b"?",  # a wrong checksum
        chunk(b"tEXt", b"Note\0" + b"x" * 9_000_000),
    ]
    samples = (GREY.astype(np.uint16) * 257) >> (16 - depth)
    source = png(samples, depth, *extra)
    result = coloured(source)
    assert_lightness(result, samples, (1 << depth) - 1)
    before, after = ([entry for entry in pngs.chunks(data) if entry[0].islower() or entry[0] == b"iTXt"]
                     for data in (source, result))  # fmt: skip
    assert after == before


def test_a_large_profile_is_read():
    icc = bytearray(imagecodecs.cms_profile("adobergb") + bytes(2_000_000))
    struct.pack_into(">I", icc, 0, len(icc))
    source = png(GREY, 8, chunk(b"iCCP", b"Adobe RGB\0\0" + zlib.compress(bytes(icc))))
    assert open_image(source, DEFAULT_LIMITS).read(0).icc == bytes(icc)
    assert open_image(png(GREY, 8, chunk(b"iCCP", b"damaged\0\0xx")), DEFAULT_LIMITS).read(0).icc is None


def test_an_animation_of_one_frame_is_a_picture_and_what_follows_the_end_is_dropped():
    control = chunk(b"acTL", struct.pack(">II", 1, 0))
    result = coloured(png(GREY, 8, control) + chunk(b"tEXt", b"After\0the end"))
    assert_lightness(result, GREY, 255)
    assert b"After" not in result
    assert Image.open(io.BytesIO(result)).size == (W, H)
