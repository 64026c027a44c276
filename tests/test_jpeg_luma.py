"""Luma chosen after chroma is coded: what decoders make of it, and that it is the same file on every machine."""

import hashlib
import io
import os
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.jpeg_luma import _BY_COLUMNS, _BY_ROWS, _DCT, _decoded, _transformed, encode
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


def test_transforms_add_up_without_rounding():
    """So that the order, which is BLAS's choice, does not matter; against integers of any length."""
    coefficients = RNG.integers(-1023, 1024, (50, 64)).astype(np.int16)
    exact = coefficients.astype(object) @ _BY_COLUMNS.astype(int).astype(object)
    columns = (exact + 1024) // 2048
    rows = (columns @ _BY_ROWS.astype(int).astype(object) + (1 << 17)) // (1 << 18)
    np.testing.assert_array_equal(_decoded(coefficients), np.clip(rows + 128, 0, 255).astype(int))
    samples = RNG.integers(-128 * 16, 128 * 16, (50, 64))
    sums = samples.astype(object) @ (_DCT.T * (1 << 20)).astype(int).astype(object)
    unit = 16 << 20
    np.testing.assert_array_equal((samples / 16) @ _DCT.T, (sums / unit).astype(float))
    np.testing.assert_array_equal(_transformed(samples / 16), np.rint((sums / unit).astype(float)))


def test_luma_stays_within_the_bits_of_a_baseline_file():
    beyond = np.where(RNG.random((50, 64)) < 0.5, -140.0, 140.0)
    assert np.abs(_transformed(np.concatenate([beyond, np.full((1, 64), -140.0)]))).max() == 1023


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
