"""JPEG's transforms: against SciPy's, and that they add up without rounding. test_jpeg_scan has libjpeg's decoder."""

import numpy as np
from scipy.fft import dctn

from pipeline.jpeg_transform import _DCT, _ROWS, STEPS, decoded, quantised, restored, stepped

RNG = np.random.default_rng(4)


def kron(matrix, unit):
    """Along columns and then along rows, as one matrix of integers of any length."""
    whole = np.rint(matrix * unit).astype(int).astype(object)
    return np.kron(whole, whole)


def test_coefficients_are_those_of_the_standard():
    samples = stepped(RNG.uniform(-128, 127, (64, 50)))
    exact = dctn(samples.reshape(8, 8, 50), axes=(0, 1), norm="ortho").reshape(64, 50)
    assert np.abs(quantised(samples) - exact).max() < 0.52
    steps = RNG.integers(1, 60, (64, 1)).astype(np.int16)
    assert np.abs(quantised(samples, steps) - exact / steps).max() < 0.52
    np.testing.assert_allclose(restored(np.rint(exact)), samples, atol=4)


def test_transforms_add_up_without_rounding():
    """So that the order, which is BLAS's choice, does not matter; against integers of any length."""
    coefficients = RNG.integers(-1023, 1024, (64, 50)).astype(np.int16)
    rows = _ROWS.astype(int).astype(object)
    columns = (np.kron(rows, np.eye(8, dtype=int)) @ coefficients.astype(object) + 1024) // 2048
    shown = (np.kron(np.eye(8, dtype=int), rows) @ columns + (1 << 17)) // (1 << 18)
    np.testing.assert_array_equal(decoded(coefficients), np.clip(shown + 128, 0, 255).astype(int))
    steps = RNG.integers(-2048 * STEPS, 2048 * STEPS, (64, 50))
    sums = kron(_DCT, 1 << 16) @ steps.astype(object)
    np.testing.assert_array_equal(_DCT * (1 << 16), np.rint(_DCT * (1 << 16)))
    exact = np.rint((sums / (STEPS << 32)).astype(float))
    np.testing.assert_array_equal(quantised(steps / STEPS), np.clip(exact, -1023, 1023))
    sums = kron(_DCT.T, 1 << 16) @ coefficients.astype(object)
    np.testing.assert_array_equal(restored(coefficients), (sums / (1 << 32)).astype(float))


def test_luma_stays_within_the_bits_of_a_baseline_file():
    beyond = np.where(RNG.random((64, 50)) < 0.5, -140.0, 140.0)
    assert np.abs(quantised(np.concatenate([beyond, np.full((64, 1), -140.0)], axis=1))).max() == 1023
