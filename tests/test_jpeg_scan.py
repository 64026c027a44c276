"""JPEG from coefficients, read back by libjpeg; its inverse transform is held against what libjpeg makes of them."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from pipeline.jpeg_scan import ZIGZAG, Huffman, Symbols, best_tables, container
from pipeline.jpeg_transform import decoded

ONES = np.ones(64, np.uint8)
RNG = np.random.default_rng(3)


def written(planes, size, interval=None, table=ONES):
    """A file of blocks (3, N, 64), coded with the best tables for them, in intervals of so many blocks."""
    blocks = planes.swapaxes(0, 1)
    interval = interval or len(blocks)
    parts = [Symbols.of(blocks[at : at + interval]) for at in range(0, len(blocks), interval)]
    tables = best_tables(sum(part.counts() for part in parts))
    return container(size, (table, table), tables, interval, [part.coded(tables) for part in parts])


def aslibjpegs(data):
    """(H, W, 3) Y'CbCr that libjpeg shows."""
    image = Image.open(io.BytesIO(data))
    image.draft("YCbCr", image.size)
    pixels = np.asarray(image)
    assert image.mode == "YCbCr"
    return pixels


def libjpegs(coefficients):
    """Samples (N, 64) of coefficients (N, 64) in zigzag order, by our model of libjpeg."""
    return decoded(coefficients.T[np.argsort(ZIGZAG)]).T


def in_rows(samples, across):
    """(N, 64) to (H, W)."""
    return samples.reshape(-1, across, 8, 8).swapaxes(1, 2).reshape(-1, across * 8)


def sparse(blocks, density, largest):
    """Coefficients (3, blocks, 64) with runs of zeros of every length."""
    some = RNG.random((3, blocks, 64)) < RNG.choice(density, (3, blocks, 1))
    return np.where(some, RNG.integers(-largest, largest + 1, (3, blocks, 64)), 0).astype(np.int16)


@pytest.mark.parametrize("largest", [1, 6, 90])
@pytest.mark.parametrize("interval", [48, 4, 1])
def test_libjpeg_reads_the_coefficients_that_were_written(largest, interval):
    planes = sparse(48, [0, 0.02, 0.1, 1], largest)
    pixels = aslibjpegs(written(planes, (64, 48), interval))
    for component in range(3):
        np.testing.assert_array_equal(pixels[..., component], in_rows(libjpegs(planes[component]), 8))


def test_the_zigzag_is_that_of_the_standard():
    assert ZIGZAG.reshape(8, 8).tolist()[0] == [0, 1, 8, 16, 9, 2, 3, 10]
    assert ZIGZAG[-4:].tolist() == [47, 55, 62, 63]  # T.81 figure A.6: 47 is row 5, column 7
    assert sorted(ZIGZAG) == list(range(64))


def test_extremes_are_read_back():
    planes = np.zeros((3, 4, 64), np.int16)
    planes[:, 0, 0], planes[:, 1, 0] = -1024, 1016
    planes[:, 2, [1, 63]] = 1023, -1023
    planes[:, 3, 63] = 1
    pixels = aslibjpegs(written(planes, (32, 8)))
    np.testing.assert_array_equal(pixels[..., 1], in_rows(libjpegs(planes[1]), 4))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 8)])
def test_sizes_that_are_not_whole_blocks(size):
    blocks = -(-size[0] // 8) * -(-size[1] // 8)
    planes = sparse(blocks, [0.2], 60)
    assert aslibjpegs(written(planes, size)).shape == (size[1], size[0], 3)


def test_quantisation_tables_are_in_their_order():
    samples = RNG.integers(90, 160, (64, 8, 8))
    table = np.arange(3, 67).astype(np.uint8)
    transformed = dctn(samples - 128.0, axes=(1, 2), norm="ortho").reshape(64, 64)[:, ZIGZAG]
    planes = np.stack([np.rint(transformed / table)] * 3).astype(np.int16)
    shown = aslibjpegs(written(planes, (64, 64), table=table))[..., 0]
    assert np.abs(shown.astype(int) - in_rows(samples.reshape(64, 64), 8)).mean() < 10
    np.testing.assert_array_equal(shown, in_rows(libjpegs(planes[0] * table.astype(np.int16)), 8))


@pytest.mark.parametrize("counts", [[7], [5, 0, 5], [2**k for k in range(60)], [1] * 256])
def test_codes_are_prefix_free_short_enough_and_never_all_ones(counts):
    huffman = Huffman(tuple(counts + [0] * (256 - len(counts))))
    codes, lengths = huffman.codes
    there = [symbol for symbol, count in enumerate(counts) if count]
    assert (lengths > 0).sum() == len(there)
    assert lengths.max() <= 16
    words = sorted(f"{codes[s]:0{lengths[s]}b}" for s in there)
    assert not any(b.startswith(a) for a, b in pairwise(words))
    assert all("0" in word for word in words)


def test_codes_are_as_short_as_entropy_allows():
    counts = RNG.integers(1, 1000, 100)
    _, lengths = Huffman((*counts.tolist(), *[0] * 156)).codes
    share = counts / counts.sum()
    assert (share * lengths[:100]).sum() < -(share * np.log2(share)).sum() + 0.1
