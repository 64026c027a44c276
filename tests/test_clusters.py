"""Damage in the middle of Matroska files is found cluster by cluster, while their packets are listed."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import SIZE, run
from hypothesis import given
from hypothesis import strategies as st
from media import Video, write, write_with_company

from pipeline import packet_index as indexing
from pipeline.clusters import ClusterWatch, cluster_watch
from pipeline.errors import ReelcolorError
from pipeline.frames import Source
from pipeline.matroska import Element, element_at
from pipeline.packet_index import packet_index
from pipeline.probe import probe

Damage = Callable[[bytearray, Element], object]
CLUSTER = 0x1F43B675


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 20 s with sound and words, in a cluster a second."""
    path = tmp_path_factory.mktemp("whole") / "whole.mkv"
    return write_with_company(path, Video(frames=200, **SIZE | {"gop": 10}), seconds=20)


def clusters(data: bytes) -> list[Element]:
    """From the file's two outermost elements on."""
    found, at = [], element_at(data, element_at(data, 0).end).start
    while at < len(data):
        found.append(element_at(data, at))
        at = found[-1].end
    return [element for element in found if element.kind == CLUSTER]


def warned(path: Path) -> tuple[int, float] | None:
    """How many clusters planning says are damaged, and about when the first."""
    said = [w for w in packet_index(Source(str(path))).warnings if "clusters" in w]
    found = re.fullmatch(
        r"(\d+) of its \d+ clusters .* are damaged, by their CRC, the first about ([\d.]+) s", "".join(said)
    )
    return (int(found[1]), float(found[2])) if found else None


def test_a_whole_file_is_listed_as_ever(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(clusters(whole.read_bytes())) == 20
    found = indexing._read_index(Source(str(whole)))
    assert found.warnings == ()
    monkeypatch.setattr(indexing, "cluster_watch", lambda _: None)
    assert found.equals(indexing._read_index(Source(str(whole))))


def flip(data: bytearray, cluster: Element) -> None:
    data[(cluster.start + cluster.end) // 2] ^= 4


def flip_last(data: bytearray, cluster: Element) -> None:
    data[cluster.end - 1] ^= 128


def zero(data: bytearray, cluster: Element) -> None:
    data[cluster.start + 60 : cluster.end] = bytes(cluster.end - cluster.start - 60)


def no_header(data: bytearray, cluster: Element) -> None:
    data[cluster.at : cluster.start] = bytes(cluster.start - cluster.at)


def other_size(data: bytearray, cluster: Element) -> None:
    data[cluster.start - 1] ^= 64


def huge(data: bytearray, cluster: Element) -> None:
    data[cluster.start - 5] ^= 64


def void_behind(data: bytearray, cluster: Element) -> None:
    """A smaller size, and what seems to be an element behind that, of most of the file."""
    data[cluster.start - 2] -= 1
    data[cluster.end - 256 : cluster.end - 250] = bytes.fromhex("ec1007ffffff")


def likeness(data: bytearray, cluster: Element) -> None:
    """No header, and its ID where no cluster is."""
    no_header(data, cluster)
    data[cluster.start + 50 : cluster.start + 54] = CLUSTER.to_bytes(4)


def cut(data: bytearray, cluster: Element) -> None:
    del data[cluster.start + 20 : cluster.start + 40]


@pytest.mark.parametrize("damage", [flip, flip_last, zero, no_header, other_size, huge, void_behind, likeness, cut])
def test_each_damaged_cluster_counts_once(whole: Path, tmp_path: Path, damage: Damage) -> None:
    data = bytearray(whole.read_bytes())
    found = clusters(data)
    for n in (15, 9, 4):  # from the end, as cutting moves what follows
        damage(data, found[n])
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    said = warned(path)
    assert said is not None
    assert said[0] == 3
    assert 3 <= said[1] <= 6, "in the fifth second"


def test_any_flipped_bit_is_found(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    found = clusters(data)
    random = np.random.default_rng(1)
    for _ in range(30):
        hurt, bits = bytearray(data), random.integers(8 * found[1].at, 8 * found[-1].end, 3)
        for bit in bits:
            hurt[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.mkv").write_bytes(hurt)
        (said,) = [w for w in indexing._read_index(Source(str(tmp_path / "a.mkv"))).warnings if "clusters" in w]
        assert said.startswith(f"{sum(any(c.at <= b // 8 < c.end for b in bits) for c in found)} of its ")


def test_nothing_is_claimed_of_files_without_crc(tmp_path: Path) -> None:
    for name, mux in (("a.mkv", {"write_crc32": "0"}), ("live.mkv", {"live": "1"}), ("a.mp4", {})):
        path = write(tmp_path / name, frames=60, gop=10, mux=mux)
        data = bytearray(path.read_bytes())
        if name != "live.mkv":
            assert cluster_watch(Source(str(path))) is None
            data[len(data) // 2] ^= 4
        path.write_bytes(data)
        assert not [w for w in packet_index(Source(str(path))).warnings if "clusters" in w]


def test_what_is_cut_off_or_put_behind_is_no_damage_and_two_files_are_watched(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    hurt = bytearray(data)
    flip(hurt, clusters(data)[12])
    for content, said in (
        (data[: len(data) // 2], []),
        (data + bytes(100_000), []),
        (data + data, []),
        (data + hurt, ["1 of its 40 clusters"]),
    ):
        (tmp_path / "a.mkv").write_bytes(content)
        warnings = packet_index(Source(str(tmp_path / "a.mkv"))).warnings
        assert [" ".join(w.split()[:5]) for w in warnings if "clusters" in w] == said


@pytest.mark.usefixtures("no_ray")
def test_colorize_says_so(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    flip(data, clusters(data)[7])
    (tmp_path / "a.mkv").write_bytes(data)
    (result,) = run(tmp_path / "a.mkv", out=tmp_path / "out", segment_seconds=60).results
    assert result.status == "done"
    assert any(w.startswith("1 of its 20 clusters") for w in result.warnings)


@pytest.mark.parametrize("seed", range(8))
def test_however_damaged_planning_ends(whole: Path, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = bytearray(whole.read_bytes())
    for at in random.integers(0, len(data), 12):
        size = int(random.integers(1, 400))
        data[at : at + size] = random.bytes(size if seed % 2 else size // 2)
    (tmp_path / "a.mkv").write_bytes(data)
    with contextlib.suppress(ReelcolorError):
        probe(Source(str(tmp_path / "a.mkv")))


def watched(data: bytes, steps: list[tuple[int, int]]) -> tuple[int, int]:
    """(clusters, damaged) as met by reading so much and then passing over so much, over and over."""
    watch = ClusterWatch().over(io.BytesIO(data))
    watch.begun = True
    for size, passed in itertools.cycle(steps):
        watch.read(size)
        if watch.tell() == len(data):
            break
        watch.seek(max(0, min(watch.tell() + passed, len(data) - 1)))
    return watch.clusters, watch.damaged


STEPS = st.lists(st.tuples(st.integers(1000, 9000), st.integers(-900, 9000)), min_size=1, max_size=5)


@given(STEPS, st.lists(st.integers(0, 10**9), max_size=4), st.binary())
def test_it_matters_not_how_much_is_read_at_a_time_or_passed_over(
    whole: Path, steps: list[tuple[int, int]], places: list[int], junk: bytes
) -> None:
    data = bytearray(whole.read_bytes()[:60_000])
    for place in places:
        at = place % len(data)
        data[at : at + len(junk)] = junk
    assert watched(bytes(data), steps) == watched(bytes(data), [(len(data), 0)])
