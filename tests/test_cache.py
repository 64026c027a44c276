"""The cache: whatever is in its place, work goes on, and one line says what is wrong."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from model.cache import cache_folder, read_cached, write_cached
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import StorageError

ANEW = "what would be kept there is made anew each time"

pytestmark = pytest.mark.usefixtures("cache")


def test_a_cache_that_cannot_be_written_is_said_once_whatever_is_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for name in ("one", "two", "golden/three"):
        path = cache_folder() / name
        write_cached(path, b"data")
        with pytest.raises(FileNotFoundError):
            read_cached(path)
    (line,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert line == f"{tmp_path / 'file'}/reelcolor: cannot be written: Not a directory; {ANEW}"


def test_without_a_home_the_cache_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        cache_folder()


def test_a_folder_in_a_files_place_is_named(caplog: pytest.LogCaptureFixture) -> None:
    path = cache_folder() / "plan"
    path.mkdir(parents=True)
    keep(path, {}, b"data")
    assert caplog.messages == [f"{path}: cannot be written: Is a directory; {ANEW}"]
    with pytest.raises(UnfitError, match="it is no file"):
        unsealed(path, {})


def test_what_would_be_read_for_ever_is_not_read_but_replaced() -> None:
    cache_folder().mkdir()
    pipe, endless, circle = (cache_folder() / name for name in ("pipe", "endless", "circle"))
    os.mkfifo(pipe)
    endless.symlink_to("/dev/zero")
    circle.symlink_to(circle)
    for path in (pipe, endless, circle):
        with pytest.raises(UnfitError, match="cannot be read"):
            unsealed(path, {})
        keep(path, {}, b"data")
        assert unsealed(path, {}) == b"data"
        assert not path.is_symlink()


def test_what_killed_writers_have_left_goes_and_what_is_being_written_stays() -> None:
    path = cache_folder() / "a[b].onnx"
    old, new, other = (cache_folder() / name for name in (".a[b].onnx.x1.part", ".a[b].onnx.x2.part", ".c.onnx.x.part"))
    cache_folder().mkdir()
    for part in (old, new, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - 7200,) * 2)
    write_cached(path, b"whole")
    assert sorted(cache_folder().iterdir()) == sorted([new, other, path])
