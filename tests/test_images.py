import contextlib
import io
import struct
import warnings
import zlib
from fractions import Fraction

import av
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin
from skimage.color import rgb2lab

from pipeline import tiffs
from pipeline.errors import InputError, UnsupportedError
from pipeline.images import guarded, open_image
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.pictures import Picture, sniff
from pipeline.profiles import grey_lightness, srgb_profile
from pipeline.rasters import exif_orientation
from pipeline.rendering import Canvas, as_stored, linear_colour, upright

H, W = 46, 61
RNG = np.random.default_rng(5)
GREY = np.clip(np.add.outer(np.arange(H) * 3, np.arange(W) * 2) + RNG.integers(-9, 10, (H, W)), 0, 255).astype(np.uint8)
GREY16 = (GREY.astype(np.uint16) * 257) ^ 0x5A


def swirl(h, w):
    """Colour as no picture has it: every hue, far out of gamut in places. (2, h, w)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.stack([70 * np.sin(x / 3), 70 * np.cos(y / 3)]).astype(np.float32)


def gentle(h, w):
    """Colour as pictures have it."""
    return swirl(h, w) / 3


def colour(data, ab=swirl, limits=DEFAULT_LIMITS):
    image = open_image(data, limits)
    for page in range(len(image.sizes)):
        picture = image.read(page)
        canvas = Canvas(picture)
        h, w = canvas.network_input().shape[1:]
        rgb, _ = canvas.colour(ab(h // 4, w // 4))
        image.write(page, picture, rgb)
    return image.finish()


def grey_of_equal_lightness(rgb, depth):
    """The grey code with the L* of each pixel, by scikit-image."""
    peak = (1 << depth) - 1
    ramp = np.linspace(0, 1, 4096)
    lightness = rgb2lab(np.repeat(ramp[:, None], 3, 1))[:, 0]
    return np.interp(rgb2lab(rgb[..., :3] / peak)[..., 0], lightness, ramp * peak)


def assert_lightness_kept(rgb, grey, depth=8):
    assert rgb.shape[:2] == grey.shape
    assert np.abs(grey_of_equal_lightness(rgb, depth) - grey).max() <= 1
    assert np.ptp(rgb[..., :3].astype(int), axis=-1).mean() > 0.05 * (1 << depth)  # it is in colour


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pil(array, kind, **options):
    return saved(Image.fromarray(array), kind, **options)


def tiff(array, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, metadata=None, **options)
    return out.getvalue()


def loaded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_lightness_is_kept_to_one_code_at_8_bits(kind, options):
    result = colour(pil(GREY, kind, **options))
    assert sniff(result) == kind.lower()
    assert Image.open(io.BytesIO(result)).mode == "RGB"
    assert_lightness_kept(loaded(result), GREY)


def test_lightness_is_kept_to_one_code_of_16_bits_in_png_and_tiff():
    png = imagecodecs.png_decode(colour(imagecodecs.png_encode(GREY16)))
    tif = tifffile.imread(io.BytesIO(colour(tiff(GREY16, photometric="minisblack"))))
    for result in (png, tif):
        assert result.dtype == np.uint16
        assert_lightness_kept(result, GREY16, 16)


@pytest.mark.parametrize("quality", [60, 85, 98])
def test_jpeg_keeps_lightness_to_one_code_though_it_is_coded_again(quality):
    source = pil(GREY, "JPEG", quality=quality, progressive=True)
    result = loaded(colour(source))
    error = np.abs(grey_of_equal_lightness(result, 8) - loaded(source))
    assert error.max() < 1.001
    assert np.ptp(result.astype(int), axis=-1).mean() > 30


def test_jpeg_keeps_lightness_of_tints_cmyk_and_grey_profiles():
    sepia = np.clip(GREY[..., None] * [1.0, 0.85, 0.6], 0, 255).astype(np.uint8)
    source = pil(sepia, "JPEG", quality=90, subsampling=0)
    wanted = grey_of_equal_lightness(loaded(source), 8)
    assert np.abs(grey_of_equal_lightness(loaded(colour(source, gentle)), 8) - wanted).max() < 1.001
    ink = saved(Image.fromarray(np.dstack([GREY * 0, GREY * 0, GREY * 0, 255 - GREY]), "CMYK"), "JPEG", quality=95)
    black = open_image(ink, DEFAULT_LIMITS).read(0).pixels
    wanted = grey_of_equal_lightness(black, 8)
    assert np.abs(grey_of_equal_lightness(loaded(colour(ink, gentle)), 8) - wanted).max() < 1.001
    icc = imagecodecs.cms_profile("gray", gamma=1.8)
    source = pil(GREY, "JPEG", quality=90, icc_profile=icc)
    ramp = np.linspace(0, 1, 4096)
    table = rgb2lab(np.repeat(ramp[:, None], 3, 1))[:, 0]
    wanted = np.interp(grey_lightness(icc, "gray", 8)[loaded(source)], table, ramp * 255)
    # The colours are rounded to codes before they are coded.
    assert np.abs(grey_of_equal_lightness(loaded(colour(source, gentle)), 8) - wanted).max() < 1.55


def test_no_colour_gives_back_the_source_exactly():
    for data, pixels in ((pil(GREY, "PNG"), GREY), (imagecodecs.png_encode(GREY16), GREY16)):
        result = imagecodecs.png_decode(colour(data, lambda h, w: np.zeros((2, h, w), np.float32)))
        np.testing.assert_array_equal(result, np.dstack([pixels] * 3))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_bilevel_comes_back_as_rgb_at_black_and_white(kind):
    options = {"compression": "group4"} if kind == "TIFF" else {}
    result = loaded(colour(pil(GREY > 127, kind, **options)))
    np.testing.assert_array_equal(result, np.dstack([(GREY > 127) * np.uint8(255)] * 3))


def test_palettes_of_greys_in_any_order_are_read_through_the_palette():
    order = RNG.permutation(256).astype(np.uint8)
    image = Image.new("P", (W, H))
    image.frombytes(np.argsort(order).astype(np.uint8)[GREY].tobytes())
    image.putpalette(np.repeat(order, 3).tobytes())
    for kind in ("PNG", "BMP", "TIFF"):
        result = loaded(colour(saved(image, kind)))
        assert_lightness_kept(result, GREY)


def test_alpha_is_kept_and_transparency_by_colour_becomes_alpha():
    alpha = 255 - GREY
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("BMP", {})):
        source = pil(np.dstack([GREY, GREY, GREY, alpha]), kind, **options)
        if kind == "BMP":  # as Pillow writes it, alpha is declared nowhere; declare it
            source = with_bmp_masks(source)
        result = loaded(colour(source))
        np.testing.assert_array_equal(result[..., 3], alpha)
        assert_lightness_kept(result, GREY)
    keyed = loaded(colour(pil(GREY, "PNG", transparency=int(GREY[0, 0]))))
    np.testing.assert_array_equal(keyed[..., 3], np.where(GREY[0, 0] == GREY, 0, 255))


def with_bmp_masks(data):
    pixels = data[struct.unpack_from("<I", data, 10)[0] :]
    info = struct.pack("<IiiHHIIiiII", 108, W, H, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    info = (info + struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)).ljust(108, b"\0")
    return struct.pack("<2sIII", b"BM", 122 + len(pixels), 0, 122) + info + pixels


def test_16_bit_alpha_is_kept_in_png_and_tiff():
    alpha = (65535 - GREY16).astype(np.uint16)
    png = imagecodecs.png_decode(colour(imagecodecs.png_encode(np.dstack([GREY16, alpha]))))
    source = tiff(np.dstack([GREY16, GREY16, GREY16, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    page = tifffile.TiffFile(io.BytesIO(colour(source))).pages[0]
    assert [int(sample) for sample in page.extrasamples] == [2]
    for result in (png, page.asarray()):
        np.testing.assert_array_equal(result[..., 3], alpha)
        assert_lightness_kept(result, GREY16, 16)


def test_cmyk_becomes_rgb_and_says_so():
    ink = np.dstack([np.zeros((H, W, 3), np.uint8), 255 - GREY])
    source = saved(Image.merge("CMYK", bands(ink)), "TIFF")
    image = open_image(source, DEFAULT_LIMITS)
    assert image.read(0).notes == ("converted from CMYK to RGB",)
    result = tifffile.TiffFile(io.BytesIO(colour(source))).pages[0]
    assert int(result.photometric) == 2
    assert_lightness_kept(result.asarray(), GREY)
    assert Image.open(io.BytesIO(colour(saved(Image.merge("CMYK", bands(ink)), "JPEG")))).mode == "RGB"


def bands(samples):
    return [Image.fromarray(np.ascontiguousarray(samples[..., i])) for i in range(samples.shape[2])]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_is_what_pillow_shows(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(pil(GREY, "PNG", exif=exif))))
    np.testing.assert_array_equal(upright(GREY, orientation), np.asarray(shown))
    np.testing.assert_array_equal(as_stored(upright(GREY, orientation), orientation), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_network_sees_it_upright_and_viewers_turn_it_as_before(kind, orientation):
    ramp = np.add.outer(np.arange(64) * 2, np.arange(128)).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    source = pil(ramp, kind, exif=exif)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(source)))
    picture = open_image(source, DEFAULT_LIMITS).read(0)
    assert picture.orientation == orientation
    seen = Canvas(picture).network_input()[0]
    expected = rgb2lab(np.asarray(shown.convert("RGB").resize(seen.shape[::-1], Image.Resampling.BILINEAR)))[..., 0]
    assert np.abs(seen - expected).mean() < 2

    def left_half_is_red(h, w):
        ab = np.zeros((2, h, w), np.float32)
        ab[0, :, : w // 2] = 60
        return ab

    result = Image.open(io.BytesIO(data := colour(source, left_half_is_red)))
    assert open_image(data, DEFAULT_LIMITS).sizes == [(128, 64)]  # pixels stay as stored
    assert result.getexif()[274] == orientation
    turned = np.asarray(ImageOps.exif_transpose(result).convert("RGB")).astype(int)
    redness = (turned[..., 0] - turned[..., 1]).mean(axis=0)
    third = len(redness) // 3
    assert redness[:third].mean() > 20
    assert abs(redness[-third:].mean()) < 5


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("tinted", [False, True])
def test_between_black_bars_a_picture_is_coloured_as_it_is_alone(orientation, tinted):
    """Upright or not; the bars, not quite black, come out without colour. Being told in 32nds, they leave 4 samples."""
    rng = np.random.default_rng(4)
    alone = np.pad(rng.integers(60, 220, (96, 144), np.uint8), 4, constant_values=12)
    boxed = np.pad(alone, ((16, 16), (24, 24)), constant_values=12)
    if tinted:
        alone, boxed = (np.stack([p, p - p // 8, p - p // 4], axis=-1) for p in (alone, boxed))
    canvas, framed = (Canvas(Picture(p, 8, orientation=orientation)) for p in (alone, boxed))
    np.testing.assert_array_equal(framed.network_input(), canvas.network_input())
    ab = rng.normal(0, 20, (2, *(n // 4 for n in canvas.network_input().shape[1:]))).astype(np.float32)
    expected, pulled = canvas.colour(ab)
    rgb, pulled_framed = framed.colour(ab)
    np.testing.assert_array_equal(rgb[16:-16, 24:-24], expected)
    assert pulled == pulled_framed
    rgb[16:-16, 24:-24] = 0
    assert (np.ptp(rgb, axis=-1) == 0).all()
    assert set(np.unique(rgb)) <= {0, 11, 12}


def test_exif_orientation_of_damaged_exif_is_upright():
    for exif in (b"", b"Exif\0\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09", bytes(40)):
        assert exif_orientation(exif) == 1


def test_jpeg_metadata_comes_back_byte_for_byte():
    exif = Image.Exif()
    exif[271], exif[306] = "Maker", "1931:05:06 07:08:09"
    exif.get_ifd(0x8769)[0x9003] = "1931:05:06 07:08:09"
    rgb = imagecodecs.cms_profile("adobergb")
    source = pil(GREY, "JPEG", exif=exif, comment=b"a comment", dpi=(300, 301), icc_profile=rgb, xmp=b"<x:xmpmeta/>")
    photoshop = b"\xff\xed" + struct.pack(">H", 2 + 18) + b"Photoshop 3.0\0IPTC"
    source = source[:20] + photoshop + source[20:]
    result = colour(source)
    before, after = (Image.open(io.BytesIO(data)) for data in (source, result))
    for key in ("exif", "comment", "jfif_density", "jfif_unit", "dpi", "xmp"):
        assert after.info[key] == before.info[key], key
    assert photoshop in result


def test_png_metadata_comes_back_byte_for_byte():
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Harbour")
    text.add_itxt("Author", "Å. Ö.", "sv")
    exif = Image.Exif()
    exif[271] = "Maker"
    icc = imagecodecs.cms_profile("adobergb")
    source = pil(np.dstack([GREY] * 3), "PNG", pnginfo=text, dpi=(600, 600), exif=exif, icc_profile=icc)
    before, after = (Image.open(io.BytesIO(data)) for data in (source, colour(source)))
    for key in ("Title", "Author", "dpi", "exif", "icc_profile"):
        assert after.info[key] == before.info[key], key


def test_webp_and_bmp_metadata_are_kept():
    exif = Image.Exif()
    exif[271] = "Maker"
    source = pil(np.dstack([GREY] * 3), "WEBP", exif=exif, icc_profile=srgb_profile(), xmp=b"<x/>", lossless=True)
    result = colour(source)
    before, after = (Image.open(io.BytesIO(data)) for data in (source, result))
    assert b"VP8L" in result
    for key in ("exif", "icc_profile", "xmp"):
        assert after.info[key] == before.info[key], key
    lossy = pil(GREY, "WEBP", quality=70)
    assert_lightness_kept(loaded(colour(lossy)), grey_of_equal_lightness(loaded(lossy), 8))
    bmp = Image.open(io.BytesIO(colour(pil(GREY, "BMP", dpi=(300, 300)))))
    assert bmp.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def classic_tiff(order, tags, strip):
    """A TIFF by hand. tags: {code: (type, values) or a dict of the same, for a directory of its own}."""
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    strip_at, _ = len(data), data.extend(strip + bytes(len(strip) % 2))
    tags = {**tags, 273: (4, [strip_at]), 278: (4, [H]), 279: (4, [len(strip)])}
    struct.pack_into(order + "I", data, 4, append_folder(data, order, tags))
    return bytes(data)


def append_folder(data, order, tags):
    entries = b""
    for code, value in sorted(tags.items()):
        kind, values = (4, [append_folder(data, order, value)]) if isinstance(value, dict) else value
        flat = (
            values
            if kind == 2
            else struct.pack(order + {3: "H", 4: "I", 5: "II"}[kind] * (len(values) // (kind // 5 + 1)), *values)
        )
        count = len(flat) // {2: 1, 3: 2, 4: 4, 5: 8}[kind]
        if len(flat) > 4:
            flat, _ = struct.pack(order + "I", len(data)), data.extend(flat + bytes(len(flat) % 2))
        entries += struct.pack(order + "HHI", code, kind, count) + flat.ljust(4, b"\0")
    at = len(data)
    data.extend(struct.pack(order + "H", len(tags)) + entries + bytes(4))
    return at


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_tags_resolution_exif_and_gps_are_kept(order):
    icc = imagecodecs.cms_profile("gray", gamma=2.2)
    exif = {0x9003: (2, b"1931:05:06 07:08:09\0"), 0x829A: (5, [1, 60]), 0xA002: (3, [W])}
    gps = {1: (2, b"N\0"), 2: (5, [59, 1, 20, 1, 3, 2])}
    tags = {
        256: (3, [W]),
        257: (3, [H]),
        258: (3, [8]),
        259: (3, [1]),
        262: (3, [1]),
        270: (2, "Harbour, é".encode() + b"\0"),
    }
    tags |= {271: (2, b"Maker\0"), 282: (5, [601, 2]), 283: (5, [299, 1]), 296: (3, [3]), 315: (2, b"An\0")}
    source = classic_tiff(order, {**tags, 34665: exif, 34853: gps}, GREY.tobytes())
    before, result = Image.open(io.BytesIO(source)), colour(source)
    after = Image.open(io.BytesIO(result))
    assert_lightness_kept(np.asarray(after), GREY)
    assert result[:2] == source[:2]
    for tag in (270, 271, 282, 283, 296, 315):
        assert after.tag_v2[tag] == before.tag_v2[tag], tag
    assert (after.tag_v2[282].numerator, after.tag_v2[282].denominator) == (601, 2)
    for folder, content in ((0x8769, exif), (0x8825, gps)):
        assert dict(after.getexif().get_ifd(folder)) == dict(before.getexif().get_ifd(folder))
        assert len(after.getexif().get_ifd(folder)) == len(content)
    with_profile = colour(pil(GREY, "TIFF", icc_profile=icc, compression="tiff_adobe_deflate"))
    assert Image.open(io.BytesIO(with_profile)).info["icc_profile"] == srgb_profile()  # a grey one has no place in RGB
    assert Image.open(io.BytesIO(with_profile)).info["compression"] == "tiff_adobe_deflate"


def test_all_pages_of_a_tiff_come_back_in_order():
    pages = [GREY, 255 - GREY[:20], GREY16[:, :30], (GREY > 99)]
    out = io.BytesIO()
    with tifffile.TiffWriter(out, bigtiff=True) as writer:
        for i, page in enumerate(pages):
            writer.write(page, photometric="minisblack", compression="lzw", resolution=(100 + i, 200), metadata=None,
                         description=f"page {i}", contiguous=False)  # fmt: skip
    with tifffile.TiffFile(io.BytesIO(colour(out.getvalue()))) as result:
        assert result.is_bigtiff
        assert len(result.pages) == 4
        for i, (page, source) in enumerate(zip(result.pages, pages, strict=True)):
            assert page.description == f"page {i}"
            assert page.resolution == (100 + i, 200)
            assert int(page.compression) == 5
            depth = 16 if source.dtype == np.uint16 else 8
            expected = source * np.uint8(255) if source.dtype == bool else source
            assert np.abs(grey_of_equal_lightness(page.asarray(), depth) - expected).max() <= 1


@pytest.mark.parametrize(
    ("array", "options", "expected", "depth"),
    [
        (255 - GREY, {"photometric": "miniswhite"}, GREY, 8),
        (65535 - GREY16, {"photometric": "miniswhite", "byteorder": ">"}, GREY16, 16),
        (np.stack([GREY] * 3), {"photometric": "rgb", "planarconfig": "separate"}, GREY, 8),
        (GREY, {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib", "predictor": True}, GREY, 8),
        (np.dstack([GREY16] * 3), {"photometric": "rgb", "compression": "lzw"}, GREY16, 16),
    ],
)
def test_tiff_layouts(array, options, expected, depth):
    result = tifffile.TiffFile(io.BytesIO(colour(tiff(array, **options))))
    assert result.byteorder == options.get("byteorder", "<")
    assert_lightness_kept(result.pages[0].asarray(), expected, depth)


def test_bilevel_with_white_as_0_is_not_a_negative():
    strip = np.packbits(GREY <= 127, axis=1).tobytes()  # set bits are black
    data = classic_tiff("<", {256: (3, [W]), 257: (3, [H]), 258: (3, [1]), 259: (3, [1]), 262: (3, [0])}, strip)
    np.testing.assert_array_equal(loaded(data), GREY > 127)  # Pillow's reading of it
    np.testing.assert_array_equal(loaded(colour(data))[..., 1], (GREY > 127) * 255)


def test_tiff_of_12_bits_is_widened_and_floats_are_refused():
    codes = (GREY16[:, :60] >> 4).astype(np.uint16)
    strip = bytes(imagecodecs.packints_encode(codes, 12))
    tags = {256: (3, [60]), 257: (3, [H]), 258: (3, [12]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1])}
    picture = open_image(classic_tiff(">", tags, strip), DEFAULT_LIMITS).read(0)
    assert picture.notes == ("widened from 12 to 16 bits",)
    assert np.abs(picture.pixels / 65535 - codes / 4095).max() < 1e-4
    with pytest.raises(UnsupportedError, match="32-bit"):
        colour(tiff(GREY.astype(np.float32), photometric="minisblack"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_ycbcr_without_jpeg_is_read_as_such(compression):
    hues = np.dstack([GREY, GREY[::-1], 255 - GREY])
    for pixels in (hues, np.dstack([GREY] * 3)):
        source = saved(Image.fromarray(pixels).convert("YCbCr"), "TIFF", compression=compression)
        shown = np.asarray(Image.open(io.BytesIO(source)).convert("RGB")).astype(int)
        assert np.abs(open_image(source, DEFAULT_LIMITS).read(0).pixels - shown).max() <= 1


def test_subsampled_ycbcr_without_jpeg_is_refused():
    tags = {256: (3, [W]), 257: (3, [H]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [6]), 277: (3, [3])}
    with pytest.raises(UnsupportedError, match="subsampled YCbCr"):
        open_image(classic_tiff("<", {**tags, 530: (3, [2, 2])}, bytes(H * W * 3)), DEFAULT_LIMITS).read(0)


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_colours_multiplied_by_alpha_stay_below_it(photometric):
    alpha = RNG.integers(0, 256, GREY.shape, np.uint8)
    alpha[:20] = 255
    grey = np.rint(GREY * (alpha / 255)).astype(np.uint8)
    samples = np.dstack([grey] * (3 if photometric == "rgb" else 1) + [alpha])
    source = tiff(samples, photometric=photometric, extrasamples=["assocalpha"], planarconfig="contig")
    result = tifffile.imread(io.BytesIO(colour(source)))
    np.testing.assert_array_equal(result[..., 3], alpha)
    assert (result[..., :3] <= alpha[..., None]).all()
    assert_lightness_kept(result[:20], grey[:20])
    uncoloured = colour(source, lambda h, w: np.zeros((2, h, w), np.float32))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(uncoloured))[..., :3], np.dstack([grey] * 3))


def test_jpeg_inside_tiff_becomes_deflate_so_that_lightness_holds():
    source = tiff(GREY, photometric="minisblack", compression="jpeg")
    result = tifffile.TiffFile(io.BytesIO(colour(source))).pages[0]
    assert int(result.compression) == 8
    assert_lightness_kept(result.asarray(), tifffile.imread(io.BytesIO(source)))


def test_a_tiff_that_outgrows_four_gigabytes_becomes_a_bigtiff(monkeypatch):
    monkeypatch.setattr(tiffs, "_CLASSIC_BYTES", GREY.size * 3 - 1)
    tags = {256: (3, [W]), 257: (3, [H]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1])}
    source = classic_tiff("<", {**tags, 34665: {0x9003: (2, b"1931:05:06 07:08:09\0")}}, GREY.tobytes())
    assert open_image(source, DEFAULT_LIMITS).read(0).notes == ("EXIF and GPS data of a BigTIFF are left out",)
    result = tifffile.TiffFile(io.BytesIO(colour(source)))
    assert result.is_bigtiff
    assert_lightness_kept(result.pages[0].asarray(), GREY)


def test_rare_kinds_of_jpeg_are_named():
    for data, said in (
        (imagecodecs.jpeg8_encode(GREY16 >> 4, bitspersample=12), "12 bits a sample"),
        (imagecodecs.jpegls_encode(GREY), "JPEG-LS"),
        (b"\xff\xd8\xff\xe0\0\4ab" + bytes(40), "damaged, or a JPEG of a rare kind"),
    ):
        with pytest.raises(InputError, match=said):
            open_image(data, DEFAULT_LIMITS)


def dpx(array, pix_fmt):
    encoder = av.CodecContext.create("dpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = W, H, pix_fmt, Fraction(1, 24)
    frame = av.VideoFrame.from_ndarray(array, format=pix_fmt.replace("be", "le"))
    packets = [*encoder.encode(frame.reformat(format=pix_fmt)), *encoder.encode(None)]
    data = bytes(packets[0])  # FFmpeg leaves out the film and television headers: put them in, with time code and so on
    order = ">" if data[:4] == b"SDPX" else "<"
    full = bytearray(data[:1664] + struct.pack(f"{order}I", 0x01020304).ljust(384, b"\7") + data[1664:])
    full[36:46] = b"scan.0042\0"
    for at, value in ((4, 2048), (16, len(full)), (808, 2048)):
        struct.pack_into(f"{order}I", full, at, value)
    return bytes(full)


def read_dpx(data):
    decoder = av.CodecContext.create("dpx", "r")
    frame = [*decoder.decode(av.Packet(data)), *decoder.decode(None)][0]
    name = frame.format.name
    return frame.reformat(format=name.replace("be", "le")).to_ndarray()


@pytest.mark.parametrize(
    ("depth", "pix_fmt"),
    [(8, "gray"), (8, "rgb24"), (10, "gbrp10be"), (10, "gbrp10le"), (12, "gbrp12be"), (12, "gbrp12le"),
     (16, "gray16be"), (16, "gray16le"), (16, "rgb48be"), (16, "rgb48le")],
)  # fmt: skip
def test_dpx_keeps_depth_and_header(depth, pix_fmt):
    grey = (GREY16 >> (16 - depth)).astype(np.uint8 if depth == 8 else np.uint16)
    source = dpx(grey if "gray" in pix_fmt else np.dstack([grey] * 3), pix_fmt)
    result = colour(source)
    assert_lightness_kept(read_dpx(result), grey, depth)
    assert result[803] == depth
    for kept in (slice(0, 16), slice(20, 768), slice(820, 2048)):
        assert result[kept] == source[kept]
    order = ">" if source[:4] == b"SDPX" else "<"
    assert struct.unpack_from(f"{order}I", result, 16)[0] == len(result)


def dpx_by_hand(samples, depth, packing, order):
    """A DPX of RGB or RGBA samples (H, W, C) that FFmpeg reads and does not write."""
    header = bytearray(2048)
    header[:4], header[800:804] = b"SDPX" if order == ">" else b"XPDS", bytes([47 + samples.shape[2], 2, 2, depth])
    for at, kind, value in ((4, "I", 2048), (770, "H", 1), (772, "I", W), (776, "I", H), (804, "H", packing),
                            (808, "I", 2048)):  # fmt: skip
        struct.pack_into(order + kind, header, at, value)
    if depth == 12:
        return bytes(header) + (samples << 4).astype(f"{order}u2").tobytes()
    lines = samples.reshape(H, -1).astype(np.uint32)
    lines = np.pad(lines, ((0, 0), (0, -lines.shape[1] % 3))).reshape(H, -1, 3)
    words = lines @ np.array([1 << 22, 1 << 12, 1 << 2] if packing == 1 else [1 << 20, 1 << 10, 1], np.uint32)
    return bytes(header) + words.astype(f"{order}u4").tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("depth", "packing"), [(10, 1), (10, 2), (12, 1)])
@pytest.mark.parametrize("channels", [3, 4])
def test_dpx_of_10_and_12_bits_keeps_alpha(order, depth, packing, channels):
    grey = (GREY16 >> (16 - depth)).astype(np.uint16)
    source = dpx_by_hand(np.dstack([grey, grey, grey, grey[::-1]])[..., :channels], depth, packing, order)
    result = read_dpx(colour(source))
    assert_lightness_kept(result, grey, depth)
    if channels == 4:
        np.testing.assert_array_equal(result[..., 3], grey[::-1])


def test_a_dpx_that_ffmpeg_does_not_read_is_refused_in_words():
    data = bytearray(dpx(np.dstack([GREY16] * 3), "rgb48be"))
    struct.pack_into(">H", data, 806, 1)  # run-length encoded
    with pytest.raises(InputError, match="in a way that FFmpeg does not read"):
        colour(bytes(data))


def test_a_grey_profile_sets_lightness_and_is_replaced_by_srgb():
    icc = imagecodecs.cms_profile("gray", gamma=1.8)
    light = (np.arange(256) / 255) ** 1.8
    expected = np.where(light > (6 / 29) ** 3, 116 * np.cbrt(light) - 16, light * (29 / 3) ** 3)
    np.testing.assert_allclose(grey_lightness(icc, "gray", 8), expected, atol=0.1)
    result = Image.open(io.BytesIO(colour(pil(GREY, "PNG", icc_profile=icc))))
    assert "icc_profile" not in result.info
    assert result.info["srgb"] == 0
    np.testing.assert_allclose(rgb2lab(np.asarray(result))[..., 0], expected[GREY], atol=0.5)
    jpeg = Image.open(io.BytesIO(colour(pil(GREY, "JPEG", icc_profile=icc))))
    assert jpeg.info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize("grey", [True, False])
def test_an_rgb_profile_is_kept_and_lightness_is_measured_under_it(grey):
    icc = imagecodecs.cms_profile("adobergb")
    source = pil(GREY, "PNG") if grey else pil(np.dstack([GREY] * 3), "PNG")
    source = saved(Image.open(io.BytesIO(source)), "PNG", icc_profile=icc)
    result = Image.open(io.BytesIO(colour(source)))
    assert result.info["icc_profile"] == icc
    # Adobe RGB (1998) §4.3: gamma 563/256; luminance weights of its primaries under D65.
    luminance = (np.asarray(result) / 255) ** (563 / 256) @ [0.29734, 0.62736, 0.07529]
    grey = 255 * (luminance / luminance.max()) ** (256 / 563)
    assert np.abs(grey - GREY).max() <= 1
    assert np.ptp(np.asarray(result).astype(int), axis=-1).mean() > 15


def test_damaged_profiles_read_as_srgb():
    for icc in (b"", b"nonsense", bytes(200), srgb_profile()[:200]):
        np.testing.assert_array_equal(grey_lightness(icc, "rgb", 8), grey_lightness(None, "gray", 8))


def test_tints_are_recoloured_at_their_own_lightness_and_colour_is_seen():
    sepia = np.clip(np.dstack([GREY * 1.0, GREY * 0.85, GREY * 0.65]), 0, 255).astype(np.uint8)
    canvas = Canvas(open_image(pil(sepia, "PNG"), DEFAULT_LIMITS).read(0))
    assert not canvas.in_colour
    result = loaded(colour(pil(sepia, "PNG")))
    assert np.abs(rgb2lab(result)[..., 0] - rgb2lab(sepia)[..., 0]).max() < 0.6
    hues = np.dstack([np.roll(GREY, 20 * i, axis=i % 2) for i in range(3)])
    assert Canvas(open_image(pil(hues, "PNG"), DEFAULT_LIMITS).read(0)).in_colour


def test_linear_colour_holds_lightness_and_stays_in_gamut():
    lightness = RNG.uniform(0, 100, (80, 80)).astype(np.float32)
    a, b = RNG.uniform(-110, 110, (2, 80, 80)).astype(np.float32)
    planes, pulled = linear_colour(lightness, a, b)
    linear = np.moveaxis(planes, 0, -1)
    assert 0 < pulled < lightness.size
    assert linear.min() >= 0
    assert linear.max() <= 1
    encoded = np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055, 12.92 * linear)
    np.testing.assert_allclose(rgb2lab(encoded)[..., 0], lightness, atol=2e-2)
    grey, none = linear_colour(lightness, 0 * a, 0 * b)
    assert none == 0
    assert np.ptp(grey, axis=0).max() == 0


def test_colour_inside_the_gamut_is_exact():
    lightness, a, b = (np.full((4, 4), v, np.float32) for v in (60, 20, -15))
    linear, pulled = linear_colour(lightness, a, b)
    assert pulled == 0
    lab = rgb2lab(1.055 * np.moveaxis(linear, 0, -1) ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(lab[0, 0], (60, 20, -15), atol=0.02)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 3), (3, 4000)])
def test_extreme_shapes(shape):
    grey = RNG.integers(0, 256, shape, np.uint8)
    result = loaded(colour(pil(grey, "PNG")))
    assert np.abs(grey_of_equal_lightness(result, 8) - grey).max() <= 1


def vast_headers():
    """Files of a few hundred bytes that say they have 60000 × 60000 pixels or so."""
    png = bytearray(pil(GREY, "PNG"))
    png[16:24] = struct.pack(">II", 60000, 60000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(pil(GREY, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    jpeg = bytearray(pil(GREY, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    tif = bytearray(tiff(GREY, photometric="minisblack"))
    for code in (256, 257):
        struct.pack_into("<I", tif, tifffile.TiffFile(io.BytesIO(tif)).pages[0].tags[code].valueoffset, 60000)
    vast = bytearray(dpx(GREY, "gray"))
    struct.pack_into(">II" if vast[:4] == b"SDPX" else "<II", vast, 772, 60000, 60000)
    return {"png": png, "bmp": bmp, "jpeg": jpeg, "tiff": tif, "dpx": vast}


@pytest.mark.parametrize("kind", ["png", "bmp", "jpeg", "tiff", "dpx"])
def test_the_limit_on_pixels_holds_before_decoding(kind):
    with pytest.raises(InputError, match="60000×60000 pixels, more than the limit"):
        open_image(bytes(vast_headers()[kind]), DEFAULT_LIMITS)


def test_limits_are_settable():
    with pytest.raises(InputError, match="more than the limit of 1000"):
        open_image(pil(GREY, "WEBP"), Limits(image_pixels=1000))
    with pytest.raises(InputError, match="more than 2 pages"):
        open_image(tiff(np.stack([GREY] * 5), photometric="minisblack"), Limits(image_pages=2))


def many_scans(count):
    """A progressive JPEG whose last scan comes so many times."""
    data = pil(GREY, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + count * data[last:-2] + data[-2:], data.count(b"\xff\xda")


def test_jpegs_of_very_many_scans_are_refused():
    """As each is decoded over the whole picture: 300 of 64 million pixels took a minute. Comments may hide none."""
    few, own = many_scans(20)
    assert own < 20
    assert open_image(few, DEFAULT_LIMITS).read(0).size == GREY.shape[::-1]
    many, _ = many_scans(100)
    comment = b"\xff\xfe\0\4\xff\xd9"
    for data in (many, many[:2] + comment + many[2:], many.replace(b"\xff\xda", comment + b"\xff\xda")):
        with pytest.raises(InputError, match="is a JPEG of more than 64 scans, which looks like a bomb"):
            open_image(data, DEFAULT_LIMITS)
    assert open_image(pil(GREY, "JPEG", comment=b"\xff\xda\0\1" * 100), DEFAULT_LIMITS).sizes
    assert open_image(few[:-2] + b"\xff" * 1_000_000 + b"\0" + few[-2:], DEFAULT_LIMITS).sizes  # in no time


def test_jpegs_of_very_many_segments_are_refused():
    data = pil(GREY, "JPEG")
    empty = b"\xff\xfe\0\2"
    assert open_image(data[:2] + 1000 * empty + data[2:], DEFAULT_LIMITS).sizes
    with pytest.raises(InputError, match="is a JPEG of more than 1024 segments, which looks like a bomb"):
        open_image(data[:2] + 1025 * empty + data[2:], DEFAULT_LIMITS)
    with pytest.raises(InputError, match="is a JPEG of very many fill bytes, which looks like a bomb"):
        open_image(data[:2] + b"\xff" * 100_000 + data[2:], DEFAULT_LIMITS)
    with pytest.raises(InputError, match="is a JPEG of more than 2048 segments, which looks like a bomb"):
        open_image(data[:-2] + 3000 * empty + data[-2:], DEFAULT_LIMITS)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_too_few_bytes_for_its_pixels_is_truncated(progressive):
    """Though it has an end; the flattest picture, with codes as short as can be, has enough."""
    flat = pil(np.full((2048, 2048), 90, np.uint8), "JPEG", progressive=progressive, optimize=True)
    assert open_image(flat, DEFAULT_LIMITS).read(0).size == (2048, 2048)
    data = bytearray(pil(GREY, "JPEG", progressive=progressive))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, 8000, 8000)
    with pytest.raises(InputError, match=r"is truncated: .* bytes are too few for 8000×8000 pixels"):
        open_image(bytes(data), DEFAULT_LIMITS).read(0)


def raw_tiff(entries, *parts):
    """A classic TIFF of one page: entries (code, type, count, value), parts of data from byte 8 on."""
    data = b"".join(parts)
    data += bytes(len(data) % 2)
    folder = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries)) + folder + bytes(4)


def page_of(changes=(), size=8):
    """The entries of a page of grey, size × size, its pixels at byte 8."""
    plain = {256: size, 257: size, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: size, 279: size * size}
    return [(code, 4, 1, value) for code, value in (plain | dict(changes)).items()]


def test_tiffs_that_say_far_more_than_they_hold_are_refused():
    pixels = bytes(range(64))
    assert open_image(raw_tiff(page_of(), pixels), DEFAULT_LIMITS).read(0).pixels.tobytes() == pixels
    jpeg = pil(np.full((300, 300), 90, np.uint8), "JPEG")
    for changes, said in (
        ({277: 60_000}, "page 1 has 60000 samples a pixel"),
        ({259: 34712}, "page 1 is compressed as JPEG2000; convert it to LZW or Deflate"),
        ({259: 5, 256: 1, 257: 400_000_000, 278: 1}, "page 1 is cut into 400000000 parts"),
        ({278: 4}, "page 1 lists 1 of its 2 parts"),
        ({259: 7, 279: len(jpeg)}, "holds a JPEG that is larger than its place"),
        ({259: 7, 256: 61, 257: 46, 278: 46, 279: len(many_scans(100)[0])}, "more than 64 scans"),
    ):
        scans = dict(changes).get(256) == 61
        data = raw_tiff(page_of(changes), many_scans(100)[0] if scans else jpeg if 259 in changes else pixels)
        image = open_image(data, DEFAULT_LIMITS)
        with pytest.raises(InputError, match=said):
            image.read(0)


def test_tags_that_share_their_bytes_do_not_grow():
    """A folder of EXIF, and pages, that name the same bytes again and again."""
    pixels, shared = bytes(range(64)), 1000
    entries = [(40_000 + n, 7, shared, 0) for n in range(500)]
    folder = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    data = raw_tiff([*page_of(), (34665, 4, 1, 8 + len(pixels))], pixels, folder)
    assert len(recoloured(data)) < 3 * len(data)
    data = raw_tiff([*page_of(), *((50_000 + n, 7, 64, 8) for n in range(500))], pixels)
    with pytest.raises(InputError, match="has tags that share their bytes and would be larger than the file"):
        recoloured(data)


def test_pages_that_share_their_exif_do_not_grow():
    """Sixty pages, each with the directory that is nearly all of the file."""
    pixels, note = bytes(64), bytes(30_000)
    exif_at, page_at = 8 + 64 + len(note), 8 + 64 + len(note) + 18
    exif = struct.pack("<HHHIII", 1, 0x9286, 7, len(note), 8 + 64, 0)
    entries = sorted([*page_of(), (34665, 4, 1, exif_at)])
    page = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    size = len(page) + 4
    pages = b"".join(page + struct.pack("<I", page_at + n * size if n < 60 else 0) for n in range(1, 61))
    data = struct.pack("<2sHI", b"II", 42, page_at) + pixels + note + exif + pages
    assert len(open_image(data, DEFAULT_LIMITS).sizes) == 60
    with pytest.raises(InputError, match="has tags that share their bytes and would be larger than the file"):
        recoloured(data)


def recoloured(data):
    image = open_image(data, DEFAULT_LIMITS)
    for page in range(len(image.sizes)):
        picture = image.read(page)
        image.write(page, picture, np.zeros((*picture.pixels.shape, 3), np.uint8))
    return image.finish()


def test_a_tiff_whose_pages_go_in_circles_ends():
    data = bytearray(tiff(np.stack([GREY, GREY]), photometric="minisblack"))
    first, second = (page.offset for page in tifffile.TiffFile(io.BytesIO(data)).pages)
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    with contextlib.suppress(InputError):
        assert len(open_image(bytes(data), Limits(image_pages=50)).sizes) <= 50


@pytest.mark.parametrize(
    "head", [b"II*\0\0\0\0\0", b"MM\0*\0\0\0\0", b"II*\0\xff\0\0\0", b"MM\0+\0\x08\0\0" + bytes(8)]
)
def test_a_tiff_without_pages_holds_no_picture(head):
    with pytest.raises(InputError, match="holds no picture"):
        open_image(head + bytes(100), DEFAULT_LIMITS)


def test_pages_may_not_add_up_to_a_bomb():
    with pytest.raises(InputError, match="in its 120 pages"):
        open_image(tiff(np.stack([GREY] * 120), photometric="minisblack"), Limits(image_pixels=GREY.size))


def samples():
    return {
        "jpeg": pil(GREY, "JPEG"),
        "png": pil(GREY, "PNG"),
        "png16": imagecodecs.png_encode(GREY16),
        "webp": pil(GREY, "WEBP", lossless=True),
        "bmp": pil(GREY, "BMP"),
        "tiff": tiff(np.stack([GREY, GREY]), photometric="minisblack", compression="zlib"),
        "tiffjpeg": tiff(GREY, photometric="minisblack", compression="jpeg"),
        "fax": pil(GREY > 127, "TIFF", compression="group4"),
        "dpx": dpx(np.dstack([GREY16 >> 6] * 3), "gbrp10be"),
    }


SAMPLES = samples()


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.9])
def test_truncated_images_are_refused(kind, share):
    data = SAMPLES[kind][: int(len(SAMPLES[kind]) * share)]
    with pytest.raises(InputError), guarded("decoded"):
        colour(data)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_bytes_give_a_picture_or_an_input_error(kind, damage):
    data = bytearray(SAMPLES[kind])
    for place, value in damage:
        data[int(place * min(len(data), 3000))] = value
    with contextlib.suppress(InputError), guarded("decoded"):
        result = colour(bytes(data), limits=Limits(image_pixels=1_000_000))
        assert sniff(result) == sniff(bytes(data))


def test_animations_are_refused_by_name():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for kind in ("PNG", "WEBP"):
        with pytest.raises(UnsupportedError, match="animated"):
            open_image(saved(frames[0], kind, save_all=True, append_images=frames[1:]), DEFAULT_LIMITS)


def test_what_is_no_image_is_refused():
    for data, reason in ((b"", "is empty"), (b"GIF89a" + bytes(50), "is not a JPEG"), (b"BM" + bytes(60), "is not a")):
        with pytest.raises(InputError, match=reason):
            open_image(data, DEFAULT_LIMITS)


def test_output_does_not_depend_on_the_day():
    for kind in ("png", "jpeg", "webp", "tiff", "bmp", "dpx"):
        assert colour(SAMPLES[kind]) == colour(SAMPLES[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert srgb_profile()[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
