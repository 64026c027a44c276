import itertools
from fractions import Fraction

import numpy as np
import pytest

from pipeline.frames import FrameBatch, Segment
from pipeline.infer import NETWORK_AREA, network_size, network_sizes


def test_segments_are_half_open() -> None:
    segment = Segment(0, start=10, end=20)
    assert [pts for pts in range(30) if segment.holds(pts)] == list(range(10, 20))
    assert Segment(0, None, 20).holds(-5)
    assert Segment(0, 10, None).holds(10**12)


def test_batches_are_checked() -> None:
    one = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="luma"):
        FrameBatch(np.zeros((4, 4), np.uint8), one, one)
    with pytest.raises(ValueError, match="luma"):
        FrameBatch(np.zeros((1, 4, 4), np.float32), one, one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="equal lengths"):
        FrameBatch(np.zeros((2, 4, 4), np.uint8), one, one)


@pytest.mark.parametrize(
    ("width", "height", "sar"), [(1920, 1080, 1), (720, 576, Fraction(16, 15)), (2, 2, 1), (35, 2000, 1), (9999, 3, 1)]
)
def test_network_size_is_in_multiples_of_32_near_the_area(width: int, height: int, sar: Fraction) -> None:
    h, w = network_size(width, height, Fraction(sar))
    assert h % 32 == w % 32 == 0
    assert 0.75 < h * w / NETWORK_AREA < 1.33
    shown = min(4.0, max(0.25, float(width * sar / height)))
    assert abs(w / h - shown) / shown < 0.3


def test_all_network_sizes_are_known() -> None:
    edges = sorted({((2 * k + 1) / 12) ** sign for k in range(13) for sign in (2, -2)})  # where rounding turns
    between = [(low * high) ** 0.5 for low, high in itertools.pairwise(edges)]
    assert set(network_sizes()) == {network_size(round(aspect * 10**6), 10**6) for aspect in between}
    assert network_sizes()[0] == network_size(1, 1)
