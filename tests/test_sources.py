"""Folders, archives and colour video as sources of pictures."""

from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from media import write
from pictures import colour_video, encoded, scene, tar
from PIL import Image

from model.footage import frames_by_shot
from model.sources import Found, SourceConfig, decoded, file_identity, pictures_of, source_files
from pipeline.errors import InputError, ReelcolorError

ONE, TWO, THREE = (encoded(scene(n)) for n in range(3))


def found(config: SourceConfig) -> list[Found | InputError]:
    return [item for file in source_files(config) for item in pictures_of(file, config)]


def names(config: SourceConfig) -> list[str]:
    return [item.name for item in found(config) if isinstance(item, Found)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of pictures, archives and a video, at several depths, and of files that are none of these."""
    root = tmp_path / "tree"
    for folder in ("reef", "wreck/bow"):
        (root / folder).mkdir(parents=True)
    (root / "top.png").write_bytes(ONE)
    (root / "reef" / "fish.PNG").write_bytes(TWO)
    (root / "wreck" / "bow" / "mast.png").write_bytes(THREE)
    (root / "notes.txt").write_text("-")
    tar(root / "wreck" / "more.tar.gz", {"a/x.png": ONE, "readme.md": b"-"}, "w:gz")
    with zipfile.ZipFile(root / "more.zip", "w") as z:
        z.writestr("b/y.png", TWO)
    colour_video(root / "wreck" / "dive.mkv", [scene(5, 96, 128)] * 4)
    return root


def test_a_folder_gives_all_that_is_below_it(tree: Path) -> None:
    config = SourceConfig(str(tree))
    assert names(config) == [
        "reef/fish.PNG", "top.png", "wreck/bow/mast.png", "b/y.png", "dive.mkv@0.30s", "a/x.png",
    ]  # fmt: skip
    items = {item.name: item for item in found(config) if isinstance(item, Found)}
    np.testing.assert_array_equal(items["a/x.png"].load(), scene(0))
    np.testing.assert_array_equal(items["reef/fish.PNG"].load(), scene(1))
    folders = [items[name].folder for name in ("top.png", "reef/fish.PNG", "wreck/bow/mast.png", "a/x.png", "b/y.png")]
    assert folders == ["", "reef", "bow", "a", "b"]
    assert [item.name for item in items.values() if item.video] == ["dive.mkv@0.30s"]


def test_pictures_split_by_name_or_by_folder_and_videos_as_a_whole(tree: Path) -> None:
    by_picture, by_folder = (
        {item.name: item.group for item in found(SourceConfig(str(tree), split=split)) if isinstance(item, Found)}
        for split in ("picture", "folder")
    )
    assert by_picture["wreck/bow/mast.png"] == "mast.png"
    assert by_picture["a/x.png"] == "x.png"
    assert by_picture["dive.mkv@0.30s"] == "wreck/dive.mkv"
    assert by_folder["wreck/bow/mast.png"] == "wreck/bow"
    assert by_folder["a/x.png"] == "wreck/more.tar.gz/a"
    assert by_folder["dive.mkv@0.30s"] == "wreck"


def test_globs_and_single_files(tree: Path) -> None:
    assert names(SourceConfig(str(tree / "**" / "*.png"))) == ["top.png", "mast.png"]
    assert names(SourceConfig(str(tree / "*.zip"))) == ["b/y.png"]
    assert names(SourceConfig(str(tree / "top.png"))) == ["top.png"]
    group = next(iter(found(SourceConfig(str(tree / "wreck" / "dive.mkv")))))
    assert isinstance(group, Found)
    assert group.group == "dive.mkv"


@pytest.mark.parametrize("name", ["nothing", "*.tif", "none/*.png"])
def test_nothing_there_is_named(tree: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        source_files(SourceConfig(str(tree / name)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.zip", b"PK but no more", "not a zip or tar"),
        ("notes.txt", b"hello\n" * 50, "notes.txt"),
        ("empty.mp4", b"", "empty"),
    ],
)
def test_a_file_that_is_nothing_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReelcolorError, match=message):
        found(SourceConfig(str(tmp_path / name)))


def test_a_broken_video_among_others_is_left_out_and_told(tree: Path) -> None:
    (tree / "broken.mp4").write_bytes(b"no video " * 100)
    errors = [item for item in found(SourceConfig(str(tree))) if isinstance(item, InputError)]
    assert len(errors) == 1
    assert "broken.mp4" in str(errors[0])


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"a.png": ONE, "b.png": TWO})
    path.write_bytes(path.read_bytes()[: len(ONE) + 2000])
    with pytest.raises(InputError, match=r"a\.tar: .*truncated.*leave it out"):
        found(SourceConfig(str(path)))


def test_hostile_members_are_left_out_and_told(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"../out.png": ONE, "/etc/x.png": TWO, "fine.png": THREE})
    items = found(SourceConfig(str(path)))
    assert [item.name for item in items if isinstance(item, Found)] == ["fine.png"]
    assert sum("outside" in str(item) or "absolute" in str(item) for item in items) == 2


def test_a_source_checks_its_settings() -> None:
    with pytest.raises(ValueError, match="weight"):
        SourceConfig("x", weight=0)
    with pytest.raises(ValueError, match="split"):
        SourceConfig("x", split="video")  # type: ignore[arg-type]
    assert SourceConfig("/data/dives/").title == "dives"
    assert SourceConfig("x", name="Dives").title == "Dives"


def test_a_file_that_changes_has_another_identity(tree: Path) -> None:
    config = SourceConfig(str(tree))

    def identities() -> list[object]:
        return [file_identity(file) for file in source_files(config)]

    before = identities()
    assert identities() == before
    (tree / "reef" / "fish.PNG").write_bytes(THREE)
    changed = identities()
    assert [a == b for a, b in zip(before, changed, strict=True)] == [False, True, True, True]
    with zipfile.ZipFile(tree / "more.zip", "a") as z:
        z.writestr("z.png", ONE)
    assert [a == b for a, b in zip(changed, identities(), strict=True)] == [True, False, True, True]


def test_images_come_upright_in_srgb_whatever_their_kind(tmp_path: Path) -> None:
    picture = scene(1)
    np.testing.assert_array_equal(decoded(imagecodecs.png_encode(picture.astype(np.uint16) * 257)), picture)
    grey = decoded(encoded(picture[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(picture[..., :1], 3, axis=2))
    exif = Image.Exif()
    exif[274] = 6  # the picture is to be turned clockwise
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decoded((tmp_path / "turned.png").read_bytes()), np.rot90(picture, -1))
    with pytest.raises(InputError, match="JPEG"):
        decoded(b"no picture")


def test_every_shot_gives_pictures_at_its_times(tmp_path: Path) -> None:
    shots = [scene(10, 96, 128)] * 25 + [scene(11, 96, 128)] * 12 + [scene(12, 96, 128)] * 3 + [scene(13, 96, 128)] * 10
    path = colour_video(tmp_path / "a.mp4", shots)
    drawn = list(frames_by_shot(str(path)))
    # half a second into a shot, then every second; the shot of three frames gives its last
    assert [round(seconds, 2) for seconds, _ in drawn] == [0.5, 1.5, 3.0, 3.9, 4.5]
    for (_, rgb), n in zip(drawn, (10, 10, 11, 12, 13), strict=True):
        assert np.abs(rgb.astype(int) - scene(n, 96, 128)).mean() < 2.5
    assert [round(seconds, 2) for seconds, _ in frames_by_shot(str(path), every=5.0)] == [2.4, 3.6, 3.9, 4.9]


def test_frames_have_square_pixels_and_stand_upright(tmp_path: Path) -> None:
    wide = colour_video(tmp_path / "wide.mp4", [scene(1, 96, 120)] * 2, sar=Fraction(16, 15))
    assert next(frames_by_shot(str(wide)))[1].shape == (96, 128, 3)
    large = colour_video(tmp_path / "large.mp4", [scene(1, 600, 900)] * 2)
    rgb = next(frames_by_shot(str(large)))[1]
    assert rgb.shape == (512, 768, 3)
    shrunk = cv2.resize(scene(1, 600, 900), (768, 512), interpolation=cv2.INTER_AREA)
    assert np.abs(rgb.astype(int) - shrunk).mean() < 2.5
    turned = write(tmp_path / "turned.mp4", width=64, height=48, frames=2, rotation=90)
    assert next(frames_by_shot(str(turned)))[1].shape == (64, 48, 3)


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pq.mkv", frames=2, tags={"color_trc": 16})
    with pytest.raises(InputError, match="PQ"):
        list(frames_by_shot(str(path)))


def test_grey_video_gives_grey_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.mkv", codec="ffv1", pix_fmt="gray", frames=2)
    ((_, rgb),) = frames_by_shot(str(path))
    assert (np.ptp(rgb.astype(int), axis=2) == 0).all()
    assert np.ptp(rgb) > 50
