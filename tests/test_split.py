"""The split: a twentieth by hash of the name, groups never torn, every source represented."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from model.split import HELD_OUT, held_out, split

# pinned, since published figures hold for this split: sha256 of the name, first 8 bytes, divisible by 20
FIRST_HELD_OUT = ["source_00015.webp", "source_00034.webp", "source_00041.webp"]


def groups_of(indices: np.ndarray, groups: list[str]) -> set[str]:
    return {groups[i] for i in indices}


def test_a_twentieth_is_held_out_by_name() -> None:
    names = [f"source_{i:05d}.webp" for i in range(20000)]
    assert sum(map(held_out, names)) / len(names) == pytest.approx(1 / HELD_OUT, abs=0.005)
    assert [n for n in names[:60] if held_out(n)] == FIRST_HELD_OUT
    train, held = split(names, np.zeros(len(names), np.int64))
    assert sorted([*train, *held]) == list(range(len(names)))
    assert [names[i] for i in held] == [n for n in names if held_out(n)]


@pytest.mark.parametrize("seed", range(8))
def test_no_group_is_torn_and_no_picture_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = [f"dive{seed}_{n}" for n in rng.integers(0, 9, 200)]
    origins = rng.integers(0, 3, 200)
    train, held = split(groups, origins)
    assert sorted([*train, *held]) == list(range(200))
    assert not groups_of(train, groups) & groups_of(held, groups)
    for source in range(3):
        assert (origins[train] == source).any()
        assert (origins[held] == source).any()


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (4, 1), (30, 6), (75, 15), (100, 20), (300, 20)])
def test_a_small_source_has_more_held_out(count: int, expected: int) -> None:
    groups = [f"u{i:03d}.webp" for i in range(count)]
    held = groups_of(split(groups, np.zeros(count, np.int64))[1], groups)
    by_name = {group for group in groups if held_out(group)}
    assert by_name <= held
    assert len(held) == max(expected, len(by_name))
    added = held - by_name
    left = set(groups) - held
    digests = {group: hashlib.sha256(group.encode()).hexdigest()[:16] for group in groups}
    assert not added or max(digests[g] for g in added) < min(digests[g] for g in left)


def test_a_small_source_beside_a_large_one_leaves_its_split_alone() -> None:
    large, small = [f"a{i}.png" for i in range(3000)], [f"b{i}.png" for i in range(50)]
    origins = np.repeat([0, 1], [3000, 50])
    held = groups_of(split(large + small, origins)[1], large + small)
    assert held & set(large) == {group for group in large if held_out(group)}
    assert len(held & set(small)) == max(10, sum(map(held_out, small)))


def test_single_videos_count_as_one_source() -> None:
    names = [f"clip{n}.mp4" for n in range(7) if not held_out(f"clip{n}.mp4")]
    groups = [name for name in names for _ in range(10)]
    train, held = split(groups, np.repeat(np.arange(len(names)), 10))
    assert len(groups_of(held, groups)) == 1
    assert len(held) == 10
    assert len(train) == 10 * (len(names) - 1)


def test_a_video_all_alone_keeps_its_end_out_with_a_gap() -> None:
    train, held = split(["dive.mp4"] * 200, np.zeros(200, np.int64))
    assert held.tolist() == list(range(180, 200))
    assert train.tolist() == list(range(170))


def test_a_video_beside_photographs_keeps_its_end_out_too() -> None:
    groups = [f"{i}.png" for i in range(100)] + ["dive.mp4"] * 40
    train, held = split(groups, np.repeat([0, 1], [100, 40]))
    assert set(range(136, 140)) <= set(held.tolist())
    assert not set(range(134, 136)) & {*train.tolist(), *held.tolist()}
    assert set(range(100, 134)) <= set(train.tolist())


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["source_00015.webp", "source_00034.webp"]])
def test_two_pictures_are_one_and_one_even_where_the_hash_picks_both(names: list[str]) -> None:
    train, held = split(names, np.zeros(2, np.int64))
    assert len(train) == len(held) == 1


def test_the_split_does_not_depend_on_order() -> None:
    groups = [f"folder{n}" for n in np.random.default_rng(1).integers(0, 30, 300)]
    there, back = (groups_of(split(g, np.zeros(300, np.int64))[1], g) for g in (groups, groups[::-1]))
    assert there == back
