"""Luma chosen after chroma is coded: what decoders make of it, and that it is the same file on every machine."""

import hashlib
import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
from PIL import Image

from pipeline import jpeg_lightness, jpeg_luma
from pipeline.color import RGB_TO_XYZ, colour_at_lightness, lightness_table, linear_to_srgb, srgb_to_linear
from pipeline.jpeg_luma import encode
from pipeline.pictures import Picture
from pipeline.rendering import Canvas

RNG = np.random.default_rng(8)


def loaded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def coloured(grey):
    """A grey picture, and the same in colours as strong as pictures have them."""
    canvas = Canvas(Picture(grey, 8))
    h, w = (side // 4 for side in canvas.network_input().shape[1:])
    y, x = np.mgrid[:h, :w]
    return canvas.colour((30 * np.stack([np.sin(x / 7), np.cos(y / 5)])).astype(np.float32))[0]


def scene(height=160, width=200):
    """Slopes and edges with grain, from black to white."""
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 140 * np.sin(x / 31) * np.cos(y / 23) + 40 * (x > y)
    return np.clip(smooth + RNG.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_stay_what_they_are(level):
    """Bars round a picture, and line art, are not off by the code that is allowed."""
    grey = scene()
    grey[:40] = level
    shown = loaded(encode(coloured(grey), grey))
    assert np.unique(shown[:40]).tolist() == [level]
    bilevel = np.kron(RNG.integers(0, 2, (20, 25)), np.ones((8, 8))).astype(np.uint8) * 255
    shown = loaded(encode(coloured(bilevel), bilevel))
    np.testing.assert_array_equal(shown, np.repeat(bilevel[..., None], 3, axis=-1))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (65_500, 1), (1, 65_500), (9, 8), (160, 200)])
def test_a_decoder_of_another_family_shows_the_same(size):
    """FFmpeg's has nothing of libjpeg: in each of Y', Cb and Cr it is within a code, and has nothing to complain of."""
    grey = RNG.integers(0, 256, size).astype(np.uint8) if min(size) < 10 else scene(*size)
    data = encode(coloured(grey), grey)
    image = Image.open(io.BytesIO(data))
    image.draft("YCbCr", image.size)
    ours = np.asarray(image)
    with av.open(io.BytesIO(data), format="mjpeg") as container:
        (frame,) = container.decode(video=0)
    assert (frame.format.name, frame.is_corrupt) == ("yuvj444p", False)
    for i, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        assert np.abs(rows.astype(int) - ours[..., i]).max() <= 1


def colours_beside_black_and_white(side=96):
    """Black and white pixels among those of two saturated colours, which coarse chroma carries over to them."""
    grey = RNG.choice([0, 255, 90, 110, 130, 150], (side, side), p=[0.1, 0.1, 0.2, 0.2, 0.2, 0.2]).astype(np.uint8)
    lightness = lightness_table(8, full_range=True)[grey]
    ab = np.where((np.arange(side) // 8 % 2)[:, None, None], [80, 60], [20, -90]) * np.ones((1, side, 1))
    return grey, np.rint(colour_at_lightness(lightness, ab) * 255).astype(np.uint8)


def shaded(side):
    """A grey slope and the same in one colour."""
    grey = np.linspace(60, 190, side * side).reshape(side, side).astype(np.uint8)
    ab = np.full((side, side, 2), (10.0, 20.0))
    return grey, np.rint(colour_at_lightness(lightness_table(8, full_range=True)[grey], ab) * 255).astype(np.uint8)


def quantisation(data):
    """Of chroma's finest detail."""
    return Image.open(io.BytesIO(data)).quantization[1][63]


def codes_off(data, source):
    """By how many codes the grey of equal luminance is off, at most."""
    light = srgb_to_linear(loaded(data) / 255) @ RGB_TO_XYZ[1]
    return np.abs(linear_to_srgb(light) * 255 - source).max()


def test_lightness_holds_where_black_and_white_cut_through_strong_colours():
    grey, rgb = colours_beside_black_and_white()
    data = encode(rgb, grey)
    assert codes_off(data, grey) < 1.001
    assert np.ptp(loaded(data), axis=-1).mean() > 0.5 * np.ptp(rgb, axis=-1).mean() > 30


def test_colour_is_given_up_in_few_blocks_before_all_chroma_is_coded_finer():
    (grey, rgb), (small, vivid) = (shaded(400), colours_beside_black_and_white(16))
    assert quantisation(encode(rgb, grey)) > 1
    grey[40:56, 80:96], rgb[40:56, 80:96] = small, vivid
    data = encode(rgb, grey)
    assert codes_off(data, grey) < 1.001
    assert quantisation(data) > 1
    assert quantisation(encode(vivid, small)) == 1


def test_colour_is_kept_where_luma_can_be_tried_again_or_chroma_be_a_little_off(monkeypatch):
    grey = scene(600, 800)
    monkeypatch.setattr(jpeg_luma, "_LOST", 1)
    _, _, lost = jpeg_luma._symbols(coloured(grey), grey, jpeg_luma.CHROMA_TABLES[0])
    assert lost < 0.02


def test_a_neutral_rgb_source_is_as_a_grey_one():
    grey = scene()
    rgb = coloured(grey)
    assert encode(rgb, np.repeat(grey[..., None], 3, axis=-1)) == encode(rgb, grey)


def test_bands_make_the_same_file_as_the_whole(monkeypatch):
    """How much is coded at a time is a matter of memory alone."""
    grey = scene(300, 200)
    rgb = coloured(grey)
    monkeypatch.setattr(jpeg_luma, "_INTERVAL", 50)
    found = set()
    for band, cached, tried in ((1 << 20, 1 << 20, 1 << 20), (1, 7, 2), (100, 64, 1)):
        monkeypatch.setattr(jpeg_luma, "_BAND", band)
        monkeypatch.setattr(jpeg_luma, "_CACHED", cached)
        monkeypatch.setattr(jpeg_luma, "_TRIED", tried)
        found.add(encode(rgb, grey))
    assert len(found) == 1


def test_pictures_coded_at_once_are_as_one_by_one():
    """What is found of luma codes is kept for all of them."""
    pictures = [(coloured(grey), grey) for grey in (scene() for _ in range(4))]
    alone = [encode(*picture) for picture in pictures]
    jpeg_lightness._keys.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda picture: encode(*picture), pictures)) == alone


_WRITE = "import sys, numpy as np; from pipeline.jpeg_luma import encode; a = np.load(sys.argv[1]); \
sys.stdout.buffer.write(encode(a['rgb'], a['grey']))"


def test_the_file_does_not_depend_on_threads_or_instructions_of_the_processor(tmp_path):
    grey = scene(400, 600)
    np.savez(tmp_path / "picture.npz", grey=grey, rgb=coloured(grey))
    found = set()
    for settings in ({"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}, {"OPENBLAS_CORETYPE": "Nehalem"}):
        command = [sys.executable, "-c", _WRITE, str(tmp_path / "picture.npz")]
        written = subprocess.run(command, env=os.environ | settings, check=True, capture_output=True).stdout
        assert Image.open(io.BytesIO(written)).size == (600, 400)
        found.add(hashlib.sha256(written).hexdigest())
    assert len(found) == 1
