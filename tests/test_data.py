"""Photographs in, Lab batches out, and the split that keeps the evaluation honest."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from model.data import Photos, age, film_lightness, held_out, lab, linear_light, open_photos, random_crops
from pipeline.color import rgb_to_lab
from pipeline.errors import InputError

RNG = np.random.default_rng(0)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def photos_of(pictures: list[np.ndarray]) -> Photos:
    sizes = np.array([p.shape[:2] for p in pictures])
    ends = np.cumsum(sizes.prod(1) * 3)
    pixels = np.concatenate([p.ravel() for p in pictures])
    return Photos(pixels, tuple(f"{i}.png" for i in range(len(pictures))), sizes, np.concatenate([[0], ends[:-1]]))


def test_lab_agrees_with_pipeline_and_scikit_image() -> None:
    rgb = RNG.integers(0, 256, (2, 16, 16, 3), np.uint8)
    rgb[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    lightness, ab = lab(linear_light(torch.from_numpy(rgb)))
    found = torch.cat([lightness, ab], 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, rgb_to_lab(rgb / 255), atol=1e-3)
    np.testing.assert_allclose(found, rgb2lab(rgb), atol=1e-3)


def test_photographs_come_back_from_the_shards_reduced_and_in_rgb(tmp_path: Path) -> None:
    small, large = RNG.integers(0, 256, (20, 30, 3), np.uint8), np.full((200, 100, 3), (200, 40, 10), np.uint8)
    path = shard(tmp_path / "a.tar", {"x/small.png": png(small), "notes.txt": b"-", "large.png": png(large)})
    for _ in range(2):  # decoded, then from the cache
        photos = open_photos([path], tmp_path / "cache", short_edge=40)
        assert photos.names == ("small.png", "large.png")
        np.testing.assert_array_equal(photos[0], small)
        assert photos[1].shape == (80, 40, 3)
        assert (photos[1] == (200, 40, 10)).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"bad.webp": b"not a picture"}, "bad.webp"),
        ({"empty.png": b""}, "empty.png"),
        ({"a.txt": b"-"}, "no photographs"),
    ],
)
def test_a_shard_with_nothing_to_decode_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = shard(tmp_path / "a.tar", members)
    with pytest.raises(InputError, match=message):
        open_photos([path], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"a.png": png(RNG.integers(0, 256, (64, 64, 3), np.uint8))})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"a\.tar"):
        open_photos([path], tmp_path / "cache")


# pinned, since published figures hold for this split: sha256 of the name, first 8 bytes, divisible by 20
HELD_OUT = ["source_00015.webp", "source_00034.webp", "source_00041.webp"]


def test_a_twentieth_is_held_out_whatever_the_folder() -> None:
    names = [f"source_{i:05d}.webp" for i in range(20000)]
    assert sum(map(held_out, names)) / len(names) == pytest.approx(1 / 20, abs=0.005)
    assert [n for n in names[:60] if held_out(n)] == HELD_OUT
    photos = photos_of([np.zeros((2, 2, 3), np.uint8)] * 200)
    train, test = photos.split()
    assert sorted([*train, *test]) == list(range(200))
    assert {photos.names[i] for i in test} == {n for n in photos.names if held_out(n)}


def test_crops_are_parts_of_their_own_photograph() -> None:
    ramp = np.linspace(0, 255, 120).astype(np.uint8)
    pictures = [
        np.dstack([np.tile(ramp, (90, 1)), np.full((90, 120), k, np.uint8), np.zeros((90, 120), np.uint8)])
        for k in (10, 90)
    ]
    crops = random_crops(photos_of(pictures), np.array([1, 0] * 20), 32, np.random.default_rng(3)).numpy()
    assert crops.shape == (40, 32, 32, 3)
    assert (crops[::2, ..., 1] == 90).all()
    assert (crops[1::2, ..., 1] == 10).all()
    slope = np.diff(crops[..., 0].astype(float), axis=2).mean((1, 2))
    assert 0.25 < (slope < 0).mean() < 0.75  # mirrored about half of the time
    shown = np.abs(slope) * 32 / (255 / 120)  # columns of the photograph within a crop
    assert shown.min() > 40
    assert shown.max() < 96


def test_crops_repeat_with_their_seed() -> None:
    photos = photos_of([RNG.integers(0, 256, (50, 60, 3), np.uint8)])
    first, again, other = (random_crops(photos, np.zeros(4, int), 32, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


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


def test_ageing_changes_half_of_the_pictures_and_stays_in_range() -> None:
    lightness = torch.rand(200, 1, 16, 16) * 100
    found = age(lightness, torch.Generator().manual_seed(0))
    assert found.min() >= 0
    assert found.max() <= 100
    same = (found == lightness).all(3).all(2).all(1).float().mean().item()
    assert 0.35 < same < 0.65
