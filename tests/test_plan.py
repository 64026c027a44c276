"""Plans: what each kind of input becomes, what is refused beforehand, and names that do not meet."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from fractions import Fraction
from pathlib import Path, PurePosixPath

import pytest
from media import write
from PIL import Image

from jobs import plan as planning
from jobs.apart import Apart
from jobs.fingerprints import fingerprint_of
from jobs.inputs import Item, find_inputs
from jobs.plan import Planner, plan_all, settle_names
from jobs.recipe import Recipe
from jobs.reels import AlbumReel, Reel, VideoReel
from pipeline.errors import InputError

SIZE = {"width": 64, "height": 48}


def planner(out: Path, **recipe: object) -> Planner:
    return Planner(Recipe(**recipe), "00", out)  # type: ignore[arg-type]


def item(path: Path, kind: str = "video") -> Item:
    return Item(kind, str(path), PurePosixPath(path.name))  # type: ignore[arg-type]


def images(folder: Path, count: int, suffix: str = ".png") -> Path:
    folder.mkdir(exist_ok=True)
    for n in range(count):
        Image.new("L", (40, 30), n * 5).save(folder / f"{n:04d}{suffix}")
    return folder


def test_a_video(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", frames=60, rate=Fraction(10), gop=5, **SIZE)
    reel = planner(tmp_path / "out", segment_seconds=2.0).plan(item(source))
    assert isinstance(reel, VideoReel)
    assert (reel.name, reel.output) == ("a.mp4", tmp_path / "out/a.mp4")
    assert (reel.frames, reel.pixels) == (60, 60 * 64 * 48)
    assert sum(segment.frames for segment in reel.segments) == 60
    assert len(reel.segments) > 1
    assert reel.span(reel.segments[0]).startswith(f"segment 1 of {len(reel.segments)} (0.00 s to ")
    assert reel.span(reel.segments[-1]).endswith("to 6.00 s)")


def test_the_container_changes_where_it_must(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", frames=5, **SIZE)
    reel = planner(tmp_path, profile="preservation").plan(item(source))
    assert (reel.name, reel.facts()["container"]) == ("a.mkv", "Matroska")
    assert any("mp4" in note for note in reel.warnings)


def test_entries_are_json_and_name_no_place_of_this_run(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=5, **SIZE)
    entries = [planner(tmp_path / out).plan(item(source)).entry() for out in ("one", "two")]
    assert entries[0] == entries[1] == json.loads(json.dumps(entries[0]))
    assert entries[0]["output"] == "a.mkv"


def test_a_reels_id_tells_settings_and_places_apart(tmp_path: Path) -> None:
    one = item(tmp_path / "a.mkv")
    ids = [
        planner(tmp_path).reel_id(one),
        planner(tmp_path, crf=20.0).reel_id(one),
        planner(tmp_path).reel_id(item(tmp_path / "b.mkv")),
        planner(tmp_path).reel_id(Item("video", one.path, PurePosixPath("deep/a.mkv"))),
        Planner(Recipe(), "01", tmp_path).reel_id(one),
    ]
    assert len(set(ids)) == len(ids)
    assert planner(tmp_path / "elsewhere").reel_id(one) == ids[0]


def test_a_scan(tmp_path: Path) -> None:
    folder = images(tmp_path / "frames", 12)
    for argument in (folder, folder / "%04d.png"):
        found = find_inputs((str(argument),), tmp_path / "out", as_scan=True)
        reel = planner(tmp_path / "out", fps=Fraction(18)).plan(found.items[0])
        assert isinstance(reel, VideoReel)
        assert (reel.frames, reel.info.fps) == (12, 18)
        assert reel.name == "frames.mkv"


def test_a_scan_without_a_rate_says_what_is_assumed(tmp_path: Path) -> None:
    folder = images(tmp_path / "frames", 3)
    found = find_inputs((str(folder / "%04d.png"),), tmp_path / "out")
    reel = planner(tmp_path / "out").plan(found.items[0])
    assert isinstance(reel, VideoReel)
    assert reel.info.fps == 24
    assert "rate is taken as 24 frames a second; --fps says otherwise" in reel.warnings[0]


def test_a_folder_of_images_and_a_changed_one(tmp_path: Path) -> None:
    folder = images(tmp_path / "in", 4)
    (found,) = find_inputs((str(folder),), tmp_path / "out").items
    plans = planner(tmp_path / "out")
    reel = plans.plan(found)
    assert isinstance(reel, AlbumReel)
    assert reel.targets() == tuple(tmp_path / "out" / f"{n:04d}.png" for n in range(4))
    assert (reel.frames, reel.unit) == (4, "images")
    Image.new("L", (40, 30), 99).save(folder / "0002.png")
    assert fingerprint_of(found) != reel.fingerprint


def test_what_is_no_album(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(InputError, match=r"a\.zip: holds no image"):
        planner(tmp_path).plan(item(tmp_path / "a.zip", "album"))
    path = tmp_path / "cut.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        archive.add(images(tmp_path / "pictures", 3), "pictures")
    path.write_bytes(path.read_bytes()[:-50])  # it is one block, of which nothing is left
    with pytest.raises(InputError, match=r"cut\.tar\.bz2: .*is truncated"):
        planner(tmp_path / "out").plan(item(path, "album"))


def test_a_name_that_tells_nothing_is_looked_into(tmp_path: Path) -> None:
    photo = images(tmp_path / "in", 1) / "0000.png"
    (tmp_path / "photo").write_bytes(photo.read_bytes())
    video = write(tmp_path / "v.mkv", frames=3, **SIZE)
    video.rename(tmp_path / "reel.1924")
    plans = planner(tmp_path / "out")
    kinds = [
        plans.plan(found)
        for found in find_inputs((str(tmp_path / "photo"), str(tmp_path / "reel.1924")), tmp_path / "out").items
    ]
    assert [type(kind) for kind in kinds] == [AlbumReel, VideoReel]
    assert [kind.name for kind in kinds] == ["photo", "reel.1924.mkv"]


def test_what_cannot_be_planned_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    (tmp_path / "bad.mkv").write_bytes(b"bad")
    good = write(tmp_path / "good.mkv", frames=3, **SIZE)
    heard: list[tuple[str, int, int]] = []
    items = [item(tmp_path / "bad.mkv"), item(good)]
    with Apart() as apart:
        planned, refused = plan_all(planner(tmp_path / "out"), items, apart, lambda *told: heard.append(told))
    assert [reel.input for _, reel in planned] == [str(good)]
    assert [refusal.input for refusal in refused] == [str(tmp_path / "bad.mkv")]
    assert heard == [(str(tmp_path / "bad.mkv"), 1, 2), (str(good), 2, 2)]


def test_many_are_planned_by_several_processes_to_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(write(tmp_path / f"{n}.mkv", frames=3 + n, **SIZE)) for n in range(6)]
    (tmp_path / "3.mkv").write_bytes(b"bad")
    monkeypatch.setattr(planning, "processors", lambda: 3)
    plans = planner(tmp_path / "out")
    with Apart() as apart:
        one = plan_all(plans, items, apart, lambda *_: None)
        monkeypatch.setattr(planning, "_FILES_A_READER", 2)
        assert (plans.readers(6), plans.readers(2), plans.readers(1)) == (3, 1, 1)
        several = plan_all(plans, items, apart, lambda *_: None)
    assert several[0] == one[0]
    assert [refusal.input for refusal in several[1]] == [str(tmp_path / "3.mkv")]
    assert planner(tmp_path / "out", hwaccel="auto").readers(1000) == 1


def settled(plans: Planner, *items: Item, taken: dict[Path, str] | None = None) -> tuple[list[str], list[str]]:
    planned: list[tuple[Item, Reel]] = [(one, plans.plan(one)) for one in items]
    reels, refused = settle_names(planned, taken or {}, [one.path for one in items])
    return [reel.name for reel in reels], [refusal.error for refusal in refused]


def test_the_one_whose_extension_changed_gives_way(tmp_path: Path) -> None:
    avi = write(tmp_path / "a.avi", codec="mpeg4", frames=3, **SIZE)
    mkv = write(tmp_path / "a.mkv", frames=3, **SIZE)
    plans = planner(tmp_path / "out", profile="preservation")
    assert settled(plans, item(avi), item(mkv))[0] == ["a.avi.mkv", "a.mkv"]
    assert settled(plans, item(mkv), item(avi))[0] == ["a.mkv", "a.avi.mkv"]
    assert settled(plans, item(avi))[0] == ["a.mkv"]
    assert settled(plans, item(avi), taken={tmp_path / "out/a.mkv": "a.mkv"})[0] == ["a.avi.mkv"]


def test_two_of_one_name_are_not_both_written(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = (write(tmp_path / n / "a.mkv", frames=3, **SIZE) for n in "12")
    names, errors = settled(planner(tmp_path / "out"), item(one), item(two))
    assert names == ["a.mkv"]
    assert f"is also that of {one}" in errors[0]


def test_no_source_is_anyones_output(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=3, **SIZE)
    (tmp_path / "out").mkdir()
    linked = tmp_path / "out/a.mkv"
    linked.symlink_to(source)
    assert "would replace a source" in settled(planner(tmp_path), item(source))[1][0]
    assert "would replace a source" in settled(planner(tmp_path / "out"), item(source))[1][0]


def test_the_script_that_measures_planning_still_plans() -> None:
    script = Path(__file__).parents[1] / "scripts/bench_plan"
    command = [sys.executable, str(script), "--images", "12", "--kinds", "zip"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.startswith("zip: 12, as 1 reels and 1 tasks")
