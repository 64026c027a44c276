import numpy as np
import pytest

from pipeline.fields import split_fields, weave
from pipeline.frames import FrameBatch


def frames(n: int, height: int, width: int = 3) -> FrameBatch:
    luma = np.arange(n * height * width, dtype=np.uint16).reshape(n, height, width)
    pts = np.arange(n, dtype=np.int64) * 10
    return FrameBatch(luma, pts, np.full(n, 10, np.int64), chroma=(luma[:, :, :1], luma[:, :, 1:2]), warmup=1)


def test_fields_are_every_other_row() -> None:
    batch = frames(2, 4)
    top, bottom = split_fields(batch)
    np.testing.assert_array_equal(top.luma, batch.luma[:, [0, 2]])
    np.testing.assert_array_equal(bottom.luma, batch.luma[:, [1, 3]])
    assert top.pts.tolist() == bottom.pts.tolist() == [0, 10]
    assert top.warmup == 1


@pytest.mark.parametrize("height", [1, 2, 5, 480, 486])
def test_weave_undoes_split(height: int) -> None:
    batch = frames(3, height)
    top, bottom = split_fields(batch)
    assert batch.chroma is not None
    assert top.chroma is not None
    assert bottom.chroma is not None
    for k in range(3):
        np.testing.assert_array_equal(weave(top.luma[k], bottom.luma[k], height), batch.luma[k])
        np.testing.assert_array_equal(weave(top.chroma[1][k], bottom.chroma[1][k], height), batch.chroma[1][k])
