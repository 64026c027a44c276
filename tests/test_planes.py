"""Samples of every pixel format, against swscale, hand-packed words and the reference arithmetic."""

import av
import numpy as np
import pytest
from media import luma_rows
from numpy.typing import NDArray

from pipeline.color import rgb_to_ycbcr
from pipeline.errors import InputError
from pipeline.planes import pixel_layout, read_planes, rgb_planes

# Format: the planar one that holds the same samples, to which swscale, the reference, converts without loss.
EXACT = {
    "nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "nv42": "yuv444p",
    "nv20le": "yuv422p10le", "p410le": "yuv444p10le", "p416be": "yuv444p16le",
    "p010le": "yuv420p10le", "p010be": "yuv420p10le", "p012le": "yuv420p12le", "p016le": "yuv420p16le",
    "p210le": "yuv422p10le", "p212le": "yuv422p12le", "p216le": "yuv422p16le",
    "yuyv422": "yuv422p", "uyvy422": "yuv422p", "yvyu422": "yuv422p", "y210le": "yuv422p10le", "y212le": "yuv422p12le",
    "vuya": "yuva444p", "vuyx": "yuv444p", "ayuv": "yuva444p", "uyva": "yuva444p", "vyu444": "yuv444p",
    "xv30le": "yuv444p10le", "v30xle": "yuv444p10le", "xv36le": "yuv444p12le", "xv48le": "yuv444p16le",
    "ayuv64le": "yuva444p16le",
    "yuv420p10be": "yuv420p10le", "yuv422p14be": "yuv422p14le", "yuv444p16be": "yuv444p16le", "gray16be": "gray16le",
    "yuv444p10msble": "yuv444p10le", "yuv444p12msbbe": "yuv444p12le", "ya8": "gray", "ya16le": "gray16le",
    "yuva420p": "yuv420p",
}  # fmt: skip


def noise(pix_fmt: str, width: int = 30, height: int = 18) -> av.VideoFrame:
    """A frame of this format whose samples are random codes of its depth."""
    made = av.VideoFrame(width, height, pix_fmt)
    random = np.random.default_rng(7)
    for component, plane in zip(made.format.components, made.planes, strict=False):
        codes = random.integers(0, 1 << component.bits, plane.buffer_size // (1 if component.bits <= 8 else 2))
        plane.update(codes.astype("u1" if component.bits <= 8 else "<u2").tobytes())
    return made


def planes_of(frame: av.VideoFrame) -> list[NDArray[np.generic]]:
    luma, chroma = read_planes(frame, pixel_layout(frame.format.name), "bt601")
    return [luma, *(chroma or ())]


@pytest.mark.parametrize("name", EXACT)
def test_layouts_hold_the_planar_samples(name: str) -> None:
    planar = noise(EXACT[name])
    depth = planar.format.components[0].bits
    expected = planes_of(planar)
    plane_bytes = planar.width * (1 if depth <= 8 else 2)
    np.testing.assert_array_equal(
        expected[0], np.frombuffer(luma_rows(planar, plane_bytes), "u1" if depth <= 8 else "<u2").reshape(18, 30)
    )
    reformatted = planar.reformat(format=name, src_color_range=1, dst_color_range=1)
    for got, want in zip(planes_of(reformatted), expected, strict=False):
        np.testing.assert_array_equal(got, want)
    assert pixel_layout(name).bit_depth == depth


RGB8 = ["rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "bgr0", "0rgb", "0bgr", "gbrp", "gbrap"]
RGB16 = ["rgb48le", "rgb48be", "bgr48le", "rgba64le", "bgra64be", "gbrp16le", "gbrp16be", "gbrap16le"]


@pytest.mark.parametrize("name", RGB8 + RGB16)
def test_rgb_formats_agree(name: str) -> None:
    base = noise("rgb24" if name in RGB8 else "rgb48le")
    rgb = base.to_ndarray()
    depth = 8 if name in RGB8 else 16
    for got, want in zip(planes_of(base.reformat(format=name)), rgb_planes(rgb, "bt601", depth), strict=True):
        np.testing.assert_array_equal(got, want)


# Bits of a pixel's word from the highest down, as pixfmt.h draws them.
PACKED_BITS = {
    "rgb565": "RRRRRGGGGGGBBBBB",
    "bgr565": "BBBBBGGGGGGRRRRR",
    "rgb555": "xRRRRRGGGGGBBBBB",
    "bgr555": "xBBBBBGGGGGRRRRR",
    "rgb444": "xxxxRRRRGGGGBBBB",
    "bgr444": "xxxxBBBBGGGGRRRR",
    "x2rgb10": "xxRRRRRRRRRRGGGGGGGGGGBBBBBBBBBB",
    "x2bgr10": "xxBBBBBBBBBBGGGGGGGGGGRRRRRRRRRR",
    "rgb8": "RRRGGGBB",
    "bgr8": "BBGGGRRR",
    "rgb4_byte": "xxxxRGGB",
    "bgr4_byte": "xxxxBGGR",
}


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("name", PACKED_BITS)
def test_packed_bits_of_rgb(name: str, order: str) -> None:
    bits = PACKED_BITS[name]
    depth = 10 if len(bits) == 32 else 8
    frame = av.VideoFrame(16, 2, name if len(bits) == 8 else name + order)
    plane = frame.planes[0]
    words = np.random.default_rng(5).integers(0, 1 << len(bits), (2, plane.line_size * 8 // len(bits)))
    plane.update(words.astype(f"{'<' if order == 'le' else '>'}u{len(bits) // 8}").tobytes())
    texts = [[f"{word:0{len(bits)}b}" for word in row[:16]] for row in words]
    picked = [
        [["".join(t for t, c in zip(text, bits, strict=True) if c == k) for k in "RGB"] for text in row]
        for row in texts
    ]
    peak = (1 << depth) - 1
    rgb = [[[round(int(v, 2) / (2 ** len(v) - 1) * peak) for v in pixel] for pixel in row] for row in picked]
    for got, want in zip(planes_of(frame), rgb_planes(np.array(rgb), "bt601", depth), strict=True):
        np.testing.assert_array_equal(got, want)


def test_palette_and_bilevel() -> None:
    frame = av.VideoFrame(3, 1, "pal8")
    frame.planes[0].update(bytes([0, 7, 255]).ljust(frame.planes[0].buffer_size, b"\0"))
    palette = np.zeros(256, np.uint32)
    palette[[0, 7, 255]] = [0xFF000000, 0xFF808080, 0xFFFFFFFF]
    frame.planes[1].update(palette.tobytes())
    luma, cb, cr = planes_of(frame)
    assert (luma.tolist(), cb.tolist(), cr.tolist()) == ([[0, 128, 255]], [[128] * 3], [[128] * 3])
    for name, expected in (("monob", [255, 0, 255]), ("monow", [0, 255, 0])):
        bits = av.VideoFrame(3, 1, name)
        bits.planes[0].update(bytes([0b10100000]).ljust(bits.planes[0].buffer_size, b"\0"))
        assert planes_of(bits)[0].tolist() == [expected]


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020", "smpte240m", "fcc"])
@pytest.mark.parametrize("depth", [8, 10, 16])
def test_rgb_to_luma_follows_the_reference_and_keeps_grey(matrix: str, depth: int) -> None:
    peak = (1 << depth) - 1
    grey = np.arange(peak + 1).reshape(1, -1, 1).repeat(3, axis=2)
    luma, cb, cr = rgb_planes(grey, matrix, depth)
    np.testing.assert_array_equal(luma, grey[..., 0])
    assert (cb == 1 << depth - 1).all()
    assert (cr == 1 << depth - 1).all()
    rgb = np.random.default_rng(3).integers(0, peak + 1, (40, 40, 3))
    for got, want in zip(rgb_planes(rgb, matrix, depth), rgb_to_ycbcr(rgb / peak, matrix, True, depth), strict=True):
        assert np.abs(got - np.clip(want, 0, peak)).max() <= 0.5 + 2e-2


@pytest.mark.parametrize("name", ["grayf32le", "grayf16be", "gbrpf32be", "gbrapf16le", "rgbf32le", "rgbaf16be"])
def test_floating_point_pictures_are_read_at_16_bits(name: str) -> None:
    frame = av.VideoFrame(5, 1, name)
    values = np.array([-1, 0, 0.25, 0.5, 2])
    dtype = ("<" if name.endswith("le") else ">") + ("f4" if "32" in name else "f2")
    samples = np.repeat(values, len(name.split("f", maxsplit=1)[0])) if name.startswith("rgb") else values
    for plane in frame.planes:
        plane.update(samples.astype(dtype).tobytes().ljust(plane.buffer_size, b"\0"))
    assert planes_of(frame)[0].tolist() == [[0, 0, 16384, 32768, 65535]]


def test_32_bits_are_cut_to_16() -> None:
    frame = av.VideoFrame(2, 1, "gray32le")
    frame.planes[0].update(
        np.array([0x12345678, 0xFFFFFFFF], "<u4").tobytes().ljust(frame.planes[0].buffer_size, b"\0")
    )
    assert planes_of(frame)[0].tolist() == [[0x1234, 0xFFFF]]


def test_four_one_one_packed() -> None:
    frame = av.VideoFrame(8, 1, "uyyvyy411")
    samples = [100, 1, 2, 200, 3, 4, 101, 5, 6, 201, 7, 8]  # U Y Y V Y Y, twice
    frame.planes[0].update(bytes(samples).ljust(frame.planes[0].buffer_size, b"\0"))
    luma, cb, cr = planes_of(frame)
    assert (luma.tolist(), cb.tolist(), cr.tolist()) == ([[1, 2, 3, 4, 5, 6, 7, 8]], [[100, 101]], [[200, 201]])


def test_formats_of_graphics_hardware_are_refused() -> None:
    with pytest.raises(InputError, match="pixel format cuda cannot be read"):
        pixel_layout("cuda")


def test_every_format_of_main_memory_is_read_or_refused_beforehand() -> None:
    refused = set()
    for name in av.video.format.names:
        try:
            layout = pixel_layout(name)
        except InputError:
            refused.add(name)
            continue
        luma, _ = read_planes(noise(name), layout, "bt601")
        assert luma.shape == (18, 30), name
    of_memory = {name for name in refused if av.VideoFormat(name).components}
    assert of_memory == {"rgb4", "bgr4", "xv30be", "v30xbe"}
