"""The lightness that film and video saw, and ColorUNet's five views of each."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from pictures import scene

from model.augment import FIVE_FOLD, NOISE, film_lightness, five_fold_crops
from model.data import in_memory
from model.spaces import grey_lightness, lab, linear_light, yuv

WIDE, TALL = scene(1, 64, 96), scene(2, 96, 64)


def views(kind: str, count: int = 200, seed: int = 0, size: int = 64) -> np.ndarray:
    """Of a wide and a tall picture in turn."""
    indices = np.arange(count) % 2
    kinds = np.full(count, FIVE_FOLD.index(kind))
    return five_fold_crops(in_memory([WIDE, TALL]), indices, kinds, size, np.random.default_rng(seed)).numpy()


def test_film_sees_grey_as_grey_and_colour_in_its_own_way() -> None:
    grey = torch.full((64, 8, 8, 3), 128, dtype=torch.uint8)
    red = torch.zeros_like(grey)
    red[..., 0] = 255
    for rgb, spread in ((grey, 1e-3), (red, 40)):
        linear = linear_light(rgb)
        found = film_lightness(linear, rgb, torch.Generator().manual_seed(0))
        true = lab(linear)[0]
        assert (found - true).abs().max() <= spread
        assert ((found - true).abs().amax((1, 2, 3)) < 1e-3).float().mean() >= (1 if spread < 1 else 0.25)
    assert (found - true).abs().max() > 5


def test_two_in_five_are_desaturated_video() -> None:
    rgb = torch.from_numpy(scene(3, 16, 16)).expand(400, -1, -1, -1)
    found = film_lightness(linear_light(rgb), rgb, torch.Generator().manual_seed(0))
    video = grey_lightness(yuv(rgb)[0])
    share = ((found - video).abs().amax((1, 2, 3)) < 1e-3).float().mean().item()
    assert 0.3 < share < 0.5


def test_the_five_views_are_those_of_the_paper() -> None:
    assert FIVE_FOLD == ("central", "random", "random", "flipped", "noisy")


def test_the_central_view_is_the_middle_square() -> None:
    found = views("central", 2)
    np.testing.assert_array_equal(found[0], WIDE[:, 16:80])
    np.testing.assert_array_equal(found[1], TALL[16:80])
    smaller = views("central", 1, size=32)
    np.testing.assert_array_equal(smaller[0], cv2.resize(WIDE[:, 16:80], (32, 32), interpolation=cv2.INTER_AREA))


def test_random_views_lie_anywhere_along_the_long_edge_and_only_there() -> None:
    along = [WIDE[:, x : x + 64] for x in range(33)], [TALL[y : y + 64] for y in range(33)]
    places = []
    for n, view in enumerate(views("random")):
        (place,) = [at for at, square in enumerate(along[n % 2]) if (square == view).all()]
        places.append(place)
    assert min(places) == 0
    assert max(places) == 32


def test_flipped_views_are_mirrored() -> None:
    mirrored = [WIDE[:, x : x + 64][:, ::-1] for x in range(33)]
    for view in views("flipped")[::2]:
        assert sum((square == view).all() for square in mirrored) == 1


def test_noisy_views_have_the_noise_that_is_stated_and_others_none() -> None:
    noise = views("noisy", seed=4).astype(float) - views("random", seed=4)
    assert abs(noise.mean()) < 0.2
    assert abs(noise.std() - 255 * NOISE) < 0.4
    assert (np.abs(noise) < 4 * 255 * NOISE).mean() > 0.99


def test_views_repeat_with_their_seed() -> None:
    for kind in ("random", "noisy"):
        assert (views(kind, 20, seed=1) == views(kind, 20, seed=1)).all()
        assert (views(kind, 20, seed=1) != views(kind, 20, seed=2)).any()


def test_views_of_a_batch_may_differ() -> None:
    indices, kinds = np.zeros(5, np.int64), np.arange(5)
    found = five_fold_crops(in_memory([WIDE, TALL]), indices, kinds, 64, np.random.default_rng(0)).numpy()
    np.testing.assert_array_equal(found[0], WIDE[:, 16:80])
    assert all((found[i] != found[j]).any() for i in range(5) for j in range(i))
