"""What INPUT arguments stand for: folders, globs, archives, scans, and everything odd that a file system holds."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from jobs.inputs import Found, find_inputs
from jobs.kinds import kind_of


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def found(*arguments: Path | str, outdir: Path | None = None, as_scan: bool = False) -> Found:
    return find_inputs(tuple(map(str, arguments)), outdir or Path("/nonexistent"), as_scan)


def names(result: Found) -> list[tuple[str, str]]:
    return [(item.kind, str(item.name)) for item in result.items]


def test_a_folder_is_mirrored(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "in", "a.mkv", "deep/er/b.avi", "deep/scans.zip", "c.MP4", "notes.txt", ".hidden.mkv", ".d/e.mkv"
    )
    result = found(root)
    assert names(result) == [
        ("video", "a.mkv"),
        ("video", "c.MP4"),
        ("album", "deep/scans.zip"),
        ("video", "deep/er/b.avi"),
    ]
    assert [path for path, _ in result.skipped] == [str(root / "notes.txt")]
    assert not result.refused


def test_images_of_a_folder_are_one_album(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "1.jpg", "2.PNG", "film.mkv", "more/3.tif", "more/4.dpx")
    album, video = found(root).items
    assert (album.kind, album.path, str(album.name)) == ("album", str(root), ".")
    assert album.files == ("1.jpg", "2.PNG", "more/3.tif", "more/4.dpx")
    assert str(video.name) == "film.mkv"


def test_one_image_is_an_album_of_its_own(tmp_path: Path) -> None:
    root = tree(tmp_path, "in/photo.jpg")
    (item,) = found(root / "in/photo.jpg").items
    assert (item.kind, item.path, str(item.name), item.files) == ("album", str(root / "in/photo.jpg"), "photo.jpg", ())


def test_images_given_one_by_one_share_an_album(tmp_path: Path) -> None:
    root = tree(tmp_path, "b.jpg", "a.jpg", "x/c.jpg")
    first, second = found(root / "b.jpg", root / "a.jpg", root / "x/c.jpg").items
    assert first.files == ("b.jpg", "a.jpg")
    assert (second.path, second.files) == (str(root / "x/c.jpg"), ())


def test_fps_makes_each_folder_of_images_a_scan(tmp_path: Path) -> None:
    root = tree(tmp_path / "film", "r1/0001.dpx", "r1/0002.dpx", "r2/1.jp2")
    assert names(found(root, as_scan=True)) == [("scan", "r1.dpx"), ("scan", "r2.jp2")]
    (item,) = found(root / "r1", as_scan=True).items
    assert (item.kind, item.path, item.name.stem) == ("scan", str(root / "r1"), "r1")
    assert found(root / "r1/0001.dpx", as_scan=True).refused[0][1].startswith("with --fps, give the folder")


@pytest.mark.parametrize(
    ("pattern", "name"), [("frames/%06d.dpx", "frames.dpx"), ("f/reel_%04d.tif", "reel.tif"), ("f/%d-x.png", "x.png")]
)
def test_numbered_scans(pattern: str, name: str) -> None:
    assert names(found(pattern)) == [("scan", name)]


def test_a_file_that_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "odd%02d.mkv", "film[1].mkv", "film1.mkv")
    assert names(found(tmp_path / "odd%02d.mkv", tmp_path / "film[1].mkv")) == [
        ("video", "odd%02d.mkv"),
        ("video", "film[1].mkv"),
    ]


def test_globs_are_mirrored_from_their_fixed_part(tmp_path: Path) -> None:
    tree(tmp_path, "in/a/1.mkv", "in/b/1.mkv", "in/b/1.txt", "in/b/2.jpg")
    result = found(f"{tmp_path}/in/**/*.*")
    assert names(result) == [("video", "a/1.mkv"), ("video", "b/1.mkv"), ("album", "b/2.jpg")]
    assert len(result.skipped) == 1
    assert found(f"{tmp_path}/in/*.mov").refused == [(f"{tmp_path}/in/*.mov", "no file or folder matches")]


def test_outdir_inside_an_input_is_left_alone(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.mkv", "out/a.mkv", "out/.reelcolor/x.mkv")
    assert names(found(root, outdir=root / "out")) == [("video", "a.mkv")]
    assert found(root, outdir=root).refused == [(str(root), "is the output folder too; choose another with -o")]


def test_links_in_circles_end(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a/1.mkv")
    (root / "a/up").symlink_to(root)
    (root / "broken.mkv").symlink_to("nowhere")
    (root / "linked.mkv").symlink_to("a/1.mkv")
    result = found(root)
    assert names(result) == [("video", "linked.mkv"), ("video", "a/1.mkv")]
    assert sorted(reason for _, reason in result.skipped) == ["is a broken link", "is a folder met before"]


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    tree(tmp_path, "empty/.keep", "a.mkv")
    os.mkfifo(tmp_path / "pipe.mkv")
    result = found(
        tmp_path / "none.mkv", tmp_path / "empty", tmp_path / "pipe.mkv", tmp_path / "a.mkv", tmp_path / "a.mkv"
    )
    assert [reason for _, reason in result.refused] == [
        "no such file or folder",
        "no video, image or archive in this folder",
        "is not a regular file",
    ]
    assert names(result) == [("video", "a.mkv")]


def test_the_same_file_twice(tmp_path: Path) -> None:
    tree(tmp_path, "a.mkv")
    result = found(tmp_path, f"{tmp_path}/./a.mkv")
    assert names(result) == [("video", "a.mkv")]
    assert result.skipped == [(f"{tmp_path}/a.mkv", "is given twice")]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"film-\xe9\xff.mkv")
    tree(tmp_path, name)
    (item,) = found(tmp_path).items
    assert item.name == PurePosixPath(name)
    assert Path(item.path).exists()


def test_a_list_names_what_a_file_system_can(tmp_path: Path) -> None:
    """All lines of one that holds a name in Latin-1 count, and a line ends where an editor ends it."""
    lines = [b"film-\xe9.mkv", "line\u2028.mkv".encode(), b"next\xc2\x85.mkv"]
    tree(tmp_path, *map(os.fsdecode, lines))
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(os.fsencode(tmp_path) + b"/" + n for n in lines))
    result = found(f"@{tmp_path}/list.txt")
    assert [item.name.name for item in result.items] == list(map(os.fsdecode, lines))
    assert not result.refused


def test_lists_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "film.mkv").write_bytes(b"a\0\n" * 100)
    (tmp_path / "long.txt").write_text("x" * 5000)
    result = found(f"@{tmp_path}/film.mkv", f"@{tmp_path}", f"@{tmp_path}/long.txt")
    assert [reason for _, reason in result.refused] == [
        "is no list: it holds bytes that no text does",
        "the list cannot be read: Is a directory",
        "cannot be read: File name too long",
    ]


def test_an_unknown_extension_is_tried_only_when_asked_for(tmp_path: Path) -> None:
    tree(tmp_path, "film.xyz")
    assert found(tmp_path).skipped == [(str(tmp_path / "film.xyz"), "is no video, image or archive by its name")]
    (item,) = found(tmp_path / "film.xyz").items
    assert not item.certain


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MKV", "video"),
        ("a.tar.gz", "archive"),
        ("a.cbz", "archive"),
        ("a.gz", None),
        ("a.JPEG", "image"),
        ("a", None),
        ("a.srt", None),
    ],
)
def test_kinds(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
