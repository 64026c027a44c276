"""Huge folders in runs: where they are cut, what a new picture changes, and that the whole comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes import colouring, run, statuses
from PIL import Image

from jobs import runs as cutting
from jobs.console import Console
from jobs.fingerprints import fingerprint_of
from jobs.inputs import find_inputs
from jobs.plan import Planner, settle_names
from jobs.preview import preview
from jobs.recipe import Recipe
from jobs.reels import AlbumReel
from jobs.request import Request, sources_of
from jobs.runs import LEAST, MOST, runs

NAMES = [f"{n // 1000:03d}/photo{n:06d}.jpg" for n in range(60_000)]


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of 4 to 16 pictures."""
    for name, value in {"LEAST": 4, "MOST": 16, "_ONE_IN": 6}.items():
        monkeypatch.setattr(cutting, name, value)


def photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        Image.new("L", (40 + n % 3, 30), 60 + n).save(folder / f"{n:03d}.png")
    return folder


def test_runs_hold_every_name_in_order_and_are_of_bounded_length() -> None:
    cut = list(runs(NAMES))
    assert [name for names in cut for name in names] == NAMES
    assert all(LEAST <= len(names) <= MOST for names in cut[:-1])
    assert list(runs(NAMES[:MOST])) == [tuple(NAMES[:MOST])]
    assert list(runs(NAMES)) == cut


def test_a_picture_more_changes_the_runs_beside_it_only() -> None:
    before, after = set(runs(NAMES)), set(runs(sorted([*NAMES, "031/photo031000a.jpg"])))
    assert len(before - after) <= 2
    assert len(before) > 10


def test_a_huge_folder_comes_back_whole_and_is_resumed_by_runs(
    tmp_path: Path, small_runs: None, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = photos(tmp_path / "in", 40), tmp_path / "out"
    items = find_inputs((str(source),), out).items
    assert len(items) > 2
    report = run(source, out=out)
    (result,) = report.results
    assert (result.input, result.status, result.frames) == (str(source), "done", 40)
    assert sorted(p.name for p in out.glob("*.png")) == [f"{n:03d}.png" for n in range(40)]
    first = {p.name: p.read_bytes() for p in out.glob("*.png")}
    monkeypatch.setattr(cutting, "MOST", 100)
    assert statuses(run(source, out=tmp_path / "one")) == ["done"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "one").glob("*.png")} == first
    monkeypatch.setattr(cutting, "MOST", 16)
    os.utime(source / items[1].files[0])
    written = {p.name: p.stat().st_ctime_ns for p in out.glob("*.png")}
    assert statuses(run(source, out=out)) == ["done"]
    again = {name for name, when in written.items() if (out / name).stat().st_ctime_ns != when}
    assert again == set(items[1].files)
    assert statuses(run(source, out=out)) == ["skipped"]
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == first


def test_a_huge_folder_is_one_line(
    tmp_path: Path, small_runs: None, no_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = photos(tmp_path / "in", 40), tmp_path / "out"
    (source / "007.png").write_bytes(b"no picture")
    (source / "033.png").write_bytes(b"nor this")
    request = Request((str(source),), out)
    words = preview(request, Console(), colouring()).in_words()
    assert words.count(str(source)) == 1
    assert "40 images in" in words
    assert "1 to do, 40 frames" in words
    (result,) = run(source, out=out).results
    assert (result.status, result.frames) == ("failed", 38)
    assert "007.png" in str(result.error)
    assert "033.png" in str(result.error)
    assert capsys.readouterr().err.count("failed: ") == 1


def test_a_picture_that_is_gone_from_the_output_is_made_again(tmp_path: Path, small_runs: None, no_ray: None) -> None:
    source, out = photos(tmp_path / "in", 20), tmp_path / "out"
    gone, changed, *_ = find_inputs((str(source),), out).items[1].files
    assert statuses(run(source, out=out)) == ["done"]
    first = {p.name: p.read_bytes() for p in out.glob("*.png")}
    (out / gone).unlink()
    assert statuses(run(source, out=out)) == ["done"]
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == first
    (out / gone).unlink()
    (out / changed).write_bytes(b"someone else's")
    (result,) = run(source, out=out).results
    assert "--overwrite replaces it" in str(result.error)
    assert (out / changed).read_bytes() == b"someone else's"
    assert not (out / gone).exists()


def test_planned_runs_do_not_hold_their_members(tmp_path: Path, small_runs: None) -> None:
    source = photos(tmp_path / "in", 30)
    (source / "link.png").symlink_to(source / "000.png")
    found = find_inputs((str(source),), tmp_path / "out")
    planner = Planner(Recipe(), "00", tmp_path / "out")
    reels = [planner.plan(item) for item in found.items]
    assert sum(reel.frames for reel in reels) == 31
    for reel in reels:
        assert isinstance(reel, AlbumReel)
        assert reel.album.members == ()
        assert [member.name for member in reel.listed().members] == list(reel.item.files)
        part = reel.part(reel.segments[-1])
        assert [m.ordinal for m in part.listed().members] == list(range(len(reel.item.files)))
    assert settle_names(list(zip(found.items, reels, strict=True)), {}, sources_of(found.items))[0] == reels


def test_a_parts_members_keep_their_ordinals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import album

    source = photos(tmp_path / "in", 10)
    (item,) = find_inputs((str(source),), tmp_path / "out").items
    reel = Planner(Recipe(), "00", tmp_path / "out").plan(item)
    assert isinstance(reel, AlbumReel)
    pieces = album.cut_album(reel.listed(), target_members=4)
    assert [[m.ordinal for m in reel.part(piece).listed().members] for piece in pieces] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_a_folder_is_told_by_its_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes, names and times; no picture is opened."""
    source = photos(tmp_path / "in", 5)
    (item,) = find_inputs((str(source),), tmp_path / "out").items
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", None)
        patch.setattr("io.open", None)
        before = fingerprint_of(item)
        assert fingerprint_of(item) == before
    assert before["bytes"] == sum(p.stat().st_size for p in source.iterdir())
    os.utime(source / "002.png", ns=(1, 1))
    touched = fingerprint_of(item)
    (source / "002.png").write_bytes(b"longer than it was" * 99)
    os.utime(source / "002.png", ns=(1, 1))
    rewritten = fingerprint_of(item)
    (source / "002.png").chmod(0)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read anything
    assert len({str(before), str(touched), str(rewritten), str(fingerprint_of(item))}) == 4
