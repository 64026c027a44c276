"""Sources in, pictures kept in one file, crops out: on the CPU, and as a device makes them."""

from __future__ import annotations

import csv
import hashlib
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pictures import colour_video, encoded, scene, tar, toned

from model.crops import DevicePhotos, crops, random_boxes, random_crops
from model.data import Photos, in_memory, open_photos, reduced
from model.screen import Screening
from model.sources import SourceConfig
from model.split import split
from pipeline.errors import InputError

RNG = np.random.default_rng(0)
PHOTOS = Path(__file__).parents[2] / "shared" / "photos"


def archive(path: Path, pictures: dict[str, np.ndarray]) -> SourceConfig:
    members = {name: encoded(picture) for name, picture in pictures.items()}
    return SourceConfig(str(tar(path, members | {"readme.txt": b"-"})))


def test_photographs_come_back_reduced_in_rgb_and_from_the_cache(tmp_path: Path) -> None:
    small, large = scene(0, 64, 90), scene(1, 200, 100)
    source = archive(tmp_path / "a.tar", {"x/small.png": small, "large.png": large})
    for _ in range(2):  # decoded, then from the cache
        photos = open_photos([source], tmp_path / "cache", short_edge=70)
        assert photos.names == ("x/small.png", "large.png")
        assert photos.groups == ("small.png", "large.png")
        assert photos.folders == ("x", "")
        np.testing.assert_array_equal(photos[0], small)
        np.testing.assert_array_equal(photos[1], cv2.resize(large, (70, 140), interpolation=cv2.INTER_AREA))
        assert isinstance(photos.pixels, np.memmap)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_all_that_pictures_depend_on_makes_another_cache(tmp_path: Path) -> None:
    source, cache = archive(tmp_path / "a.tar", {f"{n}.png": scene(n) for n in range(4)}), tmp_path / "cache"

    def files() -> int:
        return len(list(cache.iterdir()))

    open_photos([source], cache)
    open_photos([SourceConfig(source.path, weight=3, name="other", licence="CC0")], cache)
    assert files() == 2
    open_photos([source], cache, short_edge=80)
    assert files() == 4
    open_photos([source], cache, screening=Screening(dark=20))
    assert files() == 6
    open_photos([SourceConfig(source.path, split="folder")], cache)
    assert files() == 8
    archive(tmp_path / "a.tar", {f"{n}.png": scene(n + 1) for n in range(4)})
    np.testing.assert_array_equal(open_photos([source], cache)[0], scene(1))
    assert files() == 10


def test_what_is_no_use_is_left_out_and_counted(tmp_path: Path) -> None:
    good = {f"{n}.png": scene(n) for n in range(5)}
    bad = {
        "grey.png": toned(scene(6), (0, 0, 0), (255, 255, 255)),
        "sepia.png": toned(scene(7), (20, 12, 5), (255, 238, 205)),
        "night.png": scene(8) // 12,
        "icon.png": scene(9, 20, 20),
        "again.png": cv2.resize(scene(3), (240, 180), interpolation=cv2.INTER_CUBIC),
    }
    members = {name: encoded(picture) for name, picture in (good | bad).items()}
    path = tar(tmp_path / "a.tar", members | {"broken.png": members["0.png"][:200], "empty.jpg": b"", "a.txt": b"-"})
    photos = open_photos([SourceConfig(str(path))], tmp_path / "cache")
    assert photos.names == tuple(good)
    assert photos.report.sources[0].dropped == {
        "dark": 1, "grey": 1, "near-duplicate": 1, "tinted": 1, "tiny": 1, "unreadable": 2,
    }  # fmt: skip
    assert len(open_photos([SourceConfig(str(path))], tmp_path / "cache", screening=None)) == 10


def test_bars_are_cut_before_the_picture_is_reduced(tmp_path: Path) -> None:
    inside = np.maximum(scene(2, 200, 400), 40)
    source = archive(tmp_path / "a.tar", {"film.png": np.pad(inside, ((50, 50), (0, 0), (0, 0))), "b.png": scene(3)})
    photos = open_photos([source], tmp_path / "cache", short_edge=100)
    np.testing.assert_array_equal(photos[0], cv2.resize(inside, (200, 100), interpolation=cv2.INTER_AREA))


def test_a_video_gives_each_shot_once_and_stays_on_one_side(tmp_path: Path) -> None:
    for clip in range(2):
        shots = [scene(20 + 10 * clip + n, 96, 128) for n in range(5) for _ in range(20)]
        colour_video(tmp_path / f"clip{clip}.mp4", shots)
    photos = open_photos([SourceConfig(str(tmp_path / "*.mp4"))], tmp_path / "cache")
    assert photos.groups == ("clip0.mp4",) * 5 + ("clip1.mp4",) * 5
    assert photos.report.total.dropped == {"near-duplicate": 10}  # each shot gave two
    train, held = photos.split()
    assert len({photos.groups[i] for i in train}) == len({photos.groups[i] for i in held}) == 1


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({}, r"a\.tar: no pictures"),
        ({"a.png": toned(scene(1), (0, 0, 0), (255, 255, 255))}, r"none of its 1 .*1 grey.*colour"),
        ({"a.png": scene(1), "b.png": scene(1) // 12}, r"one picture is too few \(1 dark left out\); at least 2"),
    ],
)
def test_too_little_is_an_error_that_says_why(tmp_path: Path, pictures: dict[str, np.ndarray], message: str) -> None:
    source = archive(tmp_path / "a.tar", pictures)
    with pytest.raises(InputError, match=message) as raised:
        open_photos([source], tmp_path / "cache")
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_weights_say_how_often_a_source_is_drawn(tmp_path: Path) -> None:
    sources = [archive(tmp_path / f"{k}.tar", {f"{k}{n}.png": scene(10 * k + n) for n in range(3 + k)}) for k in (1, 2)]
    sources[1] = SourceConfig(sources[1].path, weight=4.0)
    photos = open_photos(sources, tmp_path / "cache")
    assert photos.origins.tolist() == [0] * 4 + [1] * 5
    chances = photos.sampling_probabilities(np.array([0, 3, 4, 8]))
    np.testing.assert_allclose(chances, [0.1, 0.1, 0.4, 0.4])


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/photos")
def test_the_photographs_keep_their_held_out_twentieth() -> None:
    with (PHOTOS / "MANIFEST.csv").open(newline="") as f:
        names = [row["file"] for row in csv.DictReader(f)]
    held = {names[i] for i in split(names, np.zeros(len(names), np.int64))[1]}
    assert held == {n for n in names if int(hashlib.sha256(n.encode()).hexdigest()[:16], 16) % 20 == 0}
    assert len(held) > 1000


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/photos")
def test_most_photographs_are_kept(tmp_path: Path) -> None:
    with tarfile.open(PHOTOS / "photos-00.tar") as shard:
        members = [member for member, _ in zip(shard, range(100), strict=False) if member.name.endswith(".webp")]
        data = {member.name: f.read() for member in members if (f := shard.extractfile(member))}
    photos = open_photos([SourceConfig(str(tar(tmp_path / "a.tar", data)))], tmp_path / "cache")
    assert len(photos) > 0.9 * len(data)
    assert photos.groups == photos.names
    assert set(photos.names) <= set(data)


def test_crops_are_parts_of_their_own_photograph() -> None:
    ramp = np.linspace(0, 255, 120).astype(np.uint8)
    pictures = [
        np.dstack([np.tile(ramp, (90, 1)), np.full((90, 120), k, np.uint8), np.zeros((90, 120), np.uint8)])
        for k in (10, 90)
    ]
    found = random_crops(in_memory(pictures), np.array([1, 0] * 20), 32, np.random.default_rng(3)).numpy()
    assert found.shape == (40, 32, 32, 3)
    assert (found[::2, ..., 1] == 90).all()
    assert (found[1::2, ..., 1] == 10).all()
    slope = np.diff(found[..., 0].astype(float), axis=2).mean((1, 2))
    assert 0.25 < (slope < 0).mean() < 0.75  # mirrored about half of the time
    shown = np.abs(slope) * 32 / (255 / 120)  # columns of the photograph within a crop
    assert shown.min() > 40
    assert shown.max() < 96


def test_boxes_reach_every_edge_and_stay_inside() -> None:
    sizes = np.array([[50, 90], [90, 50]]).repeat(4000, axis=0)
    boxes = random_boxes(sizes, np.random.default_rng(0))
    assert boxes.side.min() == 25
    assert boxes.side.max() == 50
    for first, room in ((boxes.y, sizes[:, 0]), (boxes.x, sizes[:, 1])):
        assert first.min() == 0
        assert (first + boxes.side <= room).all()
        assert (first + boxes.side == room).any()


def test_crops_repeat_with_their_seed() -> None:
    photos = in_memory([RNG.integers(0, 256, (50, 60, 3), np.uint8)])
    first, again, other = (random_crops(photos, np.zeros(4, int), 32, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("size", [16, 40, 41, 64, 96])
def test_a_device_makes_the_same_crops_but_for_rounding(size: int, device: str) -> None:
    photos = in_memory([RNG.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((80, 97), (64, 64), (131, 82))])
    indices = RNG.integers(0, 3, 30)
    on_device = DevicePhotos(photos, torch.device(device)).crops(indices, size, np.random.default_rng(5))
    expected = random_crops(photos, indices, size, np.random.default_rng(5))
    assert on_device.dtype == torch.uint8
    apart = (on_device.cpu().int() - expected.int()).abs()
    assert apart.max() <= 2
    assert apart.float().mean() < 0.15


def test_a_crop_at_its_own_size_is_the_photograph_itself() -> None:
    picture = scene(1, 60, 60)
    photos = in_memory([picture])
    boxes = random_boxes(np.array([[60, 60]]), np.random.default_rng(0))
    y, x, side = int(boxes.y[0]), int(boxes.x[0]), int(boxes.side[0])
    shown = picture[y : y + side, x : x + side]
    np.testing.assert_array_equal(
        crops(photos, np.array([0]), boxes, side)[0], shown[:, ::-1] if boxes.flip[0] else shown
    )


def test_a_smaller_picture_is_not_enlarged() -> None:
    assert reduced(scene(1, 60, 90), 80).shape == (60, 90, 3)
    assert reduced(scene(1, 90, 61), 60).shape == (89, 60, 3)


def test_photos_of_pictures_at_hand() -> None:
    photos = in_memory([scene(1), scene(2, 70, 80)], groups=["a", "b"])
    assert isinstance(photos, Photos)
    assert photos.names == ("0.png", "1.png")
    np.testing.assert_array_equal(photos[1], scene(2, 70, 80))
