"""Colour held to anchors, against the formulas in NumPy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.anchors import Anchor, Anchors, held
from pipeline.bars import WHOLE, Window
from pipeline.keyframes import Keyframe

SIDE = 96  # of the lightness that is compared; ab has half of it


def scene(seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of lightness, coded as `motion_picture` does."""
    blocks = np.random.default_rng(seed).integers(20, 235, (12, 12), np.uint8)
    return blocks.repeat(SIDE // 12, 0).repeat(SIDE // 12, 1)


def plain(a: float, b: float) -> NDArray[np.float32]:
    return np.stack([np.full((SIDE // 2, SIDE // 2), value, np.float32) for value in (a, b)])


def test_a_still_place_is_drawn_to_the_mean_of_its_anchors_by_their_nearness() -> None:
    picture, now = scene(), 100.0
    seconds, colours = [88.0, 96.0, 104.5], [(10, -5), (30, 5), (-20, 40)]
    anchors = [Anchor(at, picture, plain(*ab)) for at, ab in zip(seconds, colours, strict=True)]
    near = np.cos(np.pi / 2 * np.abs(np.array(seconds) - now) / 16) ** 2
    mean = (near[:, None] * np.array(colours)).sum(0) / near.sum()
    expected = (np.array([50.0, 20.0]) + 9 * min(1, near.sum()) * mean) / (1 + 9 * min(1, near.sum()))
    found = held(plain(50, 20), picture, now, anchors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plain(*expected), atol=1e-4)


def test_few_and_far_anchors_count_for_less() -> None:
    picture = scene()
    by_distance = [held(plain(50, 0), picture, at, [Anchor(0, picture, plain(0, 0))])[0, 0, 0] for at in range(17)]
    assert by_distance == sorted(by_distance)
    assert by_distance[0] == pytest.approx(5)
    assert by_distance[15] > 45
    assert by_distance[16] == 50


def test_where_the_camera_moves_nothing_is_held() -> None:
    ab = plain(50, 20)
    for other in (scene(1), np.roll(scene(), 24, 1)):
        np.testing.assert_array_equal(held(ab, scene(), 0, [Anchor(4, other, plain(-50, 0))]), ab)
    np.testing.assert_array_equal(held(ab, scene(), 0, []), ab)


def test_what_came_into_the_picture_keeps_its_own_colour() -> None:
    before, after = scene(), scene()
    before[24:56, 24:56], after[24:56, 24:56] = 60, 160
    found = held(plain(50, 20), after, 0, [Anchor(0, before, plain(0, 0))])
    assert np.abs(found[0, 14:26, 14:26] - 50).max() < 0.1
    still = np.ones((SIDE // 2, SIDE // 2), bool)
    still[10:30, 10:30] = False
    assert np.abs(found[0][still] - 5).max() < 0.1


def test_a_film_that_flickers_stands_still_all_the_same() -> None:
    picture = scene()
    brighter = (picture + 12).astype(np.uint8)  # 5 L* throughout
    np.testing.assert_allclose(
        held(plain(50, 0), brighter, 0, [Anchor(0, picture, plain(0, 0))]), plain(5, 0), atol=0.1
    )


def test_ab_may_be_finer_than_a_quarter() -> None:
    picture = scene()
    ab = plain(50, 0).repeat(2, 1).repeat(2, 2)
    anchor = Anchor(0, picture, np.zeros_like(ab))
    np.testing.assert_allclose(held(ab, picture, 0, [anchor]), ab / 10, atol=1e-4)


def test_each_anchor_is_made_once_for_each_window_and_given_up_when_out_of_reach() -> None:
    keyframes = [Keyframe(pts, np.zeros((2, 2), np.uint8)) for pts in (0, 4, 8)]
    made: list[tuple[int, Window]] = []

    def make(keyframe: Keyframe, window: Window) -> Anchor:
        made.append((keyframe.pts, window))
        return Anchor(float(keyframe.pts), scene(), plain(0, 0))

    anchors = Anchors(lambda pts: [k for k in keyframes if abs(k.pts - pts) <= 4], make)
    inside = Window(sides=4)
    asked = ((0, WHOLE), (2, WHOLE), (8, WHOLE), (8, inside), (8, WHOLE))
    times = [[a.seconds for a in anchors.at(pts, window)] for pts, window in asked]
    assert times == [[0, 4], [0, 4], [4, 8], [4, 8], [4, 8]]
    assert made == [(0, WHOLE), (4, WHOLE), (8, WHOLE), (4, inside), (8, inside)]


def test_a_moment_whose_only_keyframe_it_is_itself_needs_no_anchor() -> None:
    """As in a film of one picture a minute: each would be coloured twice, and held to what it is anyway."""
    lone = Keyframe(60, np.zeros((2, 2), np.uint8))

    def make(keyframe: Keyframe, _window: Window) -> Anchor:
        return Anchor(float(keyframe.pts), scene(), plain(0, 0))

    anchors = Anchors(lambda _pts: [lone], make)
    assert [len(anchors.at(pts, WHOLE)) for pts in (50, 60, 61)] == [1, 0, 1]
